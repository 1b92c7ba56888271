"""``puna quantize``: a model with 4-bit weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from puna.cli import options
from puna.cli.output import say, size_text
from puna.cli.progress import FetchProgress, PackProgress
from puna.cli.training import TrainedOptions, run_training
from puna.errors import ConfigError, nearest

__all__ = ["quantize"]

_ROTATING = ("spinquant", "distill")
_CALIBRATED = ("gptq", *_ROTATING)
_TRAINED = ("qat", "qat-lora")
_READERS = {
    **dict.fromkeys(
        ("calibration", "sequences", "damping", "act_order", "float_tokens", "follow_original"), _CALIBRATED
    ),
    "length": (*_CALIBRATED, *_TRAINED),
    "rotation_steps": _ROTATING,
    "distill_steps": ("distill",),
    "seed": (*_ROTATING, *_TRAINED),
    "device": (*_CALIBRATED, *_TRAINED),
    **dict.fromkeys(
        ("data", "loss", "steps", "batch", "learning_rate", "fake_quant_after", "held_out"), _TRAINED
    ),
    "start": ("qat",),
    **dict.fromkeys(("preferences", "adaptor_learning_rate", "preference_learning_rate"), ("qat-lora",)),
}
"""The methods that read an option; one that is not here is read by all."""


def quantize(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="IN", help="Name or path of a model.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make; it must not exist yet.")],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="ptq rounds to nearest, gptq makes up for errors, spinquant rotates, distill and qat learn, "
            "qat-lora adds adaptors.",
        ),
    ] = "gptq",
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="TEXT",
            help="For all but ptq: text, .jsonl, .json, .parquet or .csv, a saved dataset, or a folder.",
            show_default=False,
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            "--rule",
            metavar="NAME",
            help="How scales are chosen; default: signed for ptq and qat, search for the others.",
        ),
    ] = None,
    sequences: Annotated[
        int, typer.Option("--sequences", metavar="N", help="Pieces of calibration text.")
    ] = 128,
    length: Annotated[
        int | None,
        typer.Option(
            "--length",
            metavar="N",
            help="Tokens of each; default: 2048, for qat 512.",
            show_default=False,
        ),
    ] = None,
    damping: Annotated[
        float,
        typer.Option("--damping", metavar="X", help="Added to the Hessian's diagonal, a share of its mean."),
    ] = 0.01,
    act_order: Annotated[
        bool, typer.Option("--act-order", help="Round columns with the largest inputs first.")
    ] = False,
    float_tokens: Annotated[
        bool, typer.Option("--float-tokens", help="Calibrate without 8-bit activations.")
    ] = False,
    follow_original: Annotated[
        bool, typer.Option("--follow-original", help="Make up for what earlier matrices have changed, too.")
    ] = False,
    rotation_steps: Annotated[
        int,
        typer.Option(
            "--rotation-steps",
            metavar="N",
            help="For spinquant and distill: steps of learning rotations; 0: random ones, layer by layer.",
        ),
    ] = 100,
    distill_steps: Annotated[
        int, typer.Option("--distill-steps", metavar="N", help="For distill: steps of learning scales.")
    ] = 200,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            help="For all but ptq and gptq: of random rotations and adaptors, and of the order of the text.",
        ),
    ] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="TEXT",
            help="For qat: texts and conversations, a .txt or .jsonl file or a folder of them.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="MODEL",
            help="For qat: what gptq, spinquant or distill made of IN, to go on from.",
            show_default=False,
        ),
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(
            "--preferences",
            metavar="PAIRS",
            help="For qat-lora: a .jsonl file of better and worse answers, to learn last.",
            show_default=False,
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            "--loss", metavar="NAME", help="For qat: distill follows the model itself, text the data."
        ),
    ] = "distill",
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="For qat: steps of each stage.")] = 200,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="For qat: rows of a step.")] = 4,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            metavar="X",
            help="For qat: the highest, of all weights; default: 2e-5, with --start 0.01 steps of the grid.",
            show_default=False,
        ),
    ] = None,
    adaptor_learning_rate: Annotated[
        float, typer.Option("--adaptor-learning-rate", metavar="X", help="For qat-lora: of the adaptors.")
    ] = 2e-4,
    preference_learning_rate: Annotated[
        float, typer.Option("--preference-learning-rate", metavar="X", help="For qat-lora: on preferences.")
    ] = 5e-6,
    fake_quant_after: Annotated[
        int, typer.Option("--fake-quant-after", metavar="N", help="For qat: steps before rounding begins.")
    ] = 0,
    held_out: Annotated[
        int, typer.Option("--held-out", metavar="N", help="For qat: rows to watch and not to learn from.")
    ] = 0,
    device: Annotated[
        str,
        typer.Option(
            "--device", metavar="NAME", help="For all but ptq: where torch computes, cuda for a GPU."
        ),
    ] = "cpu",
) -> None:
    """Make a model with 4-bit weights, as the Llama 3.2 quantized models have them.

    Matrices of the blocks become integers of 4 bits in groups of 32, embedding and head of 8 bits. An
    interrupted run goes on where it was when the same command is given again. Made from a Llama, the
    folder's name must begin with "Llama", as the licence asks.
    """
    from puna.evaluate.speed import checkpoint_bytes
    from puna.models.licences import check_derived_name
    from puna.models.local import known_row
    from puna.models.open import open_checkpoint
    from puna.models.store import path_of

    try:
        from puna.quantize.memory import memory_estimate
        from puna.quantize.recipe import METHODS, Recipe, default_rule
        from puna.quantize.run import quantize as run
        from puna.train.qat_recipe import METHODS as TRAINED
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError("`puna quantize` needs PyTorch; pip install 'puna[train]'") from error
    if method not in (*METHODS, *TRAINED):
        raise ConfigError(f"method {method!r} is unknown; {nearest(method, (*METHODS, *TRAINED))}")
    _refuse_unread(context, method)
    _check_device(device)
    row = None if os.path.exists(os.path.expanduser(source)) else known_row(source)
    if row is not None:
        check_derived_name(out.absolute().name, row.licence)
    with FetchProgress() as fetching:
        path = path_of(source, fetching)
    checkpoint = open_checkpoint(path)
    if method in TRAINED:
        trained = TrainedOptions(
            method=method,
            rule=rule,
            data=data,
            start=start,
            preferences=preferences,
            loss=loss,
            steps=steps,
            batch=batch,
            length=length,
            learning_rate=learning_rate,
            adaptor_learning_rate=adaptor_learning_rate,
            preference_learning_rate=preference_learning_rate,
            fake_quant_after=fake_quant_after,
            held_out=held_out,
            seed=seed,
            device=device,
        )
        with _told_of_full(device):
            run_training(checkpoint, out, trained)
    else:
        recipe = Recipe(
            method=method,
            rule=default_rule(method) if rule is None else rule,
            sequences=sequences,
            length=2048 if length is None else length,
            damping=damping,
            act_order=act_order,
            rounds_tokens=not float_tokens,
            follows_original=follow_original,
            rotation_steps=rotation_steps,
            distill_steps=distill_steps,
            seed=seed,
        )
        needs = memory_estimate(checkpoint.config, checkpoint.dtypes, recipe)
        say(f"needs about {size_text(needs)} of memory")
        with ExitStack() as stack, _told_of_full(device):
            bars: dict[str, PackProgress] = {}

            def progress(stage: str, done: int, total: int) -> None:
                if stage not in bars:
                    bars[stage] = stack.enter_context(PackProgress(stage))
                bars[stage](done, total)

            run(checkpoint, out, recipe, calibration=calibration, progress=progress, device=device)
    say(f"{path}: {size_text(checkpoint_bytes(path))}")
    say(f"{out}: {size_text(checkpoint_bytes(out))} by {method}")
    if row is not None:
        say(f"licence: {row.licence.name}, {row.licence.url}")
        for duty in row.licence.duties:
            say(f"  {duty}")


def _refuse_unread(context: typer.Context, method: str) -> None:
    """Refuse options that were given and that the method does not read."""
    for name, methods in _READERS.items():
        if method not in methods and options.is_given(context, name):
            raise ConfigError(
                f"`--{name.replace('_', '-')}` is for the methods {', '.join(methods)}, and the method is "
                f"{method!r}; leave it out or ask for another method"
            )


def _check_device(device: str) -> None:
    """Refuse a device that torch cannot use, before anything is fetched."""
    import torch

    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"torch cannot use the device {device!r:.40}: {reason:.200}; try cpu") from error


@contextmanager
def _told_of_full(device: str) -> Iterator[None]:
    """Tell of a device whose memory is full in a line."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the memory of {device} is full; give shorter texts or smaller batches, or the same command "
            "with another `--device`: what is done is kept"
        ) from error

"""Speed and memory of a model, in the five columns of the Llama 3.2 model card.

Start at `measure_apart`, which measures in a process of its own, so that the memory is the model's alone;
`measure` takes a model that is loaded already.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import puna.errors
from puna.errors import CapacityError, ConfigError, EngineError, PunaError
from puna.evaluate.machine import Machine, this_machine
from puna.evaluate.roofline import Limit, Roofline, multiply_rate, stream_read

if TYPE_CHECKING:
    from puna.llama import Llama

__all__ = [
    "Speed",
    "SpeedReport",
    "SpeedSettings",
    "Spread",
    "checkpoint_bytes",
    "measure",
    "measure_apart",
    "peak_rss_bytes",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedSettings:
    """What to measure.

    Attributes:
        model: a catalogue name or a path.
        format: see `puna.load`.
        threads: see `puna.load`.
        context: see `puna.load`.
        cache: see `puna.load`.
        speculation: see `puna.load`; off, because how far guesses go depends on the text, and what follows
            random prompts repeats itself.
        draft: see `puna.load`.
        prompt_tokens: length of the prompts; 64 as in the model card.
        new_tokens: length of the answers, at least 2.
        repeats: measured runs; one more goes before them and does not count.
    """

    model: str
    format: str = "auto"
    threads: int | None = None
    context: int | None = None
    cache: str = "auto"
    speculation: str = "off"
    draft: str | None = None
    prompt_tokens: int = 64
    new_tokens: int = 128
    repeats: int = 5

    def __post_init__(self) -> None:
        """Validate the numbers; ConfigError names the first that is out of range."""
        for name, low in (("prompt_tokens", 1), ("new_tokens", 2), ("repeats", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"`{name}` must be at least {low}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """The median of several runs, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """How fast a model is with one request at a time.

    Attributes:
        decode_tokens_per_s: tokens a second after the first.
        time_to_first_token_s: from the prompt's submission to the first token.
        prefill_tokens_per_s: prompt tokens over the time to the first token, as the model card has it.
        tokens_per_step: tokens that a step of decoding gave; 1 without speculation.
    """

    decode_tokens_per_s: Spread
    time_to_first_token_s: Spread
    prefill_tokens_per_s: Spread
    tokens_per_step: Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedReport:
    """Speed, size and memory, and what they were measured with.

    Attributes:
        settings: what was asked for.
        speed: the three columns that are times.
        cold_start_s: from the start of the process to the first token of a prompt of `prompt_tokens`.
        roofline: what the machine allows, and how near the medians come.
        file_bytes: size of the model file, or of all files in its folder.
        peak_rss_bytes: most memory that the process had at once, mapped weights included.
        model: name of the model.
        formats: how many matrices are in each packed format.
        cache: how keys and values were kept.
        isa: the kernels' instruction set.
        threads: threads that computed.
        machine: where.
    """

    settings: SpeedSettings
    speed: Speed
    cold_start_s: float
    roofline: Roofline
    file_bytes: int
    peak_rss_bytes: int
    model: str
    formats: dict[str, int]
    cache: str
    isa: str
    threads: int
    machine: Machine


def measure(llama: Llama, *, prompt_tokens: int = 64, new_tokens: int = 128, repeats: int = 5) -> Speed:
    """Time a loaded model with random prompts, which no cache can know, after one run to warm up.

    Args:
        llama: the model; nothing else may use it meanwhile.
        prompt_tokens: see `SpeedSettings`.
        new_tokens: see `SpeedSettings`.
        repeats: see `SpeedSettings`.

    Raises:
        CapacityError: prompt and answer do not fit the context.
        ConfigError: a number is out of range.
    """
    SpeedSettings(model=llama.info.name, prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeats=repeats)
    room = llama.engine.context_tokens
    if prompt_tokens + new_tokens > room:
        raise CapacityError(
            f"{prompt_tokens} prompt tokens and {new_tokens} new ones need a context of "
            f"{prompt_tokens + new_tokens}, this one has {room}; ask for fewer or for a larger `context`"
        )
    prompts = _prompts(llama, prompt_tokens)
    usages = [
        llama.generate(next(prompts), max_tokens=new_tokens, temperature=0.0, ignore_eos=True).usage
        for _ in range(1 + repeats)
    ][1:]
    return Speed(
        decode_tokens_per_s=Spread.of([usage.decode_tokens_per_s for usage in usages]),
        time_to_first_token_s=Spread.of([usage.time_to_first_token_s for usage in usages]),
        prefill_tokens_per_s=Spread.of([prompt_tokens / usage.time_to_first_token_s for usage in usages]),
        tokens_per_step=Spread.of([usage.tokens_per_step for usage in usages]),
    )


def measure_apart(settings: SpeedSettings) -> SpeedReport:
    """Load and time a model in a fresh process.

    Args:
        settings: what to measure. A model of the catalogue should be in the store already, else the
            memory of its conversion counts.

    Raises:
        PunaError: whatever loading or `measure` raises.
        EngineError: the process died, of too little memory perhaps.
    """
    done = subprocess.run(
        [sys.executable, "-m", "puna.evaluate.speed"],
        input=json.dumps({"settings": asdict(settings), "started": time.monotonic()}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EngineError(
            f"the measuring process ended with status {done.returncode}: {last}; status -9 means that the "
            "system ended it, mostly for want of memory"
        )
    reply = json.loads(done.stdout)
    if "error" in reply:
        kind, text = reply["error"]
        raise getattr(puna.errors, kind, PunaError)(text)
    speed = Speed(**{name: Spread(**values) for name, values in reply.pop("speed").items()})
    needs = reply.pop("needs_per_token")
    return SpeedReport(
        settings=settings,
        speed=speed,
        roofline=_roofline(speed, needs["bytes"], needs["products"], reply["threads"]),
        machine=this_machine(),
        **reply,
    )


def _roofline(speed: Speed, n_bytes: float, n_products: float | None, threads: int) -> Roofline:
    """The machine's rates, taken once the model has gone, so that its memory is free for it."""
    decode, prefill = speed.decode_tokens_per_s.median, speed.prefill_tokens_per_s.median
    return Roofline(
        decode=Limit.of(decode, per_token=n_bytes, per_s=stream_read(threads)),
        prefill=None
        if n_products is None
        else Limit.of(prefill, per_token=n_products, per_s=multiply_rate(threads)),
    )


def checkpoint_bytes(path: Path) -> int:
    """Size of a model on disk: of the file, or of all files of the folder."""
    return sum(
        file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()) if file.is_file()
    )


def peak_rss_bytes() -> int:
    """Most memory that this process has had at once, in bytes."""
    try:
        # Not getrusage where this is there: a child begins with the peak of the process that started it.
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def _prompts(llama: Llama, n_tokens: int) -> Iterator[list[int]]:
    """Different prompts of ordinary tokens, the same ones every time."""
    n_ids = llama.config.vocab_size
    others = {*llama.tokenizer.special_tokens.values(), *llama.tokenizer.left_out(n_ids)}
    ordinary = [token for token in range(n_ids) if token not in others]
    draw = random.Random(0)
    while True:
        yield draw.choices(ordinary, k=n_tokens)


def _needs_per_token(llama: Llama, settings: SpeedSettings) -> dict[str, float | None]:
    """Bytes of a decoded token, and products of a prompt's, where its weights are integers."""
    middle = settings.prompt_tokens + settings.new_tokens / 2
    blocks = [shape for name, shape in llama.config.tensor_shapes().items() if ".layers." in name]
    is_integer = all(name.startswith("int") for name in llama.info.formats)
    return {
        "bytes": llama.info.weight_bytes_per_token + middle * llama.info.cache_bytes_per_token,
        "products": sum(math.prod(shape) for shape in blocks if len(shape) == 2) if is_integer else None,
    }


def _measure_here(settings: SpeedSettings, started: float) -> dict[str, Any]:
    from puna import _native, load
    from puna.engine.native import default_threads

    with load(
        settings.model,
        format=settings.format,
        threads=settings.threads,
        context=settings.context,
        cache=settings.cache,
        speculation=settings.speculation,
        draft=settings.draft,
    ) as llama:
        llama.generate(next(_prompts(llama, settings.prompt_tokens)), max_tokens=1, ignore_eos=True)
        cold_start_s = time.monotonic() - started
        speed = measure(
            llama,
            prompt_tokens=settings.prompt_tokens,
            new_tokens=settings.new_tokens,
            repeats=settings.repeats,
        )
        return {
            "speed": asdict(speed),
            "cold_start_s": cold_start_s,
            "needs_per_token": _needs_per_token(llama, settings),
            "file_bytes": checkpoint_bytes(Path(llama.info.path)),
            "peak_rss_bytes": peak_rss_bytes(),
            "model": llama.info.name,
            "formats": llama.info.formats,
            "cache": llama.info.cache,
            "isa": _native.isa(),
            "threads": settings.threads or default_threads(),
        }


def _main() -> None:
    """Measure what stdin says and answer on stdout: the other end of `measure_apart`."""
    try:
        job = json.load(sys.stdin)
        reply = _measure_here(SpeedSettings(**job["settings"]), job["started"])
    except PunaError as error:
        # The native library's own class goes under the name of the one it derives from.
        kind = next(c.__name__ for c in type(error).__mro__ if c.__module__ == "puna.errors")
        reply = {"error": [kind, str(error)]}
    json.dump(reply, sys.stdout)


if __name__ == "__main__":
    _main()

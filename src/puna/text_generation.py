"""The call of the model cards: messages in, ``generated_text`` out.

The Llama 3.2 model card shows transformers' ``pipeline("text-generation", ...)``; the same lines run
here with `puna.pipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from puna.errors import ConfigError, nearest
from puna.llama import Llama, load

__all__ = ["TextGeneration", "pipeline"]

_TASKS = ("text-generation",)
_DTYPES = {"auto": "auto", "bfloat16": "bf16", "float16": "bf16", "float32": "f32"}


class TextGeneration:
    """A loaded model behind a call that takes a prompt or a conversation.

    Attributes:
        llama: the model.
    """

    def __init__(self, llama: Llama) -> None:
        """Wrap a loaded model."""
        self.llama = llama

    def __call__(
        self,
        prompt: str | Sequence[dict[str, Any]],
        *,
        max_new_tokens: int = 256,
        do_sample: bool = True,
        return_full_text: bool = True,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Continue a text or answer a conversation.

        Args:
            prompt: a text, or ``{"role", "content"}`` messages.
            max_new_tokens: at most so many new tokens; 256 as in the model card.
            do_sample: False takes the most likely token every time.
            return_full_text: give the prompt back with the answer behind it, as transformers does.
            **options: see `puna.SamplingParams`.

        Returns:
            One mapping with ``generated_text``: the text, or the messages with the assistant's as the
            last.
        """
        if not do_sample:
            options["temperature"] = 0.0
        if isinstance(prompt, str):
            text = self.llama.generate(prompt, max_tokens=max_new_tokens, **options).text
            return [{"generated_text": prompt + text if return_full_text else text}]
        answer = self.llama.chat(prompt, max_tokens=max_new_tokens, **options).result().text
        if not return_full_text:
            return [{"generated_text": answer}]
        return [{"generated_text": [*prompt, {"role": "assistant", "content": answer}]}]


def pipeline(
    task: str, model: str, *, dtype: Any = None, torch_dtype: Any = None, device_map: str | None = None
) -> TextGeneration:
    """Load a model behind the call that model cards show.

    Args:
        task: ``text-generation``.
        model: a catalogue name or a path.
        dtype: weights: None or ``auto`` (what the file has), or torch's or NumPy's float type or its
            name; float16 runs as bf16.
        torch_dtype: the same under its older name.
        device_map: None, ``auto`` or ``cpu``, which all mean the CPU.

    Raises:
        ConfigError: an argument is not one of these.
        UnknownModelError: there is no such model.
    """
    if task not in _TASKS:
        raise ConfigError(f"task {task!r} is unknown; {nearest(str(task), _TASKS)}")
    if device_map not in (None, "auto", "cpu"):
        raise ConfigError(f"`device_map` must be 'auto' or 'cpu', got {device_map!r}")
    wanted = dtype if dtype is not None else torch_dtype
    name = "auto" if wanted is None else getattr(wanted, "__name__", str(wanted)).removeprefix("torch.")
    if name not in _DTYPES:
        raise ConfigError(f"`dtype` {name!r} is unknown; {nearest(name, _DTYPES)}")
    return TextGeneration(load(model, format=_DTYPES[name]))

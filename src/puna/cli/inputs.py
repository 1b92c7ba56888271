"""From arguments and a pipe to a model and a prompt."""

from __future__ import annotations

import os
import sys

from puna.errors import ConfigError, UnknownModelError

__all__ = ["model_and_prompt", "piped_text", "remote_model_and_prompt"]

_MAX_PIPED_BYTES = 16 * 1024 * 1024  # far more text than any context has room for


def model_and_prompt(first: str | None, second: str | None, piped: str) -> tuple[str, str]:
    """Tell which argument is the model and which the prompt, and put the piped text behind the prompt.

    A lone argument is the model, unless it has a space in it and there is no such model: then it is a
    prompt for the default model.

    Args:
        first: the first argument.
        second: the second argument.
        piped: what came through stdin.

    Returns:
        Model and prompt; the prompt is empty where there is none.

    Raises:
        UnknownModelError: a lone word is not a model.
        ConfigError: the prompt that was given is empty.
    """
    from puna.models.catalogue import DEFAULT_MODEL

    model, prompt = first, second
    if first is not None and second is None:
        try:
            _check_model(first)
        except UnknownModelError:
            if " " not in first.strip():
                raise
            model, prompt = None, first
    if prompt is not None and not prompt.strip():
        raise ConfigError(f"the prompt must have some text in it, got {prompt!r}")
    parts = [part for part in (prompt, piped) if part is not None and part.strip()]
    return model or DEFAULT_MODEL, "\n\n".join(parts)


def remote_model_and_prompt(first: str | None, second: str | None, piped: str) -> tuple[str | None, str]:
    """`model_and_prompt` for a server, whose models are not known here.

    A lone argument with a space in it is a prompt.

    Args:
        first: the first argument.
        second: the second argument.
        piped: what came through stdin.

    Returns:
        Model, None for the server's first, and prompt, empty where there is none.
    """
    if first is not None and second is None and " " in first.strip():
        first, second = None, first
    return first, "\n\n".join(part for part in (second, piped) if part)


def piped_text() -> str:
    """Read the text piped to this process, without the newline at its end; empty at a terminal.

    Raises:
        ConfigError: it is not UTF-8, or longer than 16 MB.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    data = sys.stdin.buffer.read(_MAX_PIPED_BYTES + 1)
    if len(data) > _MAX_PIPED_BYTES:
        raise ConfigError(f"the piped text may have {_MAX_PIPED_BYTES} bytes, got more; pipe less of it")
    try:
        return data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the piped text must be UTF-8, got byte {data[error.start]:#04x} at {error.start}"
        ) from error


def _check_model(name: str) -> None:
    from puna.models.catalogue import resolve
    from puna.models.store import installed

    if os.path.exists(os.path.expanduser(name)) or name.endswith(".gguf"):
        return
    try:
        resolve(name)
    except UnknownModelError as error:
        if not any(model.name == name for model in installed()):
            raise UnknownModelError(
                f"{error}; nor is there a file or folder of that name. If it is a prompt, write the model "
                "before it"
            ) from None

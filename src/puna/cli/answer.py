"""An answer on its way to stdout, and what can be told about it afterwards."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from puna.cli.output import print_json, say, visible

if TYPE_CHECKING:
    from puna.cli.talker import Answer
    from puna.engine.request import Completion
    from puna.tokens import Tokenizer

__all__ = ["print_answer", "stats_text"]


def print_answer(
    name: str,
    stream: Answer,
    *,
    tokenizer: Tokenizer | None = None,
    as_json: bool,
    stats: bool,
    asked_for_tokens: bool,
) -> Completion:
    """Print an answer: its text as it comes, or all of it as JSON at the end.

    Args:
        name: the model's, for the JSON.
        stream: the answer.
        tokenizer: the model's, where the answer may have log-probabilities.
        as_json: print one document with text, tokens, log-probabilities and usage.
        stats: tell what it cost, on stderr.
        asked_for_tokens: the user said how many tokens there may be, so a cut needs no word.

    Returns:
        The whole answer.
    """
    if not as_json:
        _stream_text(stream)
    completion = stream.result()
    if as_json:
        print_json(_document(name, tokenizer, completion))
    elif completion.finish_reason == "length" and not asked_for_tokens:
        n_tokens = completion.usage.completion_tokens
        say(f"cut after {n_tokens} tokens; --max-tokens and --context set how many there may be")
    if stats:
        say(stats_text(completion))
    return completion


def stats_text(completion: Completion) -> str:
    """What an answer cost, in a line."""
    usage = completion.usage
    guesses = ""
    if usage.proposed_tokens:
        guesses = f"{usage.accepted_tokens} of {usage.proposed_tokens} guessed tokens right; "
    return (
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached), "
        f"{usage.completion_tokens} new tokens at {usage.decode_tokens_per_s:.1f} tok/s, "
        f"the first after {usage.time_to_first_token_s:.3f} s; "
        f"{guesses}ended by {completion.finish_reason}, seed {completion.seed}"
    )


def _stream_text(stream: Answer) -> None:
    """Write the text as it is to a pipe, and without control characters to a terminal."""
    is_terminal, last = sys.stdout.isatty(), ""
    try:
        for event in stream:
            text = visible(event.text) if is_terminal else event.text
            sys.stdout.write(text)
            sys.stdout.flush()
            last = text or last
    finally:
        # After Ctrl-C too, so that the shell's prompt gets a line of its own.
        if not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def _document(name: str, tokenizer: Tokenizer | None, completion: Completion) -> dict[str, Any]:
    document = asdict(completion)
    document["usage"]["decode_tokens_per_s"] = completion.usage.decode_tokens_per_s
    if tokenizer is not None:
        document["logprobs"] = [
            {
                **_named(tokenizer, entry.token, entry.logprob),
                "top": [_named(tokenizer, token, logprob) for token, logprob in entry.top],
            }
            for entry in completion.logprobs
        ]
    return {"model": name, **document}


def _named(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    return {"token": token, "text": tokenizer.decode([token], show_special=True), "logprob": logprob}

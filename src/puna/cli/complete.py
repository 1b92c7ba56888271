"""``puna complete``: go on with a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from puna.cli import options
from puna.cli.answer import print_answer
from puna.cli.inputs import model_and_prompt, piped_text
from puna.cli.output import say
from puna.cli.progress import load_model
from puna.errors import ConfigError

if TYPE_CHECKING:
    from puna.engine.request import TokenLogprob
    from puna.llama import Llama

__all__ = ["complete"]


def complete(
    model: options.Model = None,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="The text to go on with. Piped text comes behind it, or is the prompt.",
            show_default=False,
        ),
    ] = None,
    logprobs: Annotated[
        int | None,
        typer.Option(
            "--logprobs",
            metavar="N",
            help="Log-probabilities of the tokens and of N alternatives, on stderr or in the JSON.",
        ),
    ] = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    json_schema: options.JsonSchemaFile = None,
    regex: options.Regex = None,
    grammar: options.Grammar = None,
    choice: options.Choice = None,
    format: options.Format = "auto",
    threads: options.Threads = None,
    context: options.Context = None,
    cache: options.Cache = "auto",
    speculation: options.Speculation = "lookup",
    draft: options.Draft = None,
    stats: options.Stats = False,
    as_json: options.Json = False,
) -> None:
    """Let a model go on with a text.

    The text is taken as it is, without a chat format around it. A lone argument with a space in it is a
    text for the default model.
    """
    sampling = options.sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        constraint=options.constraint(json_schema, regex, grammar, choice),
        logprobs=logprobs,
    )
    name, text = model_and_prompt(model, prompt, piped_text())
    if not text:
        raise ConfigError("there is no prompt; give one as an argument or through a pipe")
    llama = load_model(
        name,
        format=format,
        threads=threads,
        context=context,
        cache=cache,
        speculation=speculation,
        draft=draft,
    )
    completion = print_answer(
        llama.info.name,
        llama.stream(text, **sampling),
        tokenizer=llama.tokenizer,
        as_json=as_json,
        stats=stats,
        asked_for_tokens=max_tokens is not None,
    )
    if not as_json:
        for entry in completion.logprobs:
            say(_logprob_row(llama, entry))


def _logprob_row(llama: Llama, entry: TokenLogprob) -> str:
    def told(token: int, logprob: float) -> str:
        return f"{logprob:8.3f} {llama.tokenizer.decode([token], show_special=True)!r:14}"

    return "  ".join([told(entry.token, entry.logprob), *(told(*other) for other in entry.top)])

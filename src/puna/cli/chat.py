"""``puna chat``: one answer, or a conversation at a terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from puna.cli import options
from puna.cli.answer import print_answer, stats_text
from puna.cli.inputs import model_and_prompt, piped_text
from puna.cli.output import is_terminal, say
from puna.cli.progress import load_model
from puna.cli.raw import print_raw
from puna.errors import ConfigError

__all__ = ["chat"]


def chat(
    model: options.Model = None,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="What to ask. Piped text comes behind it, or is the prompt.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="Standing instructions to the model.")
    ] = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    format: options.Format = "auto",
    threads: options.Threads = None,
    context: options.Context = None,
    cache: options.Cache = "auto",
    speculation: options.Speculation = "lookup",
    draft: options.Draft = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show what the model reads and writes, special tokens included.")
    ] = False,
    stats: options.Stats = False,
    as_json: options.Json = False,
) -> None:
    """Talk to a model.

    With a prompt there is one answer, without one a conversation. A lone argument with a space in it is
    a prompt for the default model.
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
    )
    if raw and as_json:
        raise ConfigError("--raw and --json do not go together: one shows text, the other a document")
    name, text = model_and_prompt(model, prompt, piped_text())
    if not text and (as_json or not is_terminal()):
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
    if not text:
        from puna.cli.conversation import Conversation
        from puna.cli.repl import Repl
        from puna.engine.request import SamplingParams

        conversation = Conversation(system, settings=SamplingParams(**sampling))
        Repl(llama, conversation, shows_stats=stats, is_raw=raw).run()
        return
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    if raw:
        ids = llama.encode_chat(messages)
        answer = llama.stream(ids, **sampling)
        print_raw(llama, ids, answer)
        if stats:
            say(stats_text(answer.result()))
        return
    print_answer(
        llama,
        llama.chat(messages, **sampling),
        as_json=as_json,
        stats=stats,
        asked_for_tokens=max_tokens is not None,
    )

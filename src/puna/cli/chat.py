"""``puna chat``: one answer, or a conversation at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from puna.cli import options
from puna.cli.answer import print_answer, stats_text
from puna.cli.inputs import model_and_prompt, piped_text, remote_model_and_prompt
from puna.cli.output import is_terminal, say
from puna.cli.progress import load_model
from puna.cli.raw import print_raw
from puna.errors import ConfigError

if TYPE_CHECKING:
    from puna.llama import Llama

__all__ = ["chat"]

_ENGINE_OPTIONS = ("format", "threads", "context", "cache", "speculation", "draft")


def chat(
    command: typer.Context,
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
    server: Annotated[
        str | None,
        typer.Option(
            "--server", metavar="URL", help="Let a running server answer; PUNA_API_KEY is the key, if any."
        ),
    ] = None,
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
    from puna.cli.remote import RemoteServer
    from puna.cli.talker import LocalTalker, RemoteTalker
    from puna.prompt.messages import Message, System, User

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
    )
    if raw and as_json:
        raise ConfigError("--raw and --json do not go together: one shows text, the other a document")
    if raw and server is not None:
        raise ConfigError("--raw and --server do not go together: a server tells text, not tokens")
    for option in _ENGINE_OPTIONS:
        if server is not None and options.is_given(command, option):
            raise ConfigError(f"--{option} and --server do not go together: `puna serve` takes it, for all")
    talker: LocalTalker | RemoteTalker
    llama: Llama | None = None
    if server is None:
        name, text = model_and_prompt(model, prompt, piped_text())
        _check_prompt(text, as_json)
        llama = load_model(
            name,
            format=format,
            threads=threads,
            context=context,
            cache=cache,
            speculation=speculation,
            draft=draft,
        )
        talker = LocalTalker(llama)
    else:
        remote_name, text = remote_model_and_prompt(model, prompt, piped_text())
        _check_prompt(text, as_json, remote_name)
        talker = RemoteTalker(RemoteServer(server), remote_name)
    if not text:
        if sampling.get("constraint") is not None:
            raise ConfigError(
                "what an answer must be is for one answer, not for a conversation; give a prompt"
            )
        from puna.cli.conversation import Conversation
        from puna.cli.repl import Repl
        from puna.engine.request import SamplingParams

        conversation = Conversation(system, settings=SamplingParams(**sampling))
        Repl(talker, conversation, shows_stats=stats, raw=llama if raw else None).run()
        return
    messages: list[Message] = [*([] if system is None else [System(system)]), User(text)]
    answer = talker.chat(messages, **sampling)
    if raw and llama is not None:
        print_raw(llama, llama.encode_chat(messages), answer)
        if stats:
            say(stats_text(answer.result()))
        return
    print_answer(
        talker.name,
        answer,
        tokenizer=llama.tokenizer if llama else None,
        as_json=as_json,
        stats=stats,
        asked_for_tokens=max_tokens is not None,
    )


def _check_prompt(text: str, as_json: bool, model: str | None = None) -> None:
    """Insist on a prompt where there can be no conversation; `model` may have been meant as one."""
    if not text and (as_json or not is_terminal()):
        taken = "" if model is None else f", {model!r:.100} being the model"
        raise ConfigError(f"there is no prompt{taken}; give one as an argument or through a pipe")

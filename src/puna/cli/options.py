"""Options and arguments that several commands have, written once so that they mean the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from puna.errors import ConfigError, nearest

if TYPE_CHECKING:
    from puna.constraints.forms import Constraint
    from puna.engine.request import SamplingOptions

__all__ = [
    "SERVER_URL",
    "Cache",
    "Chart",
    "Choice",
    "Context",
    "Draft",
    "Format",
    "Grammar",
    "Json",
    "JsonSchemaFile",
    "MaxTokens",
    "MinP",
    "Model",
    "Regex",
    "RepetitionPenalty",
    "Seed",
    "ServerUrl",
    "Speculation",
    "Stats",
    "Stop",
    "Temperature",
    "Threads",
    "TopK",
    "TopP",
    "constraint",
    "is_given",
    "sampling",
]

# A small model may repeat itself for ever; what is cut is said.
_MAX_TOKENS = 1024


def _checked_format(name: str) -> str:
    from puna.models.packed import FORMATS

    if name not in FORMATS:
        raise ConfigError(f"format {name!r} is unknown; {nearest(name, FORMATS)}")
    return name


def _checked_cache(name: str) -> str:
    from puna.models.cache import cache_format

    cache_format(name, ())
    return name


def _checked_speculation(name: str) -> str:
    from puna.engine.speculation import proposer

    proposer(name)
    return name


Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        callback=_checked_format,
        help="How weights are held: f32, bf16, int8, int4, or auto, as near to the file as the engine can.",
    ),
]
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL", help="Name or path of a model; default: smollm2-135m-instruct.", show_default=False
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", help="Threads that compute; default: the CPUs this process may use."
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="N",
        help="Tokens that a prompt and its answer may take; default: the model's own, at most 8192.",
    ),
]
Cache = Annotated[
    str,
    typer.Option(
        "--cache",
        metavar="NAME",
        callback=_checked_cache,
        help="How keys and values are kept: f32, f16, int8, or auto, f32 for f32 weights and else f16.",
    ),
]
Speculation = Annotated[
    str,
    typer.Option(
        "--speculation",
        metavar="NAME",
        callback=_checked_speculation,
        help="Guess tokens and check several in one step: lookup in the text so far, or off; same answers.",
    ),
]
Draft = Annotated[
    str | None,
    typer.Option(
        "--draft",
        metavar="MODEL",
        help="A smaller model of the same vocabulary, which guesses in place of a look-up.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", metavar="N", help="At most N new tokens; default: 1024."),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", metavar="X", help="0 takes the likeliest token every time, up to 2; default: 0.6."
    ),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", metavar="N", help="Only the N likeliest tokens; default: 0, all of them."),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        metavar="X",
        help="Only the likeliest tokens that together have probability X; default: 0.9.",
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        "--min-p", metavar="X", help="Only tokens at least X times as likely as the likeliest; default: 0."
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        "--repetition-penalty",
        metavar="X",
        help="Over 1 makes tokens of prompt and answer less likely to come again; default: 1.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", help="The same seed and prompt give the same answer; default: drawn anew."
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End the answer before TEXT; may be given 16 times."),
]
JsonSchemaFile = Annotated[
    Path | None,
    typer.Option(
        "--json-schema", metavar="FILE", help="The answer is JSON as the schema in FILE says; -: any object."
    ),
]
Regex = Annotated[
    str | None,
    typer.Option("--regex", metavar="PATTERN", help="The answer matches PATTERN as a whole."),
]
Grammar = Annotated[
    Path | None,
    typer.Option(
        "--grammar", metavar="FILE", help="The answer is in the language of the Lark grammar in FILE."
    ),
]
Choice = Annotated[
    list[str] | None,
    typer.Option("--choice", metavar="TEXT", help="The answer is TEXT; given several times, one of them."),
]
Stats = Annotated[
    bool, typer.Option("--stats", help="Tell tokens, speed and time to the first token, on stderr.")
]
SERVER_URL = "http://127.0.0.1:8321"
ServerUrl = Annotated[
    str, typer.Option("--server", metavar="URL", help="A running server; PUNA_API_KEY is the key, if any.")
]
Chart = Annotated[
    Path | None,
    typer.Option("--chart", metavar="FILE.svg", help="Draw it too, into this file.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def constraint(
    json_schema: Path | None, regex: str | None, grammar: Path | None, choices: list[str] | None
) -> Constraint | None:
    """What the answer must be, of the one option that was given; None where none was.

    Raises:
        ConfigError: several were given, or a file cannot be read.
    """
    from puna.constraints.forms import Choices, JsonSchema, Lark
    from puna.constraints.forms import Regex as Pattern

    given = [option for option in (json_schema, regex, grammar, choices) if option is not None]
    if len(given) > 1:
        raise ConfigError("--json-schema, --regex, --grammar and --choice do not go together; give one")
    if json_schema is not None:
        return JsonSchema() if str(json_schema) == "-" else JsonSchema(_read_json(json_schema))
    if regex is not None:
        return Pattern(regex)
    if grammar is not None:
        return Lark(_read(grammar))
    return Choices(choices) if choices else None


def is_given(command: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, be it with its default.

    Args:
        command: the command's.
        name: of the function's parameter.
    """
    source = command.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error


def sampling(**given: Any) -> SamplingOptions:
    """Keep the sampling options that were given, and check them before anything slow begins.

    An answer has an end on the command line: 1024 tokens where `max_tokens` is not given.

    Args:
        **given: fields of `puna.SamplingParams`; None stands for "not given".

    Raises:
        ConfigError: an option is out of range.
    """
    from puna.engine.request import SamplingParams

    options = {name: value for name, value in given.items() if value is not None}
    options.setdefault("max_tokens", _MAX_TOKENS)
    SamplingParams(**options)
    return cast("SamplingOptions", options)

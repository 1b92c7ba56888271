"""The command line `puna`: one command a file, each of which parses, calls the library and prints.

Owns options, progress, the terminal conversation and how errors are told. Imports every package below
it, but only inside the functions that need them, so that ``puna --help`` is quick. Start at `main`, then
at `chat.py`.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

import puna
from puna.cli import (
    bench,
    card,
    chat,
    compare,
    complete,
    convert,
    doctor,
    export,
    key,
    prompt_format,
    ps,
    pull,
    quantize,
    rm,
    serve,
    show,
    verify,
)
from puna.cli import list as listing
from puna.cli.output import one_line, say
from puna.errors import PunaError

__all__ = ["app", "main"]

_INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h

app = typer.Typer(
    name="puna",
    help="Run Llama models on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    chat.chat,
    complete.complete,
    serve.serve,
    ps.ps,
    ps.stop,
    ps.top,
    key.key,
    convert.convert,
    export.export,
    compare.compare,
    card.card,
    quantize.quantize,
    show.show,
    bench.bench,
    doctor.doctor,
):
    app.command()(command)
app.command("list")(listing.list_models)
app.command("prompt-format")(prompt_format.prompt_format)
app.command()(pull.pull)
app.command("rm")(rm.remove)
app.command()(verify.verify)


class _Debug:
    is_on = False


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"puna {puna.__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    _Debug.is_on = debug


def main() -> None:
    """Run the command line with the process's arguments, and exit.

    The exit status is 0; 2 for a wrong argument; 1 for another error that Puna knows; 130 after Ctrl-C;
    70 for a defect of Puna.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character gets a mark in its place, not an error.
            stream.reconfigure(errors="replace")
    try:
        app()
    except Exception as error:
        if _Debug.is_on:
            traceback.print_exc()
        say(f"puna: error: {_describe(error)}")
        sys.exit(error.exit_code if isinstance(error, PunaError) else _INTERNAL_ERROR)


def _describe(error: Exception) -> str:
    if isinstance(error, PunaError):
        return one_line(str(error))
    again = "" if _Debug.is_on else "; run it again as `puna --debug ...` for the traceback"
    return one_line(
        f"{type(error).__name__}: {error}. This is a defect of Puna: report it, with the traceback{again}"
    )

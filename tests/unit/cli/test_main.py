from __future__ import annotations

import sys

import pytest
import typer
from typer.testing import CliRunner

import puna
from puna import cli
from puna.cli import app, main, options
from puna.errors import CapacityError
from puna.models.cache import CACHES
from puna.models.packed import FORMATS


def commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined, no-any-return]


SHARED = {
    "--threads", "--temperature", "--seed", "--max-tokens", "--top-k", "--top-p", "--min-p",
    "--repetition-penalty", "--format", "--context", "--cache", "--stop", "--stats", "--json",
}  # fmt: skip


def test_shared_options_are_the_same_everywhere():
    told: dict[str, set[tuple[object, ...]]] = {}
    users: dict[str, list[str]] = {}
    for name, command in commands().items():
        for parameter in command.params:
            option = parameter.opts[0]
            if option.startswith("--"):
                users.setdefault(option, []).append(name)
                row = (tuple(parameter.opts), parameter.help, parameter.metavar, str(parameter.default))
                told.setdefault(option, set()).add(row)
    assert set(told) >= SHARED
    # `puna bench` has speculation off; the others mean something of their own to each command.
    differing = {option for option, rows in told.items() if len(rows) > 1}
    own = {"--context", "--server", "--max-tokens", "--new-tokens", "--seed", "--text"}
    assert differing == {"--speculation", *own}
    assert users["--threads"] == ["chat", "complete", "serve", "compare", "card", "bench"]
    assert users["--cache"] == ["chat", "complete", "serve", "show", "bench"]
    assert users["--stop"] == ["chat", "complete"]
    assert users["--seed"] == ["chat", "complete", "quantize"]


@pytest.mark.parametrize("name", ["chat", "complete", "convert", "show", "bench", "doctor"])
def test_every_command_has_help(name: str):
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: puna {name} ")


def test_help_of_format_names_all_formats():
    (option,) = (p for p in commands()["chat"].params if p.opts[0] == "--format")
    assert all(name in option.help for name in FORMATS)


def test_help_of_cache_names_all_formats():
    (option,) = (p for p in commands()["chat"].params if p.opts[0] == "--cache")
    assert all(name in option.help for name in CACHES)


def test_help_loads_nothing_heavy():
    heavy = {"numpy", "rich.markdown", "prompt_toolkit", "puna.llama", "puna._native", "tokenizers", "httpx"}
    code = (
        "import sys; sys.argv = ['puna', '--help']\n"
        "from puna.cli import main\n"
        "try: main()\n"
        f"finally: print(sorted({heavy!r} & sys.modules.keys()), file=sys.stderr)\n"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.startswith("Usage: "), done.stderr) == (True, "[]\n")


def run_main(monkeypatch: pytest.MonkeyPatch, error: BaseException, *arguments: str) -> int:
    def fail() -> None:
        raise error

    failing = typer.Typer(pretty_exceptions_enable=False)
    failing.callback()(cli._global_options)
    failing.command("fail")(fail)
    monkeypatch.setattr(cli, "app", failing)
    monkeypatch.setattr(sys, "argv", ["puna", *arguments, "fail"])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_known_error_is_one_safe_line(monkeypatch, capsys):
    assert run_main(monkeypatch, CapacityError("too\nlong \x1b[2J")) == 1
    assert capsys.readouterr() == ("", "puna: error: too long \u241b[2J\n")


def test_a_defect_asks_for_a_report(monkeypatch, capsys):
    assert run_main(monkeypatch, ZeroDivisionError("x / 0")) == 70
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("puna: error: ZeroDivisionError: x / 0. This is a defect of Puna: report it")
    assert "puna --debug" in err


def test_debug_shows_the_traceback(monkeypatch, capsys):
    assert run_main(monkeypatch, CapacityError("too long"), "--debug") == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith("puna: error: too long\n")
    run_main(monkeypatch, CapacityError("too long"))
    assert capsys.readouterr().err == "puna: error: too long\n"


def test_ctrl_c(monkeypatch):
    assert run_main(monkeypatch, KeyboardInterrupt()) == 130


def test_version(puna):
    done = puna("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"puna {puna_version()}\n", "")


def puna_version() -> str:
    return puna.__version__


def test_sampling_keeps_what_was_given_and_gives_answers_an_end():
    given = {"top_k": 3, "stop": ["a"], "max_tokens": 9}
    assert options.sampling(seed=None, **given) == given
    assert options.sampling(top_k=3, max_tokens=None) == {"top_k": 3, "max_tokens": 1024}


def test_an_unknown_format(refused):
    assert refused("chat", "a b", "--format", "int9", status=2).startswith(
        "format 'int9' is unknown; did you mean 'int8'? known: auto, bf16"
    )

"""The command line's contract: help, exit codes, and what goes to stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from whydrift.pipelines import cli
from whydrift.pipelines.cli import main, whydrift
from whydrift.pipelines.errors import (
    BaselineError,
    ConfigError,
    DataError,
    ModelError,
    NoDataError,
    SchemaError,
    StoreError,
    WhyDriftError,
)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "configs" / "flights.yaml"
COMMANDS = {"validate", "baseline", "profile", "assess", "publish", "run", "backfill", "gate", "report", "serve"}
WINDOW = ("--start", "2024-02-01", "--end", "2024-02-02")


@pytest.fixture
def run(capsys, monkeypatch):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["whydrift", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return command


def test_the_commands():
    assert set(whydrift.commands) == COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(run, command, option):
    code, out, err = run(command, option)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: whydrift {command} [OPTIONS]")
    assert whydrift.commands[command].help in " ".join(out.split())


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_says_what_it_is(command):
    """All but those whose name and default say it."""
    plain = {"form", "host", "port", "help"}
    for option in whydrift.commands[command].params:
        assert option.name in plain or option.help, f"{command} --{option.name}"


def test_help_of_the_whole(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in COMMANDS:
        assert f"  {command} " in out


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert "0.1.0" in out


class TestExitCodes:
    def test_pass(self, run):
        code, out, err = run("validate", "--config", EXAMPLE)
        assert (code, err) == (0, "")
        assert out == f"{EXAMPLE}: flights@champion, windows of 1d: valid\n"

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("unknown",),
            ("validate",),
            ("validate", "--config"),
            ("validate", "--config", EXAMPLE, "extra"),
            ("run", "--config", EXAMPLE),
            ("run", "--config", EXAMPLE, "--start", "2024-02-01"),
            ("run", "--config", EXAMPLE, "--start", "tomorrow", "--end", "2024-02-02"),
            ("run", "--config", EXAMPLE, *WINDOW, "--format", "xml"),
            ("report", "--config", EXAMPLE, "--end", "2024-02-02"),
            ("serve", "--config", EXAMPLE, "--port", "http"),
        ],
    )
    def test_usage(self, run, arguments):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(("Usage: whydrift", "Error: Option '--config' requires an argument."))

    def test_configuration(self, run, tmp_path):
        code, out, err = run("validate", "--config", tmp_path / "absent.yaml")
        assert (code, out) == (2, "")
        assert err.startswith("whydrift: ConfigError: ")

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (WhyDriftError, 3),
            (ConfigError, 2),
            (DataError, 3),
            (NoDataError, 3),
            (SchemaError, 3),
            (ModelError, 3),
            (BaselineError, 3),
            (StoreError, 3),
        ],
    )
    def test_errors(self, run, monkeypatch, error, code):
        def fail(_):
            raise error("what, where and what to do")

        monkeypatch.setattr(cli, "load", fail)
        assert run("validate", "--config", EXAMPLE) == (
            code,
            "",
            f"whydrift: {error.__name__}: what, where and what to do\n",
        )

    def test_a_bug_is_no_breach(self, run, monkeypatch, caplog):
        def fail(_):
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(cli, "load", fail)
        code, out, _ = run("validate", "--config", EXAMPLE)
        assert (code, out) == (3, "")
        assert "ZeroDivisionError: a bug" in caplog.text

    def test_interrupted(self, run, monkeypatch):
        def interrupt(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "load", interrupt)
        assert run("validate", "--config", EXAMPLE)[:2] == (2, "")

    @pytest.mark.parametrize("result", [0, 1, 3, None])
    def test_what_a_command_returns(self, run, monkeypatch, result):
        monkeypatch.setitem(whydrift.commands, "probe", click.Command("probe", callback=lambda: result))
        assert run("probe")[0] == (result or 0)


@pytest.mark.slow
def test_console_script_and_its_imports():
    """A command that needs no model pays for no heavy import."""
    heavy = {"mlflow", "xgboost", "sklearn", "shap", "matplotlib", "evidently", "airflow"}
    program = (
        "import json, sys\nfrom whydrift.pipelines.cli import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    print(json.dumps([e.code, sorted(sys.modules)]))"
    )
    command = [sys.executable, "-c", program, "validate", "--config", str(EXAMPLE)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    code, modules = json.loads(result.stdout.splitlines()[-1])
    assert code == 0
    assert not heavy & set(modules)

    script = Path(sys.executable).with_name("whydrift")
    command = [script, "validate", "--config", EXAMPLE]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stderr == ""
    assert result.stdout.endswith(": valid\n")

"""The program as a whole: help, exit codes, and what a mistake costs."""

import json
import subprocess
import sys

import pytest

from streamlearn import __main__, cli
from streamlearn.errors import (
    BrokerError,
    ConfigError,
    InputError,
    IntegrityError,
    StateError,
    StreamlearnError,
)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `streamlearn ARGUMENTS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["streamlearn", *arguments])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    return int(end.value.code or 0)


def test_help_names_every_command_and_the_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, entry in cli.COMMANDS.items():
        assert name in shown
        assert entry.help in shown
    assert "Exit codes: 0 done." in shown


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, json\n"
        "from streamlearn.__main__ import main\n"
        "sys.argv = ['streamlearn', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "streamlearn.cli" in loaded
    assert not loaded & {"numpy", "torch", "pydantic", "confluent_kafka", "faust", "pyarrow"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_can_be_asked_for_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, name, "--help") == 0
    assert f"streamlearn {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error, code",
    [
        (ConfigError("set it"), 2),
        (InputError("no such file"), 2),
        (IntegrityError("wrong hash"), 2),
        (BrokerError("not there"), 1),
        (StateError("corrupt"), 1),
    ],
)
def test_an_error_costs_one_line_and_its_exit_code(
    error: StreamlearnError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(__main__, "app", fail)
    assert run(monkeypatch) == code
    shown = capsys.readouterr()
    assert shown.err == f"streamlearn: {error}\n"
    assert shown.out == ""


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_shows_the_traceback(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ConfigError("set it")

    monkeypatch.setattr(__main__, "app", fail)
    monkeypatch.setattr(sys, "argv", ["streamlearn", *(["--debug"] if how == "flag" else [])])
    if how == "environment":
        monkeypatch.setenv("STREAMLEARN_DEBUG", "1")
    with pytest.raises(ConfigError):
        __main__.main()


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "app", interrupted)
    assert run(monkeypatch) == 130


def test_a_mistyped_command_is_answered_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "topcs") == 2
    assert "Did you mean 'topics'?" in capsys.readouterr().err


def test_a_mistyped_variable_is_answered_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLEARN_TOPICS__PREFIKS", "x.")
    assert run(monkeypatch, "topics", "list") == 2
    assert "did you mean STREAMLEARN_TOPICS__PREFIX?" in capsys.readouterr().err


def test_the_version_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import streamlearn

    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"streamlearn {streamlearn.__version__}\n"


def test_a_worker_takes_one_decision_at_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "worker", "--accept-gap", "--from-earliest") == 2
    assert "give one" in capsys.readouterr().err

"""`streamlearn topics` against a real broker."""

import sys

import pytest

from streamlearn import __main__
from streamlearn.topics import NAMES


class Run:
    """`streamlearn topics ARGUMENTS` in this process: exit code, stdout, stderr."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *given: str
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["streamlearn", "topics", *given])
        with pytest.raises(SystemExit) as end:
            __main__.main()
        self.code = int(end.value.code or 0)
        self.out, self.err = capsys.readouterr()


def test_list_needs_no_broker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Run(monkeypatch, capsys, "list", "--prefix", "mine.")
    assert done.code == 0
    assert all(f"mine.{name}" in done.out for name in NAMES)


def test_diff_apply_diff(
    bootstrap: str,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ("--bootstrap", bootstrap, "--prefix", prefix)
    before = Run(monkeypatch, capsys, "diff", *where)
    assert before.code == 1
    assert before.out.count("is missing, should be there") == len(NAMES)
    assert "streamlearn topics apply" in before.err
    applied = Run(monkeypatch, capsys, "apply", *where)
    assert applied.code == 0
    assert applied.out.splitlines() == [f"created {prefix}{name}" for name in NAMES]
    for command in ("apply", "diff"):
        again = Run(monkeypatch, capsys, command, *where)
        assert (again.code, again.out) == (0, f"all {len(NAMES)} topics are as specified\n")


def test_no_broker_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Run(monkeypatch, capsys, "diff", "--bootstrap", "127.0.0.1:1")
    assert done.code == 1
    assert done.err.startswith("streamlearn: no Kafka broker answers at 127.0.0.1:1")
    assert len(done.err.splitlines()) == 1

"""Commands run in this process, against topics of the test's own."""

import sys
from collections.abc import Callable

import pytest

from streamlearn import __main__
from streamlearn.topics import Topics


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The exit code of `streamlearn ARGUMENTS`."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["streamlearn", *arguments])
        with pytest.raises(SystemExit) as end:
            __main__.main()
        return int(end.value.code or 0)

    return run


@pytest.fixture
def at(bootstrap: str, topics: Topics) -> list[str]:
    """Flags that lead to this test's topics."""
    return ["--bootstrap", bootstrap, "--prefix", topics.prefix]

"""`streamlearn demo`: mistakes. The demo itself: tests/broker/test_demo_processes.py."""

from collections.abc import Callable

import pytest


@pytest.mark.parametrize("rate", ["realtime", "fast"])
def test_a_rate_that_is_none_is_exit_code_2(
    rate: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("demo", "--exit", "--rate", rate) == 2
    assert "/s" in capsys.readouterr().err

"""`streamlearn access`, and `broker --secure` as far as it needs no broker."""

from collections.abc import Callable

import pytest

from streamlearn.config import KafkaConfig
from streamlearn.topics import NAMES


def test_the_list_has_every_role_and_full_names(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("access", "list", "--prefix", "p.") == 0
    shown = capsys.readouterr().out
    for name in ("feeder", "worker", "subscriber", "watcher", "admin"):
        assert f" {name} " in shown
    used = {name for name in NAMES if f"p.{name} " in shown}
    assert used == set(NAMES) - {"metagradients"}


@pytest.mark.parametrize("given", ["feeder", "feeder=", "cook=alice", "=alice"])
def test_a_user_without_a_role_is_refused(
    run: Callable[..., int], given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("access", "apply", "--user", given) == 2
    assert "give ROLE=USER, a role of feeder, worker" in capsys.readouterr().err


def test_a_broker_without_an_authorizer_is_said(
    run: Callable[..., int], kafka: KafkaConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run("access", "apply", "--user", "feeder=alice", "--bootstrap", kafka.bootstrap)
    assert code == 1
    said = capsys.readouterr().err
    assert "may not grant rights" in said and "authorizer" in said


def test_a_secured_broker_has_its_own_data_folder(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("broker", "--secure", "a", "--data-dir", "b") == 2
    assert "leave --data-dir out" in capsys.readouterr().err

"""The demo as a person runs it; and that nothing stays, however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient

KEYS = {
    *("events", "accuracy", "no_change", "majority", "updates", "p50_ms", "p99_ms"),
    *("subscriber_matches", "lost", "duplicated"),
}
EVENTS = 2229


class Running:
    """A demo in a process of its own, and what it said on standard error so far."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self._log = log

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_said(self, pattern: str) -> "re.Match[str]":
        """pytest's timeout ends a failure."""
        while (found := re.search(pattern, self.said())) is None:
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        return found

    def wait_until_fed(self) -> None:
        self.wait_until_said(r"worker pid")
        self.wait_until_said(r"\d\d+ events")

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> int:
        return self.process.wait(60)


def _with_ctrl_c() -> None:
    """Also where whoever runs the tests ignores it, as a shell does for `pytest &`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def demo(tmp_path: Path, *arguments: str, bootstrap: str | None = None) -> Iterator[Running]:
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONUNBUFFERED": "1"}
    env.pop("STREAMLEARN_BOOTSTRAP", None)
    if bootstrap is not None:
        env["STREAMLEARN_BOOTSTRAP"] = bootstrap
    (tmp_path / "tmp").mkdir()
    log = tmp_path / "said"
    command = [sys.executable, "-m", "streamlearn", "demo", *arguments]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=env,
            preexec_fn=_with_ctrl_c,
        ) as process,
    ):
        try:
            yield Running(process, log)
        finally:
            if process.poll() is None:
                process.kill()


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_it_works_survives_a_killed_worker_and_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, "--json", "--rate", "400/s") as running:
        hint = running.wait_until_said(r"kill -9 (\d+)")
        children = running.children()
        assert len(children) == 3  # broker, worker, subscriber
        os.kill(int(hint[1]), signal.SIGKILL)
        running.wait_until_said(r"the worker ended \(signal 9\)")
        running.wait_until_said(r"the worker is back")
        children += running.children()
        running.process.send_signal(signal.SIGINT)
        assert running.process.stdout is not None
        summary = json.loads(running.process.stdout.read().splitlines()[-1])
        assert running.end() == 0, running.said()
    assert summary.keys() >= KEYS
    assert summary["events"] == EVENTS
    assert (summary["lost"], summary["duplicated"]) == (0, 0)
    assert summary["subscriber_matches"] is True and summary["frames_checked"] > 0
    assert summary["worker_restarts"] == 1
    # its learner gets the labels a frame of 8 later; the baselines are known from the data alone
    assert summary["accuracy"] > 0.85
    assert summary["no_change"] == pytest.approx(0.146, abs=0.001)
    assert summary["majority"] < 0.2
    assert gone(children)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux'")
def test_nothing_runs_on_when_it_is_killed(tmp_path: Path) -> None:
    with demo(tmp_path, "--exit", "--json", "--rate", "20/s") as running:
        running.wait_until_said(r"worker pid")
        children = running.children()
        assert len(children) == 3
        running.process.kill()
        assert running.end() == -signal.SIGKILL
        assert gone(children)


def test_ctrl_c_in_the_middle_leaves_somebodys_broker_as_it_was(
    tmp_path: Path, bootstrap: str
) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    with demo(tmp_path, "--exit", "--json", "--rate", "20/s", bootstrap=bootstrap) as running:
        running.wait_until_said(r"worker pid")
        children = running.children()
        assert len(children) == 2  # the broker is somebody's
        prefix = running.wait_until_said(r"topics (demo-\w+\.)\*")[1]
        assert any(topic.startswith(prefix) for topic in admin.list_topics(timeout=10).topics)
        running.process.send_signal(signal.SIGINT)
        # Python may end by the signal itself where it was importing; a shell calls both 130
        assert running.end() in (130, -signal.SIGINT), running.said()
        assert gone(children)
    while any(topic.startswith(prefix) for topic in admin.list_topics(timeout=10).topics):
        time.sleep(0.1)  # deleted a little later
    assert list((tmp_path / "tmp").iterdir()) == []

"""A worker as a process of its own, for tests that want to see what it says and how it ends."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 300.0  # as others may use the machine


class Running:
    """A worker and what it said so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_said(self, pattern: str) -> "re.Match[str]":
        deadline = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.said())) is None:
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        return found


@contextmanager
def worker(
    bootstrap: str,
    prefix: str,
    folder: Path,
    *flags: str,
    settings: Mapping[str, str] | None = None,
    program: Sequence[str] = ("streamlearn",),
) -> Iterator[Running]:
    """A worker of the group `prefix`group, whose state and log lie in `folder`; killed at the end.

    `settings` go before the usual ones; `program` is what stands in for `python -m streamlearn`.
    """
    env = {
        "STREAMLEARN_BOOTSTRAP": bootstrap,
        "STREAMLEARN_TOPICS__PREFIX": prefix,
        "STREAMLEARN_WORKER__GROUP": prefix + "group",
        "STREAMLEARN_WORKER__CHECKPOINT_INTERVAL_S": "0.2",
        "STREAMLEARN_LEARNER__RANDOM_FEATURES": "3",
    }
    path = folder / f"{time.monotonic_ns()}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *program, "worker", "--metrics-port", "0", *flags]
            + ["--state-dir", str(folder / "state")],
            stderr=log,
            env={**os.environ, **env, **(settings or {})},
        )
    try:
        yield Running(process, path)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()

"""A process of ours that never outlives us: stopped in order, and by the kernel if we are killed.

Each child leads a session of its own, so Ctrl-C in the terminal reaches us only, and we stop the
children in an order that makes sense. On Linux the kernel kills the child when the thread that
started it is gone, however that happened (kill -9 too): start children from the main thread.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

STOP_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1


class ChildProcess(AbstractContextManager["ChildProcess"]):
    """One command, (re)started and stopped. Its messages go to `log_file`.

    With `read_output`, standard output can be read line by line from `output`, and only
    standard error goes to the log.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None,
        log_file: Path,
        read_output: bool = False,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._command = list(command)
        self._env = None if env is None else dict(env)  # None: as ours
        self._read_output = read_output
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    @property
    def exit_code(self) -> int | None:
        """Of the last run (negative: the signal that ended it); None before the end."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.pid is not None:
            return
        self._close_output()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._read_output else log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_us(),
                text=True,
            )

    @property
    def output(self) -> IO[str]:
        """What it prints, line by line; ends when it ends."""
        if self._process is None or self._process.stdout is None:
            raise RuntimeError(f"{self.name} was not started with read_output")
        return self._process.stdout

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM; SIGKILL to its whole group when it has not ended in time."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill9()
        self._close_output()

    def kill9(self) -> None:
        """SIGKILL to its whole group, as if the power went."""
        process = self._process
        if process is not None and process.poll() is None:  # else its number may be another's
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._close_output()

    def _close_output(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def log_tail(self, lines: int = 8) -> str:
        """The last lines of its messages."""
        try:
            with self.log_file.open(encoding="utf-8", errors="replace") as log:
                return "".join(deque(log, lines)).rstrip()
        except OSError:
            return "(no messages)"

    def __enter__(self) -> "ChildProcess":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except BaseException:  # a second Ctrl-C: no more patience, but nothing stays
            self.kill9()
            raise


def _die_with_us() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    us = os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != us:  # we were gone before the prctl
            os._exit(1)

    return in_child

"""Children end when they should: asked, forced, and when their parent is killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from streamlearn.runtime.child import ChildProcess

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


def child(code: str, folder: Path) -> ChildProcess:
    command = [sys.executable, "-c", code]
    env = dict(os.environ)
    return ChildProcess("c", command, env=env, log_file=folder / "log", read_output=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_it_runs_in_the_block_only(tmp_path: Path) -> None:
    with child(SLEEPER, tmp_path) as process:
        assert process.output.readline() == "up\n"
        pid = process.pid
        assert pid is not None and os.getpgid(pid) == pid
        assert process.exit_code is None
    assert process.pid is None and process.exit_code == -signal.SIGTERM
    process.stop()  # twice is fine


def test_it_can_come_back(tmp_path: Path) -> None:
    process = child(SLEEPER, tmp_path)
    process.start()
    first = process.pid
    process.kill9()
    assert process.exit_code == -signal.SIGKILL
    process.start()
    assert process.pid not in (None, first)
    process.stop()


def test_who_does_not_listen_is_killed(tmp_path: Path) -> None:
    process = child(STUBBORN, tmp_path)
    process.start()
    assert process.output.readline() == "up\n"
    process.stop(timeout_s=0.1)
    assert process.exit_code == -signal.SIGKILL


def test_its_messages_are_kept(tmp_path: Path) -> None:
    with child("import sys; sys.exit('no such thing')", tmp_path) as process:
        assert process.output.read() == ""
        while process.exit_code is None:
            time.sleep(0.01)
    assert process.exit_code == 1 and process.log_tail() == "no such thing"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux'")
def test_nothing_stays_when_the_parent_is_killed(tmp_path: Path) -> None:
    parent = f"""
        import os, sys, time
        from pathlib import Path
        from streamlearn.runtime.child import ChildProcess
        code = {STUBBORN!r}
        child = ChildProcess("c", [sys.executable, "-c", code], env=dict(os.environ),
                             log_file=Path({str(tmp_path / "log")!r}), read_output=True)
        child.start()
        child.output.readline()
        print(child.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
        process.wait()
        while alive(pid):  # pytest's timeout ends a failure
            time.sleep(0.01)

"""Jobs of `benchmarks.learning`: what is run, each in a process of its own, and what it says.

A Job is one learner on one setting; a Row is what one seed of it found. Processes come from a
server that has the libraries loaded already: so none of a job's seconds are imports.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch

PRELOADED = [
    "benchmarks.class_incremental", "benchmarks.prequential", "river.compose", "river.datasets",
    "river.ensemble", "river.forest", "river.linear_model", "river.naive_bayes", "river.tree",
    "sklearn.datasets", "sklearn.linear_model", "sklearn.neural_network",
]  # fmt: skip
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run."""

    name: str
    seeds: int
    events: int | None  # of a stream; None: all
    prefix: int  # events on which everybody is compared; the slow ones stop there
    slow: bool = False  # the slow ones go on to the end, and run everywhere
    wide: bool = True  # all steps, all scenarios


SCALES = {
    "quick": Scale("quick", seeds=1, events=2048, prefix=512, wide=False),
    "default": Scale("default", seeds=3, events=60_000, prefix=1024),
    "full": Scale("full", seeds=3, events=None, prefix=4096, slow=True),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One learner on one setting, for all seeds that it is given."""

    part: str  # the module that runs it: benchmarks.<part>
    setting: str
    who: str
    seeds: tuple[int, ...]
    scale: Scale
    data: Path | None  # folder of the shared streams


@dataclass(frozen=True, slots=True)
class Row:
    """One seed's figures."""

    part: str
    setting: str
    who: str
    seed: int
    scale: str
    figures: dict[str, float | None]
    events: int = 0
    cpu_s: float = 0.0  # of learning and predicting, reading left out
    peak_mib: float | None = None  # what the process grew by at most
    made: str = ""  # date and commit
    notes: dict[str, Any] = field(default_factory=dict)

    def key(self) -> tuple[str, str, str, int, str]:
        """What it is about: a newer row with the same key replaces it."""
        return self.part, self.setting, self.who, self.seed, self.scale


@dataclass(frozen=True, slots=True)
class Skip:
    """What could not be run, and why."""

    what: str
    why: str


class Peak:
    """By how much this process grows from here on, at most."""

    def __init__(self) -> None:
        reset = Path("/proc/self/clear_refs")
        if reset.exists():
            reset.write_text("5")  # proc(5): the peak begins anew
        self._before = psutil.Process().memory_info().rss

    def mib(self) -> float:
        """Until now."""
        status = Path("/proc/self/status")
        if status.exists():
            lines = status.read_text().splitlines()
            (peak,) = [int(one.split()[1]) * 1024 for one in lines if one.startswith("VmHWM")]
        else:
            unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, else KiB
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return max(peak - self._before, 0) / MIB


def run(job: Job) -> list[dict[str, Any]]:
    """In a process of its own: the job's rows."""
    torch.set_num_threads(1)
    rows: list[Row] = import_module(f"benchmarks.{job.part}").run(job)
    return [asdict(row) for row in rows]


def run_all(
    jobs: Sequence[Job], *, processes: int, made: str
) -> Iterator[tuple[Job, list[Row] | Exception]]:
    """Rows, or what went wrong, as jobs end."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    pool = ProcessPoolExecutor(processes, context, max_tasks_per_child=1)
    try:
        asked = {pool.submit(run, job): job for job in jobs}
        for done in as_completed(asked):
            try:
                yield asked[done], [Row(**row | {"made": made}) for row in done.result()]
            except Exception as error:  # one that fails costs nobody else's hours
                yield asked[done], error
        pool.shutdown()
    finally:  # Ctrl-C: nothing goes on behind one's back
        pool.shutdown(wait=False, cancel_futures=True)
        for process in psutil.Process().children(recursive=True):
            process.terminate()


def cpu_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it gives."""
    start = time.process_time()
    found = call()
    return time.process_time() - start, found

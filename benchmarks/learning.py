"""Everything that is said about learning, measured again, beside other people's learners.

    make bench-learning [ARGS="--quick"]     or: python -m benchmarks.learning --parts prequential

Parts: prequential (streams, tested before they are learned), class_incremental (what is known of
earlier classes), representatives (what a small sample keeps), cold (the first events of a new
stream), gpu (the inner loop's speed, here). Each learner runs in a process of its own; --processes
runs several at a time. --quick takes minutes on 2 cores, --full hours. Each row goes to
out/learning.jsonl as soon as it is there, seed 0 of everything first; --resume leaves out what is
in it already, --again NAME runs such rows anew (--again streamlearn: only ours). --write makes
docs/benchmarks.md of what is there, and says what is not.

Streams of the shared folder (--data) are left out where it is absent, and that is said.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

from benchmarks import class_incremental, page
from benchmarks.jobs import SCALES, Job, Row, Scale, Skip, run_all

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("prequential", "class_incremental", "representatives", "cold", "gpu")
PAGE = ROOT / "docs" / "benchmarks.md"


def read_rows(path: Path) -> list[Row]:
    """The newest row of each key; a last line that was cut off is left out."""
    found: dict[object, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = Row(**json.loads(line))
        except json.JSONDecodeError:
            continue
        found[row.key()] = row
    return list(found.values())


def all_jobs(parts: Sequence[str], scale: Scale, data: Path | None) -> tuple[list[Job], list[Skip]]:
    """What is to run, and what can't."""
    jobs: list[Job] = []
    skipped: list[Skip] = []
    for part in parts:
        some, left_out = import_module(f"benchmarks.{part}").jobs(scale, data)
        jobs += some
        skipped += left_out
    single = [one for job in jobs for one in by_seed(job)]
    return sorted(single, key=lambda job: job.seeds[0]), list(dict.fromkeys(skipped))


def by_seed(job: Job) -> list[Job]:
    """A job a seed, so that a run that is broken off has seed 0 of everything."""
    if job.who.startswith(class_incremental.NETWORK):
        return [job]  # its seeds share one batch
    return [replace(job, seeds=(seed,)) for seed in job.seeds]


def named(job: Job) -> str:
    """As it is printed, and as flags name it."""
    return f"{job.part}: {job.setting}: {job.who}"


def rank(job: Job, first: Sequence[str]) -> int:
    """Place of the first of `first` that names it; those that none names are last."""
    return next((k for k, name in enumerate(first) if name in named(job)), len(first))


def wanted(job: Job, only: Sequence[str], done: set[tuple[object, ...]], again: list[str]) -> bool:
    """Whether a job is asked for, and not done yet."""
    text = named(job)
    if not any(part in text for part in only):
        return False
    if any(name in text for name in again):
        return True
    return any(
        (job.part, job.setting, job.who, seed, job.scale.name) not in done for seed in job.seeds
    )


def missing(jobs: Sequence[Job], rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Settings, and who has no row at all on it."""
    done = {(row.part, row.setting, row.who) for row in rows}
    left: dict[str, dict[str, None]] = {}
    for job in jobs:
        if (job.part, job.setting, job.who) not in done:
            left.setdefault(job.setting, {})[job.who] = None
    return [(setting, "; ".join(who)) for setting, who in left.items()]


def commit() -> str:
    """Which code learns here: the last change of streamlearn/core."""
    asked = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--", "streamlearn/core"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def measure(jobs: Sequence[Job], out: Path, processes: int) -> int:
    """Run, print and keep rows; how many jobs failed."""
    failed = 0
    made = f"{time.strftime('%Y-%m-%d')} {commit()}"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as kept:
        for k, (job, rows) in enumerate(run_all(jobs, processes=processes, made=made), 1):
            where = f"{k}/{len(jobs)}  {named(job)}"
            if isinstance(rows, Exception):
                failed += 1
                print(f"{where}  FAILED: {rows!r}\n{rows.__cause__ or ''}", flush=True)
                continue
            for row in rows:
                kept.write(json.dumps(asdict(row)) + "\n")
            kept.flush()
            mean = {
                name: sum(row.figures[name] or 0.0 for row in rows) / len(rows)
                for name in rows[0].figures
            }
            shown = "  ".join(f"{name} {value:,.3f}" for name, value in mean.items())
            spent = sum(row.cpu_s for row in rows)
            print(f"{where}  {shown}  {spent:.0f} CPU-s", flush=True)
    return failed


def main() -> int:
    """Read the flags, run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one seed, short streams: minutes")
    size.add_argument("--full", action="store_true", help="slow peers to the end: hours")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", nargs="+", default=[""], help="parts of 'part: setting: who'")
    parser.add_argument("--seeds", type=int, default=3, help="fewer than all of them, for now")
    parser.add_argument("--first", nargs="+", default=[], help="run these before the others")
    parser.add_argument("--resume", action="store_true", help="leave out what is in --out already")
    parser.add_argument("--again", nargs="+", default=[], help="with --resume: but run these")
    beside = os.environ.get("STREAMLEARN_SHARED_DATA") or str(ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(beside), help="folder of shared streams")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "learning.jsonl")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--write", action="store_true", help=f"make {PAGE.name} of what is in --out"
    )
    parser.add_argument("--norun", action="store_true", help="only --write")
    parser.add_argument("--list", action="store_true", help="only say what would be run")
    given = parser.parse_args()
    scale = SCALES["quick" if given.quick else "full" if given.full else "default"]
    every, skipped = all_jobs(given.parts, scale, given.data)
    for one in skipped:
        print(f"left out: {one.what}: {one.why}", file=sys.stderr)
    done = {row.key() for row in read_rows(given.out)} if given.resume else set()
    jobs = [job for job in every if job.seeds[0] < given.seeds]
    jobs = [job for job in jobs if wanted(job, given.only, done, given.again)]
    jobs.sort(key=lambda job: (job.seeds[0], rank(job, given.first)))
    if given.list:
        print("\n".join(map(named, jobs)))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes are ended, too
    failed = 0 if given.norun else measure(jobs, given.out, given.processes)
    if given.write:
        rows = [row for row in read_rows(given.out) if row.scale == scale.name]
        skipped += [Skip(setting, f"not run: {who}") for setting, who in missing(every, rows)]
        PAGE.write_text(page.text(rows, skipped, scale, commit()), encoding="utf-8")
        print(f"written: {PAGE}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

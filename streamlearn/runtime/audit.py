"""Compares what workers published with what the log says: a replay of every stream.

In: `history.Found` and the events log. Out: a `Verdict` a stream. Versions are compared by their
hash, which covers the version's number, so an event that was lost or learned twice shows as well.
Only where retention has cut the log off, another count of events is no proof of anything.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.history import Found, Published
from streamlearn.runtime.log import Log
from streamlearn.runtime.replay import Replay, Step
from streamlearn.runtime.rollback import Rollbacks


class Result(StrEnum):
    """What a comparison showed: a closed set."""

    SAME = "same"
    DIFFERENT = "different"
    CUT = "log cut"  # by retention: a replay of what is left is another model


@dataclass(frozen=True, slots=True)
class Verdict:
    """One stream, all its published versions."""

    stream: str
    partition: int
    published: int  # versions that were found, each counted once
    first: int  # oldest of them
    last: int  # newest of them
    same: int  # have the replay's hash
    result: Result
    detail: str = ""  # of the first one that has not


def audit(
    log: Log, events: str, found: Found, settings: LearnerSettings, rollbacks: Rollbacks
) -> Iterator[Verdict]:
    """A verdict for every stream in `found`, by partition and name; one pass a partition."""
    wanted: dict[int, dict[str, list[Published]]] = defaultdict(lambda: defaultdict(list))
    for entry in found.published:
        wanted[entry.partition][entry.stream].append(entry)
    for number, streams in sorted(wanted.items()):
        low, end = log.watermarks(events, number)
        checks = {
            name.encode(): _Check(
                entries, Replay(name, settings, partition=number, rollbacks=rollbacks)
            )
            for name, entries in sorted(streams.items())
        }
        for record in log.read(events, number, low, end):
            check = checks.get(record.key or b"")
            if check is not None and (step := check.replay.take(record)) is not None:
                check.compare(step)
        for check in checks.values():
            yield check.verdict(cut=low > 0)


class _Check:
    """One stream on its way through the log."""

    def __init__(self, entries: list[Published], replay: Replay) -> None:
        self.replay = replay
        self._entries: dict[int, list[Published]] = defaultdict(list)
        for entry in entries:
            self._entries[entry.version].append(entry)
        self._first = entries[0]
        self._at: dict[int, int] = {}  # offset to the replay's version, of offsets published
        self._offsets = {entry.source_offset for entry in entries}
        self._same: set[int] = set()
        self._wrong: list[tuple[Published, str]] = []

    def compare(self, step: Step) -> None:
        if step.offset in self._offsets:
            self._at[step.offset] = step.version
        entries = self._entries.get(step.version)
        if not entries:
            return
        ours = self.replay.learner.model().hash
        wrong = [entry for entry in entries if entry.hash != ours]
        self._wrong += [(entry, ours) for entry in wrong]
        if not wrong:
            self._same.add(step.version)

    def verdict(self, *, cut: bool) -> Verdict:
        newest = self.replay.learner.version
        never = [e for v, entries in self._entries.items() if v > newest for e in entries]
        others = self._wrong + [(entry, "") for entry in never]
        others.sort(key=lambda other: other[0].version)
        if cut:  # a proof only where the replay had as many events before the same offset
            proven = [o for o in others if self._at.get(o[0].source_offset) == o[0].version]
            result = Result.DIFFERENT if proven else Result.CUT if others else Result.SAME
            others = proven or others
        else:
            result = Result.DIFFERENT if others else Result.SAME
        versions = sorted(self._entries)
        return Verdict(
            stream=self._first.stream,
            partition=self._first.partition,
            published=len(versions),
            first=versions[0],
            last=versions[-1],
            same=len(self._same),
            result=result,
            detail=self._detail(result, *others[0]) if others else "",
        )

    def _detail(self, result: Result, entry: Published, ours: str) -> str:
        if result is Result.CUT:
            return "its first events were removed by retention: keep events longer (retention.ms)"
        what = f"version {entry.version} (epoch {entry.epoch}) was published as {entry.hash[:12]}"
        if not ours:
            return f"{what}, and the log has only {self.replay.learner.version} versions"
        at = self._at.get(entry.source_offset)
        if at is not None and at != entry.version:
            return f"{what} from offset {entry.source_offset}, which makes version {at}"
        return f"{what}, a replay gives {ours[:12]}"

"""What a worker counts: `/metrics` and the metrics topic show the same registry.

Busy streams get series of their own, the rest share one (`REST`), as do partitions beyond the
first 90, so that no metric has 100 series or more. Nothing here decides anything.
"""

import threading
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from streamlearn.telemetry.catalogue import Catalogue

REST = "(rest)"  # no Kafka key of ours: it stands for all streams without a series of their own
SHOWN_STREAMS = 40
SHOWN_PARTITIONS = 90
_FADE = 1 / 1000  # events: an event's weight in the recent accuracies halves in about 700


class ShownStreams:
    """Which streams have series of their own: the first ones, until a much busier one comes.

    A stream takes another's place when it has more than twice its events, so places rarely
    change. Counts go to whichever series is the stream's at the time, so no counter ever falls.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._events: dict[str, int] = {}
        self._shown: set[str] = set()
        self._quietest = 0  # events of the quietest shown stream, when last looked

    def count(self, stream: str, events: int) -> tuple[str, str | None]:
        """The series' name for these events, and the stream that lost its series, if any."""
        total = self._events[stream] = self._events.get(stream, 0) + events
        if stream in self._shown:
            return stream, None
        if len(self._shown) < self._capacity:
            self._shown.add(stream)
            return stream, None
        if total <= 2 * self._quietest:
            return REST, None
        loser = min(self._shown, key=lambda name: self._events[name])
        self._quietest = self._events[loser]
        if total <= 2 * self._quietest:
            return REST, None
        self._shown.remove(loser)
        self._shown.add(stream)
        return stream, loser


@dataclass(slots=True)
class _Recent:
    """Faded shares of right predictions, of one series."""

    weight: float = 0.0
    correct: float = 0.0
    no_change: float = 0.0

    def add(self, labelled: int, correct: int, no_change: int) -> None:
        keep = (1 - _FADE) ** labelled
        self.weight = self.weight * keep + labelled
        self.correct = self.correct * keep + correct
        self.no_change = self.no_change * keep + no_change


@dataclass(frozen=True, slots=True)
class FrameScore:
    """What one learned frame adds to the counts."""

    stream: str
    events: int
    labelled: int
    correct: int
    no_change_correct: int
    majority_correct: int
    drift: int  # as streamlearn_drift_verdict
    recall_clusters: float = float("nan")  # NaN: not known yet
    recall_uniform: float = float("nan")
    replay_uniform: bool = False


class WorkerMetrics(Catalogue):
    """What a worker counts. Thread-safe where two threads meet: the registry's own locks."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry if registry is not None else CollectorRegistry())
        self._streams = ShownStreams(SHOWN_STREAMS)
        self._recent: dict[str, _Recent] = {}
        self._lock = threading.Lock()

    def learned(self, score: FrameScore, seconds: float) -> None:
        """One frame was tested and learned."""
        with self._lock:
            series = self._series(score.stream, score.events)
            recent = self._recent.setdefault(series, _Recent())
        self.counter("streamlearn_frames").inc()
        self.histogram("streamlearn_adaptation_seconds").observe(seconds)
        for name, count in (
            ("streamlearn_events", score.events),
            ("streamlearn_labelled", score.labelled),
            ("streamlearn_correct", score.correct),
            ("streamlearn_no_change_correct", score.no_change_correct),
            ("streamlearn_majority_correct", score.majority_correct),
        ):
            self.counter(name).labels(series).inc(count)
        if series != REST:
            self.gauge("streamlearn_drift_verdict").labels(series).set(score.drift)
            for name, value in (
                ("streamlearn_recall_clusters", score.recall_clusters),
                ("streamlearn_recall_uniform", score.recall_uniform),
                ("streamlearn_replay_uniform", float(score.replay_uniform)),
            ):
                if value == value:
                    self.gauge(name).labels(series).set(value)
        if score.labelled:
            recent.add(score.labelled, score.correct, score.no_change_correct)
            for name, right in (
                ("streamlearn_accuracy", recent.correct),
                ("streamlearn_no_change_accuracy", recent.no_change),
            ):
                self.gauge(name).labels(series).set(right / recent.weight)

    def published(self, stream: str, version: int, kind: str, size: int) -> None:
        """One update was acknowledged."""
        self.counter("streamlearn_updates").labels(kind).inc()
        self.counter("streamlearn_update_bytes").inc(size)
        with self._lock:
            series = self._series(stream, 0)
        if series != REST:
            self.gauge("streamlearn_update_version").labels(series).set(version)

    def lag(self, frames: dict[int, int]) -> None:
        """Frames that wait, a partition; replaces what was shown before."""
        self._by_partition("streamlearn_lag_frames", frames, total=True)

    def epochs(self, epochs: dict[int, int]) -> None:
        """Epochs of the partitions that are owned now; replaces what was shown before."""
        self._by_partition("streamlearn_epoch", epochs, total=False)
        self.gauge("streamlearn_partitions").set(len(epochs))

    def _by_partition(self, name: str, values: dict[int, int], *, total: bool) -> None:
        gauge = self.gauge(name)
        gauge.clear()
        numbers = sorted(values)
        for number in numbers[:SHOWN_PARTITIONS]:
            gauge.labels(str(number)).set(values[number])
        rest = [values[number] for number in numbers[SHOWN_PARTITIONS:]]
        if rest:
            gauge.labels(REST).set(sum(rest) if total else max(rest))

    def _series(self, stream: str, events: int) -> str:
        series, loser = self._streams.count(stream, events)
        if loser is not None:
            self.forget_stream(loser)
            self._recent.pop(loser, None)
        return series

"""Stage 5, drift: has the stream changed, since when, and who says so.

In: a step's errors and raw numbers. Out: a DriftReport. Unlike prequential, which says how large
the error is, this stage says whether it rose (`error`), or whether a column moved (`features`);
an alarm stands until it has been quiet for `HOLD` events, so that people and dashboards see it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.drift.error import Alarm, ErrorDetector
from streamlearn.core.drift.features import FeatureDetector
from streamlearn.errors import StateError

HOLD = 512  # events: an alarm stands for two frames of the default size
WARNING_SCORE = 0.85  # about where the error's line would lie at ten times its false-alarm rate


class DriftVerdict(StrEnum):
    """A stream's state in words."""

    WARMING_UP = "WARMING UP"  # too few events to judge
    STABLE = "STABLE"
    WARNING = "WARNING"  # close to the line
    DRIFT = "DRIFT"  # over the line within the last HOLD events
    NO_DATA = "NO DATA"  # nothing to judge: no event yet, or neither labels nor numbers


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What the detectors say after a step."""

    verdict: DriftVerdict
    since_event: int  # the stream's event count at which the verdict's cause began
    since_s: float  # that event's time, seconds since the epoch; NaN before any event
    detector: str  # "error", "mean" or "missing" (who raised DRIFT or is closest to it), "" if none
    column: int  # the column that moved most, -1 where it's the error's or nobody's
    error_score: float  # score / threshold: 1 is the line
    feature_score: float
    n_drifts: int  # alarms so far

    @property
    def score(self) -> float:
        """The larger of the two scores, 1 at the line."""
        return max(self.error_score, self.feature_score)


class DriftMonitor:
    """One stream's detectors, in fixed memory.

    >>> monitor, rng = DriftMonitor(), np.random.default_rng(0)
    >>> for step in range(20):  # column 1 moves by two standard deviations at event 3200
    ...     numbers = rng.normal(size=(256, 3)) + [0, 2 * (step * 256 >= 3200), 0]
    ...     report = monitor.update(np.zeros(256, np.int8), numbers, np.arange(256.0))
    ...     if report.verdict is DriftVerdict.DRIFT:
    ...         break
    >>> report.detector, report.column, report.error_score
    ('mean', 1, 0.0)
    """

    __slots__ = ("_held_until", "_report", "errors", "features", "n_events")

    def __init__(self) -> None:
        self.errors = ErrorDetector()
        self.features = FeatureDetector()
        self.n_events = 0
        self._held_until = 0
        self._report = DriftReport(DriftVerdict.NO_DATA, 0, float("nan"), "", -1, 0.0, 0.0, 0)

    @property
    def report(self) -> DriftReport:
        """What was said after the last step."""
        return self._report

    def update(
        self,
        wrong: NDArray[np.int8],
        numbers: NDArray[np.float64] | None,
        event_time_s: NDArray[np.float64],
    ) -> DriftReport:
        """One step of n events: wrong (n,) 1, 0 or -1 (unlabelled), numbers (n, d), d may grow.

        `numbers` None: the events were seen before, without their labels.
        """
        if len(wrong) == 0:
            return self._report
        rise = self.errors.update(wrong, self.n_events, event_time_s)
        shift = None
        if numbers is not None:
            shift = self.features.update(numbers, self.n_events, event_time_s)
            self.n_events += len(wrong)
        error_score = max(self.errors.score, 1.0 if rise else 0.0)
        feature_score = max(self.features.score, 1.0 if shift else 0.0)
        last = self._report
        alarm: Alarm | None = rise or shift  # a rise of the error is the graver news
        if alarm:
            self._held_until = self.n_events + HOLD
            verdict = DriftVerdict.DRIFT
            since, since_s = alarm.event, alarm.time_s
            detector, column = "error", -1
            if not rise and shift:
                detector, column = "missing" if shift.gaps else "mean", shift.column
        else:
            verdict = self._quiet(max(error_score, feature_score))
            since, since_s = self.n_events, float(event_time_s[-1])
            detector, column = last.detector, last.column
            if verdict is not DriftVerdict.DRIFT:
                detector, column = self._closest() if verdict is DriftVerdict.WARNING else ("", -1)
            if verdict is last.verdict:
                since, since_s = last.since_event, last.since_s
        alarms = last.n_drifts + (rise is not None) + (shift is not None)
        self._report = DriftReport(
            verdict, since, since_s, detector, column, error_score, feature_score, alarms
        )
        return self._report

    def _quiet(self, score: float) -> DriftVerdict:
        """The verdict of a step without an alarm."""
        if self.n_events <= self._held_until:
            return DriftVerdict.DRIFT
        if not (self.errors.ready or self.features.ready):
            watched = self.errors.n_labelled or self.features.n_columns
            return DriftVerdict.WARMING_UP if watched else DriftVerdict.NO_DATA
        return DriftVerdict.WARNING if score >= WARNING_SCORE else DriftVerdict.STABLE

    def _closest(self) -> tuple[str, int]:
        """Who is closest to its line, and by which column."""
        if self.errors.score >= self.features.score:
            return "error", -1
        return self.features.closest()

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict and copies of the arrays."""
        error_meta, error_arrays = self.errors.state()
        feature_arrays = self.features.state()
        said = self._report
        meta = {
            "n_events": self.n_events,
            "held_until": self._held_until,
            "error": error_meta,
            "report": [
                str(said.verdict),
                said.since_event,
                said.since_s if said.since_s == said.since_s else None,
                said.detector,
                said.column,
                said.error_score,
                said.feature_score,
                said.n_drifts,
            ],
        }
        arrays = {f"error/{name}": array for name, array in error_arrays.items()}
        return meta, arrays | {f"features/{name}": a for name, a in feature_arrays.items()}

    @classmethod
    def restore(cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "DriftMonitor":
        """Go on, to the bit, from what `state` gave. StateError where it doesn't fit."""
        monitor = cls()
        try:
            monitor.errors.resume(meta["error"], _part(arrays, "error/"))
            monitor.features.resume(_part(arrays, "features/"))
            monitor.n_events, monitor._held_until = int(meta["n_events"]), int(meta["held_until"])
            verdict, since, since_s, *rest = meta["report"]
            since_s = float("nan") if since_s is None else float(since_s)
            monitor._report = DriftReport(DriftVerdict(verdict), since, since_s, *rest)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"a drift monitor's state lacks or garbles {error}; restore what state() gave"
            ) from error
        return monitor


def _part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}

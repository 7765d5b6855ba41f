"""Stage 7g, cohort: learners that learn side by side, their inner loops in one call.

A learner that is `learning` a frame stops with a request wherever its network is to learn. Whoever
drives several learners lets each go as far as it can, answers all requests at once, and goes on, so
the inner loop is batched over all streams at hand. A stream gets the same bits alone.
"""

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, TypeVar

from streamlearn.core.adaptation import AdaptRequest, AdaptResult
from streamlearn.core.settings import LearnerSettings

T = TypeVar("T")
Learning: TypeAlias = Generator[AdaptRequest, AdaptResult, T]


class Adapts(Protocol):
    """Answers requests: see Adapter."""

    def adapt(self, requests: Sequence[AdaptRequest]) -> list[AdaptResult]: ...


@dataclass(frozen=True, slots=True)
class _Run:
    learning: Learning[Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]


class Cohort:
    """Learnings that are under way, at most one a place (a stream)."""

    def __init__(self, adapts: Callable[[], Adapts]) -> None:
        """`adapts` is asked for once there is a request: it may take seconds to load."""
        self._adapts = adapts
        self._runs: dict[Hashable, _Run] = {}
        self._waiting: dict[Hashable, AdaptRequest] = {}

    def begin(
        self,
        place: Hashable,
        learning: Learning[T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Let it go as far as it can; `done` or `failed` is called when it has ended.

        What was under way at the same place is brought to its end first.
        """
        self.finish(place)
        self._runs[place] = _Run(learning, done, failed)
        self._go_on(place, None)

    def finish(self, place: Hashable | None = None) -> None:
        """Answer requests, all that wait at once, until this place, or every one, has ended."""
        while self._waiting if place is None else place in self._runs:
            waiting, self._waiting = self._waiting, {}
            results = self._adapts().adapt(list(waiting.values()))
            for asked, result in zip(waiting, results, strict=True):
                self._go_on(asked, result)

    def _go_on(self, place: Hashable, result: AdaptResult | None) -> None:
        run = self._runs[place]
        try:
            request = next(run.learning) if result is None else run.learning.send(result)
        except StopIteration as end:
            del self._runs[place]
            run.done(end.value)
        except MemoryError:
            raise
        except Exception as error:
            del self._runs[place]
            run.failed(error)
        else:
            self._waiting[place] = request


def finish(learning: Learning[T], adapts: Callable[[], Adapts]) -> T:
    """One learning to its end, alone."""
    try:
        request = next(learning)
        while True:
            (result,) = adapts().adapt([request])
            request = learning.send(result)
    except StopIteration as end:
        value: T = end.value
        return value


@lru_cache(maxsize=8)
def adapter_of(settings: LearnerSettings) -> Adapts:
    """The inner loop with these settings; torch is loaded only now, which takes seconds."""
    from streamlearn.core.adapter import Adapter

    return Adapter.of(settings)

"""What a subscriber counts, for the program that it lives in to show beside its own metrics."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MESSAGES = "streamlearn_subscriber_messages"
STREAMS = "streamlearn_subscriber_streams"
BEHIND = "streamlearn_subscriber_streams_behind"


class SubscriberMetrics(Collector):
    """Reads the counts when it is asked; every outcome has its series from the start.

    >>> from prometheus_client import CollectorRegistry
    >>> registry = CollectorRegistry()
    >>> counts = {"gap": 2}
    >>> registry.register(SubscriberMetrics(("applied", "gap"), lambda: counts, int, int))
    >>> registry.get_sample_value("streamlearn_subscriber_messages_total", {"outcome": "gap"})
    2.0
    >>> registry.get_sample_value("streamlearn_subscriber_messages_total", {"outcome": "applied"})
    0.0
    """

    def __init__(
        self,
        outcomes: Sequence[str],
        counts: Callable[[], Mapping[str, int]],
        streams: Callable[[], int],
        behind: Callable[[], int],
    ) -> None:
        self._outcomes = outcomes
        self._counts = counts
        self._streams = streams
        self._behind = behind

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        messages = CounterMetricFamily(
            MESSAGES, "Messages of updates, snapshots, slow, by outcome.", labels=("outcome",)
        )
        for outcome in self._outcomes:
            messages.add_metric([outcome], float(counts.get(outcome, 0)))
        yield messages
        yield GaugeMetricFamily(STREAMS, "Streams that have a model.", self._streams())
        yield GaugeMetricFamily(
            BEHIND, "Streams whose newest version waits for a snapshot.", self._behind()
        )

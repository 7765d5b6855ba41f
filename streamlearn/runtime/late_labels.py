"""Late labels, from their topic to the events log, where they take place.

No log orders the topics labels and events against each other, so a worker does not learn from the
labels topic: it passes each message on to the events topic, under its key, in the same partition
number, and meets it there like any other message. So whoever reads the events log learns the same
labels at the same place: workers after a crash, replays, audits.

Order of effects: 1 the message is in the events topic, acknowledged by the broker; 2 it is
acknowledged in the labels topic. A crash between them passes it on again; an event is learned once
all the same, since its stream remembers learned ids.
"""

from collections.abc import Sequence

from streamlearn.core.records import Reason, Rejection
from streamlearn.errors import FrameError
from streamlearn.runtime.dead_letters import DeadLetters
from streamlearn.runtime.partition import Arrival
from streamlearn.runtime.publisher import Publisher
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.topics import Topics
from streamlearn.wire import dead_letter_codec, label_codec
from streamlearn.wire.label_codec import LateLabels


class Forwarding:
    """Passes labels on. For the learning thread, whose publisher it shares."""

    def __init__(self, topics: Topics, *, publisher: Publisher, metrics: WorkerMetrics) -> None:
        self._labels = topics["labels"].full_name
        self._events = topics["events"].full_name
        self._publisher = publisher
        self._dead_letters = DeadLetters(topics, publisher=publisher, metrics=metrics)

    def forward(self, messages: Sequence[tuple[int, Arrival]]) -> None:
        """Messages of the labels topic with their partitions; returns when 1 is done.

        What holds no labels becomes a dead letter.
        """
        for partition, message in messages:
            try:
                label_frame = label_codec.passed_on(
                    message.value,
                    message.key,
                    message.headers,
                    source=f"/streamlearn/{self._labels}",
                    place=f"{self._labels}.{partition}.{message.offset}",
                )
            except FrameError as error:
                refused = (dead_letter_codec.of_frame(error),)
                self._dead_letters.bury(partition, message, refused, topic=self._labels)
            else:
                self._publisher.send(self._events, partition, label_frame)
        self._publisher.flush()


def unknown(late: LateLabels, position: int) -> Rejection:
    """Why a label is not learned whose event the stream does not remember."""
    return Rejection(
        Reason.UNKNOWN_EVENT,
        f"{late.stream!r} remembers no unlabelled event {late.event_ids[position][:80]!r}: it "
        "never came, in this partition, or too many came since (learner.late_labels), or it is "
        "too old (learner.late_label_max_age_s)",
        late.rows[position],
    )

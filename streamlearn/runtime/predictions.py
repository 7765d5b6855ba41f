"""Publishes what a stream predicted for events before their labels were learned, where wanted."""

from streamlearn.core.learner import Outcome
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.publisher import Publisher
from streamlearn.topics import Topics
from streamlearn.wire import prediction_codec
from streamlearn.wire.signing import Signer


class Predictions:
    """Of one worker; acknowledged with the updates of their micro-batch. For the learning thread.

    `wanted`: whether they are published at all.
    """

    def __init__(
        self,
        topics: Topics,
        settings: LearnerSettings,
        *,
        wanted: bool,
        publisher: Publisher,
        signer: Signer | None,
    ) -> None:
        self._topic = topics["predictions"].full_name
        self._step_events = settings.step_events
        self._wanted = wanted
        self._publisher = publisher
        self._signer = signer

    def tell(self, partition: int, offset: int, frame: Frame, outcome: Outcome) -> None:
        """Those of a frame, which came at this offset."""
        if not self._wanted:
            return
        predictions = prediction_codec.Predictions(
            stream=frame.stream,
            model_version=outcome.base_version,
            step_events=self._step_events if outcome.base_version else 1,
            source_partition=partition,
            source_offset=offset,
            probabilities=outcome.probabilities,
            classes=outcome.classes,
            event_ids=frame.event_ids,
        )
        for message in prediction_codec.encode(predictions, signer=self._signer):
            self._publisher.send(self._topic, partition, message)

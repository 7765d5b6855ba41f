"""Asks for labels: after every 100 events of a stream, the few whose labels would help most.

Of the events that wait for a late label, those that came since the last time. When, and of which
events, follows from the stream's event count alone; what is asked, from its model then. So a
worker that learns frames again after a crash asks the same again, under the same ids. What becomes
of a request changes nothing that is learned, until its label comes.
"""

from streamlearn.core.learner import StreamLearner
from streamlearn.runtime.publisher import Publisher
from streamlearn.topics import Topics
from streamlearn.wire import request_codec
from streamlearn.wire.signing import Signer

EVERY = 100  # events of a stream, labelled or not


class LabelRequests:
    """Of one worker. `n` of each EVERY events; 0: none are asked for. For the learning thread."""

    def __init__(
        self, n: int, publisher: Publisher, topics: Topics, *, signer: Signer | None
    ) -> None:
        self._n = n
        self._publisher = publisher
        self._topic = topics["label-requests"].full_name
        self._signer = signer

    def after(self, learner: StreamLearner, partition: int, offset: int, n_events: int) -> int:
        """A frame of `n_events` was learned: ask if it is time; how many events were asked for."""
        passed = learner.n_events // EVERY
        before = (learner.n_events - n_events) // EVERY
        if not self._n or passed == before:
            return 0
        waiting = learner.waiting(before * EVERY, passed * EVERY)
        if not len(waiting):
            return 0
        from streamlearn.core.ask import ask  # scikit-learn: only where it is asked for

        model = learner.model()
        requests = request_codec.LabelRequests(
            stream=learner.stream,
            model_version=model.version,
            source_partition=partition,
            source_offset=offset,
            requests=tuple(
                request_codec.Request(q.event_id, q.event_time_s, q.predicted, q.probability, q.why)
                for q in ask(model, waiting, self._n * (passed - before))
            ),
        )
        message = request_codec.encode(requests, signer=self._signer)
        self._publisher.send(self._topic, partition, message)
        return len(requests.requests)

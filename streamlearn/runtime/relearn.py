"""A stream again as it was before a frame that its learner broke off at.

A learner that raised may have learned half of the frame. Its last stored state and the log since
then give it again, without the frames that break it: the same for everybody who reads the log.
"""

from streamlearn.core.learner import StreamLearner
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.log import Log
from streamlearn.runtime.partition import Partition
from streamlearn.runtime.replay import Replay
from streamlearn.runtime.rollback import Rollbacks


class Relearning:
    """Remembers, by partition and stream, the frames that learners broke off at."""

    def __init__(
        self, settings: LearnerSettings, *, log: Log, events: str, rollbacks: Rollbacks
    ) -> None:
        self._settings = settings
        self._log = log
        self._events = events
        self._rollbacks = rollbacks
        self._broken: dict[tuple[int, str], set[int]] = {}  # their offsets

    def before(self, partition: Partition, name: str, offset: int) -> StreamLearner:
        """The stream's learner as if the frame at `offset`, which broke it, had never come."""
        broken = self._broken.setdefault((partition.number, name), set())
        broken.add(offset)
        while True:
            found = self._learn(partition, name, offset, broken)
            if isinstance(found, StreamLearner):
                return found
            broken.add(found)

    def _learn(
        self, partition: Partition, name: str, until: int, broken: set[int]
    ) -> StreamLearner | int:
        """Everything from the stored state to `until`; or the offset that breaks it, too."""
        replay = Replay(name, self._settings, partition=partition.number, rollbacks=self._rollbacks)
        stored, start = partition.state(name), partition.covered + 1
        if stored is not None:
            replay.learner = StreamLearner.restore(stored.state, self._settings)
            start = stored.source_offset + 1
        records = self._log.read(self._events, partition.number, start, until)
        ours = [r for r in records if r.key == name.encode() and r.offset not in broken]
        for record in ours:  # read first: a rollback reads the log itself
            try:
                replay.take(record)
            except Exception:
                return record.offset
        return replay.learner

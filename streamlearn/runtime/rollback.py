"""A rollback, as everybody who reads the log understands it: workers, crashed ones, replays.

The log stays the only truth: a rollback is a message of the events topic that holds an old state
(`wire.rollback_codec`), so who reads the log again rolls back again, at the same place, to the
same bits. It takes place at its last part, and what it does depends on the log alone:

1 the message says where the partition ended when it was sent; its parts are read again from
  there, so a worker that was started between two parts finds them all
2 a second last part of the same rollback, as somebody's copy of it, is refused
3 the state must be whole, of this stream, of a version that the stream has had, learned with the
  same settings, and give the model whose hash the message names
4 the stream goes on from that state, under its present version + 1

What is refused raises FrameError, so it goes to dead letters, and the stream goes on as it was.
"""

from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Reason
from streamlearn.errors import FrameError, StreamlearnError, UpdateError
from streamlearn.runtime.log import Log, Record
from streamlearn.runtime.partition import Arrival
from streamlearn.wire import rollback_codec
from streamlearn.wire.rollback_codec import Piece
from streamlearn.wire.signing import Verifier

MAX_SPAN = 10_000  # offsets from where the sender saw the end to the last part


class Rollbacks:
    """Meets rollbacks in the events topic. With a `verifier`, unsigned ones are refused.

    `log` is read while a rollback is met: not the one that is just being iterated over.
    """

    def __init__(self, log: Log, events: str, *, verifier: Verifier | None) -> None:
        self._log = log
        self._events = events
        self._verifier = verifier

    def meet(
        self, partition: int, message: Arrival | Record, learner: StreamLearner
    ) -> StreamLearner | None:
        """The learner that replaces the stream's at this message; None: parts are to come.

        FrameError where it is refused.
        """
        try:
            piece = self._decode(message)
            if not piece.last:
                return None
            pieces = self._pieces(partition, message.offset, piece)
            return _rolled_back(pieces, piece, learner)
        except FrameError:
            raise
        except UpdateError as error:
            raise FrameError(Reason.BAD_ROLLBACK, str(error)) from error

    def _decode(self, message: Arrival | Record) -> Piece:
        return rollback_codec.decode(
            message.value, message.key, message.headers, verifier=self._verifier
        )

    def _pieces(self, partition: int, offset: int, last: Piece) -> dict[int, Piece]:
        """All parts of the rollback whose last one lies at `offset`, by part number."""
        if not 0 <= offset - last.after_offset <= MAX_SPAN:
            raise FrameError(
                Reason.BAD_ROLLBACK,
                f"sent when the partition ended at {last.after_offset}, met at {offset}; at most "
                f"{MAX_SPAN} messages may lie between: send it again",
            )
        pieces = {last.part.part: last}
        for record in self._log.read(self._events, partition, last.after_offset, offset):
            if record.key != last.stream.encode() or not rollback_codec.is_rollback(record.headers):
                continue
            try:
                piece = self._decode(record)
            except UpdateError:
                continue  # refused where it lies
            if piece.belongs_with(last):
                if piece.last:
                    raise FrameError(
                        Reason.BAD_ROLLBACK,
                        f"a copy of the rollback at offset {record.offset}, which counts",
                    )
                pieces.setdefault(piece.part.part, piece)
        return pieces


def _rolled_back(pieces: dict[int, Piece], said: Piece, current: StreamLearner) -> StreamLearner:
    if not 0 < said.version <= current.version:
        raise FrameError(
            Reason.BAD_ROLLBACK,
            f"back to version {said.version} of {said.stream!r}, which has had versions 1 to "
            f"{current.version}",
        )
    stored = rollback_codec.join(pieces)
    try:
        learner = StreamLearner.restore(stored.state, current.settings)
        version, found = learner.version, learner.model().hash
    except StreamlearnError as error:
        raise FrameError(Reason.BAD_ROLLBACK, str(error)) from error
    except Exception as error:  # others' bytes: no state, though its hash fits
        raise FrameError(
            Reason.BAD_ROLLBACK, f"its state does not work: {type(error).__name__}: {error}"
        ) from error
    if (learner.stream, version, found) != (said.stream, said.version, said.result_hash):
        raise FrameError(
            Reason.BAD_ROLLBACK,
            f"it names version {said.version} of {said.stream!r} ({said.result_hash[:12]}), its "
            f"state is version {version} of {learner.stream!r} ({found[:12]})",
        )
    learner.version = current.version + 1
    return learner

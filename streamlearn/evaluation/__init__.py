"""The learner on a file, without Kafka: test, then learn, and count.

In: frames, as `sources` gives them. Out: an Evaluation. It is the worker's learner with the same
settings, one a stream, so its figures are what a worker would reach on the same frames.

`evaluate` runs it; `classes_over_time` asks again for events of all classes, `peers` runs others
beside it, `timeline` follows accuracy, and `plot` draws it.
"""

from streamlearn.evaluation.classes_over_time import ClassesOverTime, Memory
from streamlearn.evaluation.events import FRAME_EVENTS, frame_events
from streamlearn.evaluation.peers import PEERS, PeerResult, check_peers
from streamlearn.evaluation.prequential_run import (
    MAX_CLASSES,
    Evaluation,
    StreamResult,
    evaluate,
    pooled,
)
from streamlearn.evaluation.timeline import Timeline

__all__ = [
    "FRAME_EVENTS",
    "MAX_CLASSES",
    "PEERS",
    "ClassesOverTime",
    "Evaluation",
    "Memory",
    "PeerResult",
    "StreamResult",
    "Timeline",
    "check_peers",
    "evaluate",
    "frame_events",
    "pooled",
]

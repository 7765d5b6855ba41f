"""streamlearn: a classifier that never stops learning, on Kafka.

>>> from streamlearn import Feeder, Subscriber, StreamClassifier

`Feeder` sends events, `Subscriber` holds models that are always current, and `StreamClassifier`
is the same learner as a scikit-learn estimator, without Kafka. Each loads what it needs only
when it is first asked for, so `import streamlearn` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamlearn.estimator import StreamClassifier as StreamClassifier
    from streamlearn.runtime.feeder import Feeder as Feeder
    from streamlearn.runtime.subscriber import Subscriber as Subscriber

_HOMES = {
    "Feeder": "streamlearn.runtime.feeder",
    "StreamClassifier": "streamlearn.estimator",
    "Subscriber": "streamlearn.runtime.subscriber",
}

__version__ = "0.1.0"
__all__ = ["Feeder", "StreamClassifier", "Subscriber"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"streamlearn has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

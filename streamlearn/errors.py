"""Every error that streamlearn raises on purpose.

StreamlearnError
├── ConfigError          a setting, flag, topic file or environment variable is wrong
├── InputError           a file or an argument that a person gave is wrong
├── FrameError           bytes that are no frame; carries a dead-letter reason
├── UpdateError          a published update cannot be used
│   ├── GapError             its base is not the model at hand: fetch the snapshot
│   ├── IntegrityError       a hash or a signature does not fit its bytes
│   │   └── ForeignError         not signed by a trusted key, or copied from another place
│   └── FormatError          not our format, or a newer version of it
│       └── SizeError            over a size limit: nothing was allocated for it
├── StateError           a worker's own state is missing, corrupt or does not fit the log
├── NotYetError          what was waited for did not come in time
└── BrokerError          Kafka is not reachable, or answers with an error

A message names the rule that was broken, the value, and the remedy.
"""


class StreamlearnError(Exception):
    """The root: `except StreamlearnError` catches all that is raised on purpose."""


class ConfigError(StreamlearnError):
    """A setting, flag, topic file or environment variable is wrong."""


class InputError(StreamlearnError, ValueError):
    """A file or an argument that a person gave is wrong."""


class FrameError(StreamlearnError):
    """Bytes that are no frame. `reason` is the dead-letter reason (`core.records.Reason`)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UpdateError(StreamlearnError):
    """A published update cannot be used."""


class GapError(UpdateError):
    """The update's base is not the model at hand: fetch the snapshot."""


class IntegrityError(UpdateError):
    """A hash or a signature does not fit its bytes."""


class ForeignError(IntegrityError):
    """Whole, but not signed by a trusted key, or copied from another topic or partition."""


class FormatError(UpdateError):
    """Not our format, or a newer version of it."""


class SizeError(FormatError):
    """Over a size limit: nothing was allocated for it."""


class StateError(StreamlearnError):
    """A worker's own state is missing, corrupt or does not fit the log."""


class NotYetError(StreamlearnError, TimeoutError):
    """What was waited for did not come in time."""


class BrokerError(StreamlearnError):
    """Kafka is not reachable, or answers with an error."""

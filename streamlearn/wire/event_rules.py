"""What a value means, cell by cell: the same closed rules for Arrow columns and JSON fields.

number      bool, int, float, decimal; date, time, timestamp, duration as seconds. Null, NaN,
            infinite or beyond float32's range (3.4e38): missing, which is NaN.
label       text of 1..256 characters, or a whole number of 64 bits; floats and decimals without a
            fraction count as whole numbers; booleans are "true" and "false". Null: unlabelled.
            NaN, infinite, fractions, "" and all else: the row is refused as bad_label.
event_time  seconds since the epoch, a timestamp (without time zone: UTC), a date, or ISO 8601
            text. Null: the Kafka record's time. NaN, not within years 1..9999: bad_time.
event_id    text, or a whole number as its digits. Null: "", an event without an id.
text        Unicode without lone surrogates. Null: None.
image       a PNG or JPEG file that image_codec reads, or bad_image. Null: missing.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal

from streamlearn.core.records import Label, Reason
from streamlearn.errors import FrameError

LABEL, EVENT_TIME, EVENT_ID = "label", "event_time", "event_id"
RESERVED = frozenset((LABEL, EVENT_TIME, EVENT_ID))

MAX_LABEL_CHARACTERS = 256
MAX_NAME_CHARACTERS = 256
FLOAT32_MAX = 3.4028234663852886e38
FIRST_SECOND = -62_135_596_800.0  # 0001-01-01T00:00:00Z
LAST_SECOND = 253_402_300_800.0  # 10000-01-01T00:00:00Z
_INT_MIN, _INT_END = -(1 << 63), 1 << 64  # int64 and uint64, as Arrow has them


class RefusedError(Exception):
    """Not learnable; the message says why. Never leaves the event codec."""


def label_of(value: object) -> Label:
    """The label that a value (not None) stands for; RefusedError where it is none."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            if not 1 <= len(value) <= MAX_LABEL_CHARACTERS:
                raise RefusedError(
                    f"a label of {len(value)} characters; 1 to {MAX_LABEL_CHARACTERS} are allowed"
                )
            if not is_unicode(value):
                raise RefusedError("a label with a lone surrogate; send valid Unicode")
            return value
        case int():
            whole = value
        case float() | Decimal():
            finite = value.is_finite() if isinstance(value, Decimal) else value - value == 0
            if not finite or value != value.__trunc__():
                raise RefusedError(f"label {value} is not a whole number; send null if unlabelled")
            whole = value.__trunc__()
        case _:
            raise RefusedError(
                f"a label of type {type(value).__name__}; send text or a whole number"
            )
    if not _INT_MIN <= whole < _INT_END:
        raise RefusedError("a label of more than 64 bits; send it as text")
    return whole


def time_of(value: object) -> float:
    """Seconds since the epoch of a number or a text; RefusedError where it is no time."""
    match value:
        case bool():
            raise RefusedError("event_time is a boolean; send seconds or ISO 8601")
        case int() | float():
            try:
                seconds = float(value)
            except OverflowError:
                seconds = float("inf")
        case str():
            try:
                moment = datetime.fromisoformat(value.strip())
            except ValueError as error:
                raise RefusedError(f"event_time {value[:40]!r} is not ISO 8601") from error
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
        case _:
            raise RefusedError(
                f"event_time of type {type(value).__name__}; send seconds or ISO 8601"
            )
    if not FIRST_SECOND <= seconds < LAST_SECOND:
        raise RefusedError(
            f"event_time {seconds:g} is not within years 1..9999; send seconds, not milliseconds"
        )
    return seconds


def is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_refusal(name: str) -> str | None:
    """Why a column can't have this name, or None."""
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        return f"a column name of {len(name)} characters; 1 to {MAX_NAME_CHARACTERS} are allowed"
    return None if is_unicode(name) else "a column name with a lone surrogate"


def check_names(names: Collection[str]) -> None:
    """FrameError (wrong_type) where columns can't have these names."""
    if len(set(names)) < len(names):
        raise FrameError(Reason.WRONG_TYPE, "a column name comes twice; rename one of them")
    for name in names:
        refusal = name_refusal(name)
        if refusal is not None:
            raise FrameError(Reason.WRONG_TYPE, refusal)

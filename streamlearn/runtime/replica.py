"""What a subscriber holds: every stream's newest model, built from snapshots and updates.

Pure: messages come in decoded, no Kafka, no clock of its own, no threads. `subscriber` reads the
topics and feeds it. One writer; any number of readers in other threads, since a swap is one
assignment of one reference to an immutable record.

The rule, for a message (epoch e, version v) while (E, V) is held:

| message | what happens | Outcome |
|---|---|---|
| e is older than an owner already heard | a frozen old owner woke up: dropped | OLD_EPOCH |
| e = E, v <= V | seen already: dropped | DUPLICATE |
| e > E, v <= V, result hash as held at v | a new owner learns frames again (1) | REPLAYED |
| e > E, v <= V, else | the new owner wins: taken if whole | APPLIED, GAP |
| whole model | built aside, result hash checked, swapped | APPLIED |
| changes on a base that is or was held (2) | the same | APPLIED |
| changes on another base | kept out; the stream needs its snapshot | GAP |
| its result hash does not fit | kept out; the stream needs its snapshot | WRONG_HASH |
| its slow weights are not here yet | waits for them, in order | WAITING |
| a tombstone that is not older | the stream is forgotten | FORGOTTEN |

(1) The newer model stays, and older owners are no longer heard. (2) Values are absolute, so
changes on an older base mostly fit a newer model too; the result hash tells.

Whatever comes, the model held is one that an owner published, whole. While a stream needs its
snapshot, it goes on predicting with the last model that was right.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from streamlearn.core.model import Model, SlowWeights
from streamlearn.core.update import Update, apply
from streamlearn.errors import GapError, UpdateError

RECENT = 256  # versions a stream whose hashes are remembered, to know a replay when it comes
MAX_WAITING = 1024  # updates that may wait for slow weights; beyond it, streams need snapshots


class Outcome(StrEnum):
    """What became of a message: a closed set, also a metric label."""

    APPLIED = "applied"
    REPLAYED = "replayed"
    DUPLICATE = "duplicate"
    OLD_EPOCH = "old_epoch"
    GAP = "gap"
    WRONG_HASH = "wrong_hash"
    WAITING = "waiting_for_slow_weights"
    HEARTBEAT = "heartbeat"
    FORGOTTEN = "forgotten"
    MALFORMED = "malformed"  # not our format, or a newer one; like the next two it never got here
    CORRUPT = "corrupt"  # its digest doesn't fit: cut off, or changed on the way
    OVERSIZED = "oversized"  # over a size limit; nothing was allocated for it
    FOREIGN = "foreign"  # not signed by a trusted key, or copied from another place


class ReplicaState(StrEnum):
    """Whether a stream's model follows its updates."""

    CURRENT = "current"
    NEEDS_SNAPSHOT = "needs_snapshot"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a message says about itself beside the values."""

    epoch: int  # one ownership of the partition by one worker
    newest_event_s: float = float("nan")  # event time of the newest event learned from
    source_offset: int = -1  # of the newest frame learned from, in the events topic


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """One model as it is held; replaced as a whole, never changed."""

    model: Model
    hash: str  # sha256 hex, checked when it was built
    stamp: Stamp
    swapped_s: float  # seconds since the epoch, of this process' clock


@dataclass(slots=True)
class _Stream:
    owner: int = -1  # newest epoch that proved itself: by a model taken or a replay recognised
    recent: OrderedDict[int, str] = field(default_factory=OrderedDict)  # version to hash
    wanted: tuple[int, int] | None = None  # (epoch, version) that could not be built


class Replica:
    """All streams' models. `offer_*` from one thread only; the rest from any."""

    def __init__(
        self, *, clock: Callable[[], float], on_swap: Callable[[Held], None] = lambda held: None
    ) -> None:
        self.counts: Counter[Outcome] = Counter()
        self._clock = clock
        self._on_swap = on_swap
        self._held: dict[str, Held] = {}
        self._streams: dict[str, _Stream] = {}
        self._slow: dict[str, SlowWeights] = {}
        self._waiting: list[tuple[Update, Stamp]] = []  # for slow weights
        self._wanting: set[str] = set()  # streams that may need their snapshot

    def held(self, stream: str) -> Held | None:
        """The stream's newest model, None before its first."""
        return self._held.get(stream)

    def streams(self) -> tuple[str, ...]:
        """The streams that have a model, sorted."""
        return tuple(sorted(self._held.copy()))

    def state(self, stream: str) -> ReplicaState:
        """NEEDS_SNAPSHOT while a newer version is known than could be built."""
        record, held = self._streams.get(stream), self._held.get(stream)
        if record is None or record.wanted is None:
            return ReplicaState.CURRENT
        if held is not None and (record.owner, held.model.version) >= record.wanted:
            return ReplicaState.CURRENT
        return ReplicaState.NEEDS_SNAPSHOT

    def behind(self) -> int:
        """How many streams know of a newer version than could be built. From any thread."""
        return sum(self.state(s) is ReplicaState.NEEDS_SNAPSHOT for s in self._wanting.copy())

    def needing_snapshot(self) -> tuple[str, ...]:
        """The streams whose snapshot has to be read again. For the writing thread."""
        if self._wanting:
            still = {s for s in self._wanting if self.state(s) is ReplicaState.NEEDS_SNAPSHOT}
            self._wanting = still
        return tuple(self._wanting)

    def slow(self, digest: str) -> SlowWeights | None:
        """The slow weights of that hash, if they came."""
        return self._slow.get(digest)

    def offer_slow(self, slow: SlowWeights) -> None:
        """Take slow weights, then the updates that waited for them."""
        self._slow[slow.hash] = slow
        waiting, self._waiting = self._waiting, []
        for update, stamp in waiting:
            self.offer(update, stamp)

    def offer(self, update: Update, stamp: Stamp) -> Outcome:
        """Take one update or snapshot (a snapshot is an update without a base)."""
        outcome = self._judge(update, stamp)
        self.counts[outcome] += 1
        if outcome in (Outcome.GAP, Outcome.WRONG_HASH):
            self._want(update.stream, stamp.epoch, update.version)
        return outcome

    def offer_heartbeat(self, stream: str, version: int, stamp: Stamp) -> Outcome:
        """An owner says what it published last: a version that never came shows as a gap."""
        held, record = self._held.get(stream), self._stream(stream)
        self.counts[Outcome.HEARTBEAT] += 1
        if stamp.epoch >= record.owner and (held is None or version > held.model.version):
            self._want(stream, stamp.epoch, version)
        return Outcome.HEARTBEAT

    def offer_tombstone(self, stream: str, version: int, stamp: Stamp) -> Outcome:
        """An owner forgot the stream: no model of it is held any longer."""
        held = self._held.get(stream)
        if held is not None and (
            stamp.epoch < self._stream(stream).owner or version < held.model.version
        ):
            outcome = Outcome.OLD_EPOCH
        else:
            outcome = Outcome.FORGOTTEN
            self._held.pop(stream, None)
            self._streams.pop(stream, None)
            self._wanting.discard(stream)
        self.counts[outcome] += 1
        return outcome

    def refuse(self, stream: str, epoch: int, version: int) -> Outcome | None:
        """Count and name what makes a message not worth unpacking; None if it may be of use."""
        outcome = self._refusal(stream, epoch, version)
        if outcome is not None:
            self.counts[outcome] += 1
        return outcome

    def offer_unusable(self, outcome: Outcome, stream: str | None) -> Outcome:
        """A message that could not be decoded: if it was for a known stream, that may lag now."""
        self.counts[outcome] += 1
        held = None if stream is None else self._held.get(stream)
        if held is not None:
            owner = self._stream(held.model.stream).owner
            self._want(held.model.stream, owner, held.model.version + 1)
        return outcome

    def offer_foreign(self) -> Outcome:
        """A message that nobody who may speak here has sent here: it changes nothing."""
        self.counts[Outcome.FOREIGN] += 1
        return Outcome.FOREIGN

    def _want(self, stream: str, epoch: int, version: int) -> None:
        self._stream(stream).wanted = epoch, version
        self._wanting.add(stream)

    def _judge(self, update: Update, stamp: Stamp) -> Outcome:
        refusal = self._refusal(update.stream, stamp.epoch, update.version)
        if refusal is not None:
            return refusal
        held, record = self._held.get(update.stream), self._stream(update.stream)
        known = record.recent.get(update.version)
        if held is not None and known == update.result_hash:
            return self._replayed(held, update, stamp)
        slow = self._slow.get(update.slow_hash)
        if slow is None:
            return self._wait(update, stamp)
        return self._build(held, update, slow, stamp)

    def _refusal(self, stream: str, epoch: int, version: int) -> Outcome | None:
        held, record = self._held.get(stream), self._streams.get(stream)
        if record is not None and epoch < record.owner:
            return Outcome.OLD_EPOCH
        if held is not None and version <= held.model.version and epoch == held.stamp.epoch:
            return Outcome.DUPLICATE
        return None

    def _replayed(self, held: Held, update: Update, stamp: Stamp) -> Outcome:
        self._stream(update.stream).owner = stamp.epoch
        if update.version == held.model.version:  # caught up: from here on it is the new owner's
            self._held[update.stream] = replace(held, stamp=stamp)
        return Outcome.REPLAYED

    def _wait(self, update: Update, stamp: Stamp) -> Outcome:
        if len(self._waiting) >= MAX_WAITING:
            return Outcome.GAP
        self._waiting.append((update, stamp))
        return Outcome.WAITING

    def _build(self, held: Held | None, update: Update, slow: SlowWeights, stamp: Stamp) -> Outcome:
        """Build aside, check, and only then swap."""
        fitted = self._rebased(held, update) if held is not None else update
        base = held.model if held is not None and update.base_hash is not None else None
        try:
            model = apply(base, fitted, slow)
        except GapError:
            return Outcome.GAP
        except UpdateError:
            return Outcome.WRONG_HASH if fitted is update else Outcome.GAP
        self._swap(Held(model, update.result_hash, stamp, self._clock()))
        return Outcome.APPLIED

    def _rebased(self, held: Held, update: Update) -> Update:
        """Put changes on an older base that was held here onto the model at hand.

        A new owner that learned frames again publishes against its own last version, which this
        side may have passed. Its values are absolute, so they mostly give the same result; where
        they don't, the result hash tells.
        """
        version, digest = update.base_version, update.base_hash
        if version is None or digest is None or version == held.model.version:
            return update
        if self._stream(update.stream).recent.get(version) != digest:
            return update
        return replace(update, base_version=held.model.version, base_hash=held.hash)

    def _swap(self, held: Held) -> None:
        record = self._stream(held.model.stream)
        before = self._held.get(held.model.stream)
        if before is not None and before.model.version >= held.model.version:
            record.recent.clear()  # a new owner with another past: nothing older can be trusted
        record.owner = held.stamp.epoch
        record.recent[held.model.version] = held.hash
        while len(record.recent) > RECENT:
            record.recent.popitem(last=False)
        self._held[held.model.stream] = held
        self._forget_slow(held.model.slow)
        self._on_swap(held)

    def _forget_slow(self, newest: SlowWeights) -> None:
        """Keep the slow weights that models use, and the newest; they rarely change."""
        if len(self._slow) > 16:
            used = {held.model.slow.hash for held in self._held.values()} | {newest.hash}
            for digest in [d for d in list(self._slow)[:-1] if d not in used]:
                del self._slow[digest]

    def _stream(self, stream: str) -> _Stream:
        return self._streams.setdefault(stream, _Stream())

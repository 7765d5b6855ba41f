"""Replays, audits and rollbacks on a log in memory; the second truth is a learner read aloud."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from streamlearn import topics as topic_specs
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame, Reason
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import FormatError, InputError, IntegrityError, StateError
from streamlearn.runtime.audit import Result, audit
from streamlearn.runtime.history import find_published
from streamlearn.runtime.partition import Arrival
from streamlearn.runtime.replay import Replay, Replayed, Until, replay
from streamlearn.runtime.rollback import MAX_SPAN, Rollbacks
from streamlearn.runtime.trainer import Trainer
from streamlearn.stores.memory import MemoryStore
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.testing import Clock, Crashed, CrashPoint, MemoryKafka, MemoryPublisher
from streamlearn.wire import dead_letter_codec, event_codec, model_codec, rollback_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.signing import Signer, Verifier, generate_keys
from streamlearn.wire.state_codec import StoredState

SETTINGS = LearnerSettings(random_features=3, windows=(50.0, float("inf")), step_events=4)
TOPICS = topic_specs.load(prefix="", partitions=1)
PRIVATE, PUBLIC = generate_keys()


def frame(stream: str, number: int) -> Frame:
    rng = np.random.default_rng([number, *stream.encode()])
    x = rng.normal(size=(5, 2))
    codes = (x[:, 0] > 0).astype(np.int32)
    return Frame(stream, ("x", "y"), x, codes, ("no", "yes"), 1e9 + number + np.arange(5.0))


def truth(stream: str, numbers: list[int]) -> StreamLearner:
    learner = StreamLearner(stream, SETTINGS)
    for number in numbers:
        learner.learn(frame(stream, number))
    return learner


class Installation:
    """A log, one disk, workers on it that may crash."""

    def __init__(self, *, verifier: Verifier | None = None) -> None:
        self.kafka = MemoryKafka()
        self.clock = Clock(1e9)
        self.rng = random.Random(7)
        self._disk: dict[bytes, bytes] = {}
        self._generation = 0
        self._verifier = verifier

    def feed(self, stream: str, *numbers: int) -> None:
        for number in numbers:
            self.clock.forward(1.0)
            value, headers = event_codec.encode(frame(stream, number))
            self.append(Message(stream.encode(), value, headers))

    def append(self, message: Message) -> int:
        return self.kafka.append("events", 0, message, self.clock())

    def rollback(
        self, stream: str, version: int, *, parts: int = 3, signer: Signer | None = None
    ) -> list[Message]:
        """The messages that `streamlearn rollback` would send now."""
        done = self.replayed(stream, Until(version=version))
        state = StoredState(stream, 0, done.offset, done.learner.state())
        said = {
            "version": version,
            "result_hash": done.learner.model().hash,
            "after_offset": self.kafka.watermarks("events", 0)[1],
            "sent_s": self.clock(),
            "signer": signer,
        }
        [whole] = rollback_codec.encode(state, **said)
        part_bytes = -(-len(whole.value or b"") // parts)
        return rollback_codec.encode(state, **said, part_bytes=part_bytes)

    def rollbacks(self) -> Rollbacks:
        return Rollbacks(self.kafka, "events", verifier=self._verifier)

    def replayed(self, stream: str, until: Until = Until()) -> Replayed:  # noqa: B008
        learning = Replay(stream, SETTINGS, partition=0, rollbacks=self.rollbacks())
        *_, last = replay(self.kafka, "events", learning, 0, until)
        assert isinstance(last, Replayed)
        return last

    def work(self, crash_after: int | None = None, *, batch: int = 3) -> Trainer:
        """A worker learns what waits, a checkpoint after each batch; or crashes on the way."""
        effect = CrashPoint(crash_after) if crash_after else (lambda name: None)
        publisher = MemoryPublisher(self.kafka, self.clock)
        trainer = Trainer(
            SETTINGS,
            TOPICS,
            worker_id="w",
            open_store=lambda number: MemoryStore(self._disk),
            memory_budget_bytes=1,
            publisher=publisher,
            log=self.kafka,
            metrics=WorkerMetrics(),
            clock=self.clock,
            verifier=self._verifier,
            effect=effect,
        )
        self._generation += 1
        try:
            trainer.own([0], self._generation)
            self._learn(trainer, batch)
        except Crashed:
            publisher.die(self.rng)
            raise
        return trainer

    def _learn(self, trainer: Trainer, batch: int) -> None:
        end = self.kafka.watermarks("events", 0)[1]
        low = self.kafka.watermarks("events", 0)[0]
        for start in range(self.kafka.offsets.get(("events", 0), low), end, batch):
            records = self.kafka.read("events", 0, start, start + batch)
            trainer.learn(
                {0: [Arrival(r.offset, r.key, r.value, r.headers, r.timestamp_s) for r in records]}
            )
            for number, covered in trainer.checkpoint().items():
                self.kafka.offsets["events", number] = covered + 1

    def verdicts(self, settings: LearnerSettings = SETTINGS) -> dict[str, Result]:
        found = find_published(self.kafka, TOPICS, verifier=None)
        assert found.refused == 0
        return {
            verdict.stream: verdict.result
            for verdict in audit(self.kafka, "events", found, settings, self.rollbacks())
        }

    def letters(self) -> Iterator[dead_letter_codec.DeadLetter]:
        for r in self.kafka.read("deadletters", 0, 0, 1 << 60):
            yield dead_letter_codec.decode(r.value, r.key, r.headers)


# --- replay


def test_every_past_model_comes_back_from_the_log_alone() -> None:
    world = Installation()
    for number in range(6):
        world.feed("a", number)
        world.feed("b", number)  # offsets 0, 2, 4, ... are a's
    world.append(Message(b"a", b"nonsense", []))
    for version in range(1, 7):
        expected = truth("a", list(range(version))).model().hash
        done = world.replayed("a", Until(version=version))
        assert done.learner.model().hash == expected
        assert done.offset == 2 * (version - 1) and not done.cut
        assert world.replayed("a", Until(offset=2 * version - 1)).learner.model().hash == expected
        time_s = 1e9 + 1 + 2 * (version - 1)  # of its record
        assert world.replayed("a", Until(time_s=time_s)).learner.model().hash == expected
    assert world.replayed("a").refused == 1


@pytest.mark.parametrize(
    "until, error", [(Until(version=3), InputError), (Until(offset=9), InputError)]
)
def test_what_the_log_does_not_have_is_refused(until: Until, error: type[Exception]) -> None:
    world = Installation()
    world.feed("a", 0, 1)
    with pytest.raises(error, match=r"versions 1 to 2|offsets 0 to 1"):
        world.replayed("a", until)
    with pytest.raises(StateError, match="no event of 'nobody'"):
        world.replayed("nobody")


@pytest.mark.parametrize("until", [Until(offset=0), Until(time_s=1e9 + 1)])
def test_an_end_before_a_streams_beginning_says_where_that_is(until: Until) -> None:
    world = Installation()
    world.feed("a", 0)
    world.feed("b", 0)
    said = r"first message of 'b' .* has offset 1 and time 2001-09-09T01:46:42\.000\+00:00"
    with pytest.raises(InputError, match=said):
        world.replayed("b", until)


def test_a_log_without_its_beginning_says_so() -> None:
    world = Installation()
    world.feed("a", 0, 1, 2)
    world.kafka.delete_before("events", 0, 1)
    done = world.replayed("a")
    assert done.cut and done.low == 1
    assert done.learner.model().hash == truth("a", [1, 2]).model().hash


@pytest.mark.parametrize("text", ["v", "v-1", "yesterday", "1.5.7"])
def test_an_end_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no offset"):
        Until.parse(text)


def test_a_model_file_holds_a_model_that_predicts_the_same() -> None:
    model = truth("a", [0, 1]).model()
    raw = model_codec.encode(model, {"offset": 1})
    again, about = model_codec.decode(raw)
    assert again.hash == model.hash and about == {"offset": 1}
    event = frame("a", 2)
    assert again.predict_proba(event).tobytes() == model.predict_proba(event).tobytes()
    changed = raw[:-1] + bytes([raw[-1] ^ 1])
    with pytest.raises(IntegrityError, match="holds"):
        model_codec.decode(changed)
    with pytest.raises(FormatError):
        model_codec.decode(raw[:-1])


# --- verify


def test_what_a_worker_published_is_what_the_log_says() -> None:
    world = Installation()
    world.feed("a", 0, 1, 2, 3)
    world.feed("b", 0, 1)
    world.work(batch=2)
    assert world.verdicts() == {"a": Result.SAME, "b": Result.SAME}
    other = LearnerSettings(random_features=4, windows=(50.0, float("inf")), step_events=4)
    assert world.verdicts(other) == {"a": Result.DIFFERENT, "b": Result.DIFFERENT}


def test_an_event_that_was_not_learned_is_a_difference() -> None:
    world, honest = Installation(), Installation()
    world.feed("a", 0, 2, 3)
    world.work(batch=1)
    honest.feed("a", 0, 1, 2, 3)
    honest.kafka._logs["updates", 0] = world.kafka._logs["updates", 0]
    honest.kafka._next["updates", 0] = world.kafka._next["updates", 0]
    assert honest.verdicts() == {"a": Result.DIFFERENT}


def test_a_cut_log_proves_nothing() -> None:
    world = Installation()
    world.feed("a", 0, 1, 2)
    world.feed("b", 0)
    world.work(batch=1)
    world.kafka.delete_before("events", 0, 1)
    assert world.verdicts() == {"a": Result.CUT, "b": Result.SAME}


# --- rollback


def test_old_values_become_a_new_version_and_learning_goes_on_from_there() -> None:
    world = Installation()
    world.feed("a", 0, 1, 2, 3)
    world.feed("b", 0)
    world.work()
    for message in world.rollback("a", 2):
        world.append(message)
        world.feed("b", 1)  # others go on meanwhile
    world.work(batch=1)
    expected = truth("a", [0, 1])
    found = find_published(world.kafka, TOPICS, verifier=None).of("a")
    rolled = [entry for entry in found if entry.version == 5]
    old = expected.model()
    expected.version = 5
    new = expected.model()
    assert {entry.hash for entry in rolled} == {new.hash}
    assert "full" in {entry.kind for entry in rolled}
    assert all(new.tensors[name].tobytes() == old.tensors[name].tobytes() for name in old.tensors)
    world.feed("a", 4)
    trainer = world.work()
    expected.learn(frame("a", 4))
    assert trainer.learned()["a"].hash == expected.model().hash
    assert world.replayed("a").learner.model().hash == expected.model().hash
    assert world.verdicts() == {"a": Result.SAME, "b": Result.SAME}
    assert list(world.letters()) == []


def test_a_crash_after_each_effect_around_a_rollback_changes_nothing() -> None:
    for gap in range(1, 200):
        world = Installation()
        world.feed("a", 0, 1, 2)
        world.work()
        for message in world.rollback("a", 1, parts=4):
            world.append(message)
        world.feed("a", 3)
        crashed = False
        try:
            world.work(gap, batch=2)  # checkpoints lie between the parts
        except Crashed:
            crashed = True
        expected = truth("a", [0])
        expected.version = 4
        expected.learn(frame("a", 3))
        assert world.work(batch=3).learned()["a"].hash == expected.model().hash
        assert world.verdicts() == {"a": Result.SAME}
        if not crashed:
            break
    assert gap > 20


def test_a_rollback_can_be_undone_and_rolled_back_over() -> None:
    world = Installation()
    world.feed("a", 0, 1)
    for version in (1, 2, 3):  # back; forth again; and to the version that the first one made
        for message in world.rollback("a", version):
            world.append(message)
    learner = world.work().learned()["a"]
    expected = truth("a", [0])
    expected.version = 5
    assert learner.hash == expected.model().hash


def refusals(world: Installation, messages: list[Message]) -> list[str]:
    """Details of the dead letters; the stream goes on as if nothing had been sent."""
    before = world.replayed("a").learner.model().hash
    for message in messages:
        world.append(message)
    trainer = world.work()
    assert trainer.learned()["a"].hash == before == world.replayed("a").learner.model().hash
    letters = list(world.letters())
    assert {letter.reason for letter in letters} <= {Reason.BAD_ROLLBACK}
    return [letter.detail for letter in letters]


@pytest.fixture
def fed() -> Installation:
    world = Installation()
    world.feed("a", 0, 1, 2)
    world.feed("b", 0)
    return world


def test_a_missing_part_is_refused(fed: Installation) -> None:
    first, _, last = fed.rollback("a", 1)
    [detail] = refusals(fed, [first, last])
    assert "lacks 1 of 3 parts" in detail


def test_a_last_part_that_never_comes_costs_nothing(fed: Installation) -> None:
    assert refusals(fed, fed.rollback("a", 1)[:-1]) == []


def test_a_changed_bit_is_refused(fed: Installation) -> None:
    *parts, last = fed.rollback("a", 1)
    value = bytes([(last.value or b"")[0] ^ 1]) + (last.value or b"")[1:]
    [detail] = refusals(fed, [*parts, last._replace(value=value)])
    assert "not those that were sealed" in detail


def test_another_streams_state_is_refused(fed: Installation) -> None:
    parts = [message._replace(key=b"a") for message in fed.rollback("b", 1)]
    details = refusals(fed, parts)
    assert len(details) == 3 and "sealed" in details[0]


def test_a_version_that_never_was_is_refused() -> None:
    source, world = Installation(), Installation()
    source.feed("a", 0, 1, 2)
    world.feed("a", 0, 1)
    done = source.replayed("a")
    messages = rollback_codec.encode(
        StoredState("a", 0, done.offset, done.learner.state()),
        version=3,
        result_hash=done.learner.model().hash,
        after_offset=world.kafka.watermarks("events", 0)[1],
        sent_s=0.0,
    )
    [detail] = refusals(world, messages)
    assert "which has had versions 1 to 2" in detail


def test_a_state_that_is_not_the_model_it_names_is_refused(fed: Installation) -> None:
    done = fed.replayed("a", Until(version=1))
    messages = rollback_codec.encode(
        StoredState("a", 0, done.offset, done.learner.state()),
        version=2,
        result_hash=done.learner.model().hash,
        after_offset=fed.kafka.watermarks("events", 0)[1],
        sent_s=0.0,
    )
    [detail] = refusals(fed, messages)
    assert "it names version 2" in detail and "its state is version 1" in detail


def test_a_copy_is_refused() -> None:
    world = Installation()
    world.feed("a", 0, 1, 2)
    messages = world.rollback("a", 1)
    for message in messages:
        world.append(message)
    world.feed("a", 3)
    details = refusals(world, messages)
    assert len(details) == 1 and "a copy of the rollback at offset 5" in details[0]


def test_one_that_was_sent_long_ago_is_refused(fed: Installation) -> None:
    messages = fed.rollback("a", 1)
    fed.kafka._next["events", 0] += MAX_SPAN  # as aborted transactions leave them
    [detail] = refusals(fed, messages)
    assert "send it again" in detail


def test_with_a_key_only_its_owner_may_roll_back() -> None:
    signer = Signer(PRIVATE, scope="x.")
    for chosen in (None, Signer(generate_keys()[0], scope="x."), Signer(PRIVATE, scope="y.")):
        world = Installation(verifier=Verifier(PUBLIC, scope="x."))
        world.feed("a", 0, 1, 2)
        details = refusals(world, world.rollback("a", 1, signer=chosen))
        assert len(details) == 3 and ("sign" in details[0] or "key" in details[0])
    world = Installation(verifier=Verifier(PUBLIC, scope="x."))
    world.feed("a", 0, 1, 2)
    for message in world.rollback("a", 1, signer=signer):
        world.append(message)
    expected = truth("a", [0])
    expected.version = 4
    assert world.work().learned()["a"].hash == expected.model().hash

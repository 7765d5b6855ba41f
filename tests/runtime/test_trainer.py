"""Learning frames: what is refused, what is skipped, what leaves memory, what is kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import IMAGE_SIDE, Frame, ImageColumn, Reason
from streamlearn.core.representatives import gallery
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import InputError
from streamlearn.runtime.newest_state import newest_state
from streamlearn.runtime.partition import Arrival, Partition
from streamlearn.runtime.trainer import Trainer
from streamlearn.stores.memory import MemoryStore
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.testing import Clock, MemoryKafka, MemoryPublisher
from streamlearn.topics import load
from streamlearn.wire import (
    dead_letter_codec,
    event_codec,
    kept_codec,
    prediction_codec,
    update_codec,
)
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.dead_letter_codec import DeadLetter
from streamlearn.wire.envelope import Role
from tests.crash.world import SETTINGS, frame
from tests.wire.pictures import file_of

TOPICS = load(prefix="", partitions=1)


class Bench:
    """A trainer that owns one partition; `learn` puts messages on its log and takes them."""

    def __init__(
        self,
        settings: LearnerSettings = SETTINGS,
        *,
        budget: int = 1 << 30,
        predictions: bool = False,
    ) -> None:
        self.settings = settings
        self.kafka, self.clock, self.metrics = MemoryKafka(), Clock(1e9), WorkerMetrics()
        self.rows: dict[bytes, bytes] = {}
        self.budget, self.predictions = budget, predictions
        self.trainer = self.start()

    def start(self) -> Trainer:
        trainer = Trainer(
            self.settings,
            TOPICS,
            worker_id="w",
            open_store=lambda number: MemoryStore(self.rows),
            memory_budget_bytes=self.budget,
            publisher=MemoryPublisher(self.kafka, self.clock),
            log=self.kafka,
            metrics=self.metrics,
            clock=self.clock,
            predictions=self.predictions,
        )
        trainer.own([0], 1)
        return trainer

    def learn(self, *messages: Message) -> None:
        arrivals = []
        for m in messages:
            offset = self.kafka.append("events", 0, m, self.clock())
            arrivals.append(Arrival(offset, m.key, m.value, m.headers, self.clock()))
        self.trainer.learn({0: arrivals})

    def dead(self) -> list[DeadLetter]:
        records = self.kafka.read("deadletters", 0, 0, 99)
        return [dead_letter_codec.decode(r.value, r.key, r.headers) for r in records]

    def hashes(self) -> dict[str, str]:
        return {name: model.hash for name, model in self.trainer.learned().items()}

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


def message(one: Frame) -> Message:
    value, headers = event_codec.encode(one)
    return Message(one.stream.encode(), value, headers)


def truth(*frames: Frame) -> str:
    learner = StreamLearner(frames[0].stream, SETTINGS)
    for one in frames:
        learner.learn(one)
    return learner.model().hash


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Message(b"a", b"\xffnonsense", []), Reason.UNDECODABLE),
        (Message(b"a", b"", []), Reason.EMPTY_FRAME),
        (Message(b"a", None, []), Reason.EMPTY_FRAME),
        (Message(None, b'{"x": 1}', []), Reason.NO_STREAM),
        (Message(b"a", b'{"label": "no"}', []), Reason.NO_FEATURES),
        (Message(b"a", b'{"x": 1, "label": NaN}', []), Reason.BAD_LABEL),
        (Message(b"a", bytes(50 << 20), []), Reason.TOO_LARGE),
        (Message(b"a", b'{"x": 1}', [("content-type", b"text/plain")]), Reason.UNSUPPORTED),
    ],
)
def test_what_is_no_frame_becomes_a_dead_letter_and_the_worker_goes_on(
    bad: Message, reason: Reason
) -> None:
    bench = Bench()
    frames = [frame("a", n) for n in range(2)]
    bench.learn(message(frames[0]), bad, message(frames[1]))
    [letter] = bench.dead()
    assert (letter.reason, letter.partition, letter.offset) == (reason, 0, 1)
    assert len(letter.value or b"") <= 900 << 10
    assert bench.hashes() == {"a": truth(*frames)}
    assert bench.value("streamlearn_dead_letters_total", reason=reason.value) == 1
    assert bench.trainer.checkpoint() == {0: 2}


def test_a_bad_row_does_not_cost_its_frame() -> None:
    bench = Bench()
    whole = replace(frame("a", 0), label_values=("no", "x" * 300))  # too long for a label
    ones = np.flatnonzero(whole.label_codes == 1).tolist()
    good = np.flatnonzero(whole.label_codes == 0)
    assert ones and len(good)
    bench.learn(message(whole))
    assert [(letter.reason, letter.row) for letter in bench.dead()] == [
        (Reason.BAD_LABEL, row) for row in ones
    ]
    assert bench.value("streamlearn_events_total", stream="a") == len(good)


def test_a_bad_image_does_not_cost_its_frame_and_good_ones_are_kept_as_they_came() -> None:
    bench = Bench()
    one = frame("a", 0)
    files = [file_of(np.full((30, 30), at, np.uint8)) for at in range(len(one))]
    files[3] = files[3][:30]
    pixels = np.zeros((len(one), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    image = replace(ImageColumn.of(pixels), raw=tuple(files))
    bench.learn(message(replace(one, images={"photo": image})))
    assert [(letter.reason, letter.row) for letter in bench.dead()] == [(Reason.BAD_IMAGE, 3)]
    assert bench.value("streamlearn_events_total", stream="a") == len(one) - 1
    bench.trainer.checkpoint()
    kept = [row for key, row in bench.rows.items() if key.startswith(b"kept\0a\0")]
    shown = [kept_codec.decode(row, "a").frame.images["photo"] for row in kept]
    assert kept and {one.raw[0] for one in shown} <= set(files)
    assert [one.pixels[0, 0, 0] for one in shown] == [files.index(one.raw[0]) for one in shown]


def test_a_frame_that_breaks_the_learner_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    learning: Callable[..., Any] = StreamLearner.learning

    def fragile(self: StreamLearner, one: Frame, **options: Any) -> Any:
        outcome = yield from learning(self, one, **options)  # learned already, when it breaks off
        if self.stream == "a" and np.any(one.numbers == 42.0):
            raise ZeroDivisionError("the answer")
        return outcome

    def poison(number: int) -> Frame:
        one = frame("a", number)
        return replace(one, numbers=np.full_like(one.numbers, 42.0))

    good = [frame("a", n) for n in range(4)]
    other = [frame("b", n) for n in range(2)]
    wanted = {"a": truth(*good), "b": truth(*other)}
    monkeypatch.setattr(StreamLearner, "learning", fragile)
    bench = Bench()
    bench.learn(message(good[0]), message(other[0]), message(poison(8)), message(good[1]))
    bench.learn(message(poison(9)), message(good[2]))
    bench.kafka.offsets["events", 0] = bench.trainer.checkpoint()[0] + 1
    bench.learn(message(good[3]), message(poison(10)), message(other[1]))
    assert bench.hashes() == wanted
    assert [letter.reason for letter in bench.dead()] == [Reason.LEARNER_ERROR] * 3
    assert "the answer" in bench.dead()[0].detail

    bench.trainer = bench.start()  # the last checkpoint, and all that came after it once more
    after = bench.kafka.read("events", 0, 6, 99)
    bench.trainer.learn(
        {0: [Arrival(r.offset, r.key, r.value, r.headers, r.timestamp_s) for r in after]}
    )
    assert bench.hashes() == wanted


def test_an_offset_left_out_is_noticed() -> None:
    bench = Bench()
    for n in range(3):
        bench.kafka.append("events", 0, message(frame("a", n)))
    late = message(frame("a", 2))
    with pytest.raises(RuntimeError, match="left out offset 0"):
        bench.trainer.learn({0: [Arrival(2, late.key, late.value, late.headers, 0.0)]})


def test_a_delivery_twice_is_learned_once() -> None:
    bench = Bench()
    bench.learn(message(frame("a", 0)))
    again = message(frame("a", 0))
    bench.trainer.learn({0: [Arrival(0, again.key, again.value, again.headers, 0.0)]})
    assert bench.hashes() == {"a": truth(frame("a", 0))}


def test_streams_that_leave_memory_go_on_with_deltas() -> None:
    bench = Bench(budget=1)
    for n in range(4):
        bench.learn(*(message(frame(name, n)) for name in "ab"))
        if n % 2:
            bench.trainer.checkpoint()
    assert bench.hashes() == {name: truth(*(frame(name, n) for n in range(4))) for name in "ab"}
    assert bench.value("streamlearn_hot_streams") == 1
    records = bench.kafka.read("updates", 0, 0, 99)
    headers = [update_codec.decode(r.value, r.key, r.headers).header for r in records]
    assert [(h.kind.value, h.version) for h in headers if h.stream == "a"] == [
        ("full", 1),
        ("delta", 2),
        ("delta", 3),
        ("delta", 4),
    ]


@pytest.mark.parametrize(("budget", "restored"), [(1 << 30, 0), (1 << 20, 0), (1, 3)])
def test_a_snapshot_is_the_same_wherever_its_stream_is(
    budget: int, restored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, just gone from there with room for what it said, or only on disk."""
    bench = Bench(budget=budget)
    for name in "abcd":
        bench.learn(message(frame(name, 0)))
    restore, loaded = StreamLearner.restore, []
    monkeypatch.setattr(
        StreamLearner, "restore", lambda *given: (loaded.append(1), restore(*given))[1]
    )
    bench.trainer.checkpoint()
    assert len(loaded) == restored
    assembler, found = update_codec.Assembler(), {}
    for record in bench.kafka.read("snapshots", 0, 0, 99):
        chunk = update_codec.decode(record.value, record.key, record.headers, role=Role.SNAPSHOTS)
        whole = assembler.add(chunk)
        if whole is not None and whole.update is not None:
            found[whole.update.stream] = whole.update.result_hash, whole.header.source_offset
    assert found == {name: (truth(frame(name, 0)), at) for at, name in enumerate("abcd")}


def test_predictions_come_where_they_are_wanted() -> None:
    bench = Bench(predictions=True)
    one, two = frame("a", 0), frame("a", 1)
    bench.learn(message(one), message(two))
    records = list(bench.kafka.read("predictions", 0, 0, 99))
    said = [prediction_codec.decode(r.value, r.key, r.headers) for r in records]
    assert [(p.model_version, p.source_offset, len(p.probabilities)) for p in said] == [
        (0, 0, len(one)),
        (1, 1, len(two)),
    ]
    assert list(Bench().kafka.read("predictions", 0, 0, 99)) == []


def test_kept_events_lie_in_the_store_as_they_came() -> None:
    """Each row is the event that the state beside it names as its cluster's member."""
    bench = Bench()
    frames = [frame("a", number) for number in range(60)]
    for one in frames[:40]:
        bench.learn(message(one))
    bench.trainer.checkpoint()
    for one in frames[40:]:
        bench.learn(message(one))
    bench.trainer.checkpoint()
    events = [(one, row) for one in frames for row in range(len(one))]
    partition = Partition(0, MemoryStore(bench.rows))
    stored = partition.state("a")
    assert stored is not None
    found = gallery(stored.state)
    rows = partition.kept("a")
    assert sorted(rows) == sorted(one.slot for one in found.shown)
    assert len(rows) == 40  # 20 a class
    for one in found.shown:
        kept = kept_codec.decode(rows[one.slot], "a")
        assert (kept.event, kept.why) == (one.event, one.why)
        came, row = events[one.event]
        assert kept.frame.numbers.tolist() == came.numbers[row : row + 1].tolist()
        assert kept.frame.labels() == came.labels()[row : row + 1] == (one.label,)
        assert kept.frame.event_time_s[0] == came.event_time_s[row] == one.event_time_s


def test_kept_rows_of_an_older_format_are_written_anew_when_the_store_is_opened() -> None:
    old = json.dumps({"x": 1.0, "label": "no", "event_time": 5.0}).encode()
    rows = {b"kept\0a\x003": old, b"kept\0a\x0012": old}
    Partition(0, MemoryStore(rows)).load()
    after = dict(rows)
    partition = Partition(0, MemoryStore(rows))
    partition.load()
    assert rows == after
    assert sorted(partition.kept("a")) == [3, 12]
    for row in partition.kept("a").values():
        kept = kept_codec.decode(row, "a")
        assert (kept.event, kept.why, kept.frame.labels()) == (None, None, ("no",))


def test_the_newest_state_is_found_in_the_topic_whoever_wrote_late() -> None:
    bench = Bench()
    bench.learn(message(frame("a", 0)), message(frame("b", 0)))
    bench.trainer.checkpoint()
    first = list(bench.kafka.read("state", 0, 0, 99))
    for number in range(1, 4):
        bench.learn(message(frame("a", number)))
        bench.trainer.checkpoint()
    found = newest_state(bench.kafka, "state", 0, "a")
    assert (found.epoch, found.source_offset) == (1, 4)
    assert found.state.meta["version"] == 4
    bench.trainer.own([], 2)
    bench.trainer.own([0], 2)
    known = bench.kafka.read("events", 0, 0, 99)
    again = [Arrival(r.offset, r.key, r.value, r.headers, r.timestamp_s) for r in known]
    bench.trainer.learn({0: again})
    bench.learn(message(frame("a", 4)))
    bench.trainer.checkpoint()
    for record in first:  # an old owner wakes up and writes: void
        late = Message(record.key, record.value, record.headers)
        bench.kafka.append("state", 0, late, bench.clock())
    found = newest_state(bench.kafka, "state", 0, "a")
    assert found.epoch > 1 and found.state.meta["version"] == 5
    with pytest.raises(InputError, match="checkpoint"):
        newest_state(bench.kafka, "state", 0, "nobody")


def test_lag_and_epochs_are_shown() -> None:
    bench = Bench()
    bench.learn(message(frame("a", 0)))
    bench.trainer.show_lag({0: 8, 5: 100})
    assert bench.value("streamlearn_lag_frames", partition="0") == 7
    assert bench.value("streamlearn_epoch", partition="0") == 1
    bench.trainer.publish_metrics()
    bench.trainer.checkpoint()
    assert len(list(bench.kafka.read("metrics", 0, 0, 9))) == 1


def test_streams_with_networks_learn_side_by_side_what_each_learns_alone() -> None:
    settings = replace(SETTINGS, network="all")
    bench = Bench(settings)
    sent = {name: [frame(name, n) for n in range(24)] for name in "abc"}
    bench.learn(*(message(sent[name][n]) for n in range(24) for name in "abc"))
    alone = {}
    for name, frames in sent.items():
        learner = StreamLearner(name, settings)
        for one in frames:
            learner.learn(one)
        fresh = StreamLearner(name, settings)
        fresh.learn(frames[0])
        weights = [one.model().tensors["network"] for one in (fresh, learner)]
        assert not np.array_equal(*weights)  # the inner loop has run
        alone[name] = learner.model().hash
    assert bench.hashes() == alone


def test_networks_that_diverge_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamlearn.core import adapt

    found = adapt._diverged
    monkeypatch.setattr(adapt, "_diverged", lambda *given: ~found(*given))  # each that doesn't
    settings = replace(SETTINGS, network="all")
    frames = [frame("a", n) for n in range(24)]
    learner = StreamLearner("a", settings)
    for one in frames:
        learner.learn(one)
    bench = Bench(settings)
    bench.learn(*map(message, frames))
    counted = bench.value("streamlearn_network_diverged_total")
    assert counted == learner.n_rolled_back > 0

"""Learner: one stream's test-then-learn, all stages in order.

In: frames. Out: an Outcome a frame, and at any time a Model and the state to go on from. A frame
is cut into steps of `step_events` events (a stream's first frame into shorter ones at first); each
step is tested with what was known before it, then learned:

1 predict      scores of all heads, mixtures, what is served; the recent means move on
2 grow         what the step brought: inputs (columns, missing flags, categories), texts, images,
               classes
3 score        prequential counts, drift
4 learn        pool, softmax heads, ridge statistics and solves, texts, label context, reservoir
5 scale        means and spreads of the inputs, for the next step

Only counts decide when something happens, and only (seed, stream, event count) draw: learning the
same frames again gives the same bits. Unlabelled events are predicted, and move the recent means,
the inputs' scale and the feature drift; nothing else learns from them.

With `late_labels` on, unlabelled events with an id are remembered (pending), and `learn_labels`
learns them when their labels come: scored by what was predicted when they came, learned with the
context (recent labels and means, scale) as it is now. An id is learned once.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.census import Census
from streamlearn.core.cohort import Adapts, Learning, adapter_of, finish
from streamlearn.core.drift import DriftMonitor
from streamlearn.core.encodings import Encodings
from streamlearn.core.grown import grown
from streamlearn.core.kept_images import MOST_ASKED, KeptImages, first_of_each
from streamlearn.core.mixture import Mixture, Tested
from streamlearn.core.model import MODEL_FORMAT, Model
from streamlearn.core.network_expert import LOGITS
from streamlearn.core.outcome import LateOutcome, LearnerState, Outcome
from streamlearn.core.pending import PendingEvents, frame_of, served_by
from streamlearn.core.preprocess import Input, Inputs, Standardiser
from streamlearn.core.prequential import Prequential, StepScore
from streamlearn.core.records import Frame, Label
from streamlearn.core.rehearsal import Rehearsal, Taken
from streamlearn.core.reservoir import stream_key
from streamlearn.core.ridge import EAGER_EVENTS, window_name
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.text import Texts
from streamlearn.core.text_head import texts_of
from streamlearn.core.threads import one_thread
from streamlearn.core.vision import MAX_IMAGE_COLUMNS, Images, images_of
from streamlearn.errors import StateError

__all__ = ["LateOutcome", "LearnerState", "Outcome", "StreamLearner"]

KEEP_EVENTS, KEEP_SHARE, KEEP_LONGEST = 256, 8, 2048  # labelled events between weighings of keep:
# at least KEEP_EVENTS, then this part of the events so far, at most KEEP_LONGEST
STATE_FORMAT = 6
_PLAIN_FORMAT = 5  # without encodings, as before there were any
_DEFAULTS = LearnerSettings()
_UNSEEN = -2  # code of a label value that is no class yet


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    served: NDArray[np.float32]  # (n, C before the step)
    predicted: NDArray[np.int32]  # (n,)
    score: StepScore
    event: NDArray[np.int64]  # (n,)
    kept: Taken
    predicted_keep: NDArray[np.int32] | None = None  # (n,)


class StreamLearner:
    """Tests and learns one stream, in fixed memory for given inputs and classes."""

    def __init__(self, stream: str, settings: LearnerSettings) -> None:
        self.stream = stream
        self.settings = settings
        self.version = 0  # frames learned, of late labels too
        self.n_events = 0
        self.prequential = Prequential()
        self.drift = DriftMonitor()
        key = stream_key(settings.seed, stream)
        self.rehearsal = Rehearsal(capacity=settings.reservoir_per_class, key=key)
        self._classes: dict[Label, int] = {}
        self._census = Census()
        self._inputs = Inputs()
        self._texts: tuple[str, ...] = ()  # columns that are read word by word
        self._images: tuple[str, ...] = ()  # image columns
        self._kept_images = KeptImages()
        self._encodings = Encodings()
        self._standardiser = Standardiser()
        self._mixture = Mixture(settings, key)
        self._pending: PendingEvents | None = None
        if settings.late_labels:
            self._pending = PendingEvents(
                capacity=settings.late_labels, max_age_s=settings.late_label_max_age_s
            )
        self._since_keep = 0  # labelled events since `keep` was weighed
        self._manifest: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[Label, ...]:
        """In order of appearance."""
        return tuple(self._classes)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads, in the order of their scores and weights."""
        return self._mixture.heads

    def learn(self, frame: Frame, *, keep: bool = False) -> Outcome:
        """`learning`, with the inner loop run here, on the CPU."""
        return finish(self.learning(frame, keep=keep), self._inner_loop)

    def learning(self, frame: Frame, *, keep: bool = False) -> Learning[Outcome]:
        """Test the frame's events, then learn them, step by step; `keep`: test that, too.

        Stops wherever the adapted network is to learn, with a request, and goes on with the
        result that is sent (`cohort`). Until it has ended, the learner is to be left alone.
        """
        if frame.stream != self.stream:
            raise ValueError(
                f"the learner of stream {self.stream!r} got a frame of {frame.stream!r}: "
                "each stream has a learner of its own"
            )
        if len(frame) == 0:
            raise ValueError(f"a frame of stream {self.stream!r} has no events: drop it")
        base_version, first_event = self.version, self.n_events
        admitted = None if self._pending is None else self._pending.admit(frame)
        frame = frame if admitted is None else admitted.frame
        lookup = self._lookup(frame)
        whole = None if self._new_columns(frame) else self._inputs.rows(frame)
        plain = whole is not None and not frame.texts and self._census.passes(whole)
        steps: list[_Step] = []
        cuts = step_cuts(len(frame), self.settings.step_events, first=self.version == 0)
        for start, stop in cuts:
            rows = None if whole is None else whole[start:stop]
            step = frame.rows(start, stop)
            with one_thread():
                steps.append(self._step(step, rows, lookup, plain=plain, keep=keep))
            yield from self._adapt()
        self.version += 1
        outcome = self._outcome(base_version, steps)
        if self._pending is None or admitted is None:
            return outcome
        columns = self._inputs.number_names
        said = outcome.probabilities, outcome.predicted
        self._pending.keep(admitted, *said, first_event, columns)
        return replace(outcome, n_repeated=admitted.n_repeated)

    def learn_labels(self, ids: Sequence[str], labels: Sequence[Label]) -> LateOutcome:
        """`learning_labels`, with the inner loop run here, on the CPU."""
        return finish(self.learning_labels(ids, labels), self._inner_loop)

    def learning_labels(self, ids: Sequence[str], labels: Sequence[Label]) -> Learning[LateOutcome]:
        """Learn remembered events, whose labels these are; a version if it is at least one.

        An id that is not remembered (any more), or was learned, is told, and changes nothing.
        """
        if len(ids) != len(labels):
            raise ValueError(f"{len(ids)} ids and {len(labels)} labels: each event has one")
        if self._pending is None:
            return LateOutcome(None, None, tuple(range(len(ids))), ())
        found = self._pending.take(ids)
        if not found.rows:
            return LateOutcome(None, None, found.unknown, found.repeated)
        frame = frame_of(
            self.stream,
            found.events,
            [ids[row] for row in found.rows],
            [labels[row] for row in found.rows],
            self._inputs.number_names,
        )
        numbers = np.array([event.event for event in found.events], np.int64)
        predicted = np.array([event.predicted for event in found.events], np.int32)
        lookup, size = self._lookup(frame), self.settings.step_events
        served = served_by(found.events, len(self._classes))
        steps: list[_Step] = []
        for start in range(0, len(frame), size):
            cut = slice(start, start + size)
            step = frame.rows(start, start + size)
            with one_thread():
                scored = self._late_step(step, numbers[cut], predicted[cut], lookup)
            score, kept = scored
            steps.append(_Step(served[cut], predicted[cut], score, numbers[cut], kept))
            yield from self._adapt()
        self.version += 1
        outcome = self._outcome(self.version - 1, steps)
        return LateOutcome(frame, outcome, found.unknown, found.repeated)

    def waiting(self, first: int, stop: int) -> Frame:
        """Events of the counts first..stop that are remembered and wait for their labels."""
        ids, events = ([], []) if self._pending is None else self._pending.waiting(first, stop)
        return frame_of(self.stream, events, ids, [None] * len(ids), self._inputs.number_names)

    def _late_step(
        self,
        step: Frame,
        events: NDArray[np.int64],
        predicted: NDArray[np.int32],
        lookup: NDArray[np.int32],
    ) -> tuple[StepScore, Taken]:
        """Steps 3 and 4 for remembered events: 1, 2 (but for classes) and 5 were done for them."""
        n_known = len(self._classes)
        codes, new_class = self._class_codes(step, lookup)
        if new_class:
            self._grow()
        rows, texts = self._inputs.rows(step), texts_of(step, self._texts)
        images = images_of(step, self._images)
        tested = self._mixture.recall(rows, texts, images, n_known)
        score = self.prequential.update(codes, predicted)
        wrong = (predicted != codes).astype(np.int8)
        self.drift.update(wrong, None, step.event_time_s)
        slots = self._learn(
            tested, rows, codes, texts, images, events, step.event_time_s, new_class
        )
        return score, slots

    def _lookup(self, frame: Frame) -> NDArray[np.int32]:
        """Class of each label code; the last is what code -1, unlabelled, finds."""
        known = [self._classes.get(value, _UNSEEN) for value in frame.label_values]
        return np.array([*known, -1], np.int32)

    def _step(
        self,
        step: Frame,
        rows: NDArray[np.float64] | None,
        lookup: NDArray[np.int32],
        *,
        plain: bool,
        keep: bool,
    ) -> _Step:
        """One step. `rows` None: it may bring new columns; lookup: class of each label code.

        `plain`: there is nothing for the census in it.
        """
        n_known = len(self._inputs)
        new = {} if rows is not None else dict.fromkeys(self._new_columns(step), 0)
        if rows is None or rows.shape[1] < n_known:
            rows = self._inputs.rows(step)
        images = images_of(step, self._images)
        tested = self._mixture.test(rows, texts_of(step, self._texts), images)  # 1
        predicted = _named(tested.served)
        by_keep = _named(self._mixture.keep(tested)) if keep else None
        codes, new_class = self._class_codes(step, lookup)
        learned = tested
        if not plain:
            numbers = rows[:, self._inputs.numbers]
            new |= self._census.count(step, numbers, codes, len(self._classes), self._inputs)
        if any((self._take_inputs(new), self._take_images(step), new_class)):  # 2
            rows = self._inputs.rows(step)
            self._standardiser.update(rows, n_known, len(self._inputs))
            self._publish_scale()
            self._grow()
            if self._texts:
                self._mixture.add_texts()
            images = images_of(step, self._images)
            learned = self._mixture.again(rows, texts_of(step, self._texts), images, tested)
        score = self.prequential.update(codes, predicted)  # 3
        wrong = np.where(codes < 0, -1, predicted != codes).astype(np.int8)
        self.drift.update(wrong, rows[:, self._inputs.numbers], step.event_time_s)
        texts = texts_of(step, self._texts)
        events, times = self.n_events + np.arange(len(step)), step.event_time_s
        kept = self._learn(  # 4
            learned, rows, codes, texts, images, events, times, new_class
        )
        self._standardiser.update(rows, 0, n_known)  # 5
        self._publish_scale()
        self.n_events += len(step)
        return _Step(tested.served, predicted, score, events, kept, by_keep)

    def _new_columns(self, frame: Frame) -> tuple[Input, ...]:
        return self._inputs.new_columns(frame, max_recent=self.settings.max_context_columns)

    def _class_codes(
        self, step: Frame, lookup: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], bool]:
        """Class of each event (n,), -1 where unlabelled; whether any class is new."""
        codes = lookup[step.label_codes]
        unseen = step.label_codes[codes == _UNSEEN]
        if not len(unseen):
            return codes, False
        for code in dict.fromkeys(unseen.tolist()):  # in order of appearance
            lookup[code] = self._classes.setdefault(step.label_values[code], len(self._classes))
        return lookup[step.label_codes], True

    def _take_inputs(self, new: Mapping[Input, int]) -> bool:
        """Add inputs, and in how many events they were 1; whether there are any, or new texts."""
        n_known, texts = len(self._inputs), self._texts
        if new:
            self._inputs = self._inputs.grown(list(new))
            self._standardiser.grow(self._inputs.inputs[n_known:], self.n_events, new)
        self._texts = self._census.text_columns
        return len(self._inputs) > n_known or self._texts != texts

    def _take_images(self, step: Frame) -> bool:
        """Add image columns that have their first image in this step; whether there are any."""
        new = [n for n, c in step.images.items() if n not in self._images and c.present.any()]
        n_known = len(self._images)
        self._images = (*self._images, *new)[:MAX_IMAGE_COLUMNS]
        return len(self._images) > n_known

    def _grow(self) -> None:
        """Room for all inputs, images and classes that there are now."""
        recent, n_images = self._inputs.recent, len(self._images)
        self._encodings = self._encodings_now()
        self._mixture.grow(len(self._inputs), recent, len(self._classes), n_images)
        if self.settings.network != "off" and n_images:
            self._mixture.add_network("conv")
        elif self.settings.network == "all" and len(self._inputs):
            self._mixture.add_network("mlp")
        self._manifest = None

    def _encodings_now(self) -> Encodings:
        texts = bool(self._texts) and not self._inputs.number_names
        return self._encodings.grown(texts=texts, n_images=len(self._images))

    def _publish_scale(self) -> None:
        experts = self._mixture.experts
        experts.mean = self._standardiser.mean
        experts.inverse_std = self._standardiser.inverse_std()

    def _learn(
        self,
        tested: Tested,
        rows: NDArray[np.float64],
        codes: NDArray[np.int32],
        texts: Texts,
        images: Images,
        events: NDArray[np.int64],
        event_time_s: NDArray[np.float64],
        new_class: bool,
    ) -> Taken:
        """Learn the labelled events. Returns where they were kept."""
        scale, encoded = self._mixture.experts.inverse_std, None
        with_each = self._mixture.network_blocks(tested)
        if self._encodings.width:
            scale = self._encodings.scale(scale, numbers=bool(self._inputs.number_names))
            encoded = self._mixture.encode(self._encodings, tested)
        kept = self.rehearsal.offer(rows, codes, events, event_time_s, scale, with_each, encoded)
        if texts:
            self.rehearsal.note_words(kept, texts)
        if self._images:
            taken = (kept.clusters >= 0) | (kept.uniform >= 0)
            self._kept_images.take(events, taken, images)
            if self._kept_images.is_full:
                self._kept_images.forget_others(self.rehearsal.events())
        labelled = np.flatnonzero(codes >= 0)
        if len(labelled):
            chosen = None if len(labelled) == len(codes) else labelled
            if chosen is not None:
                texts = {n: [t[i] for i in chosen.tolist()] for n, t in texts.items()}
            drifts = self.drift.report.n_drifts
            learned = tested, chosen, codes[labelled], texts
            self._mixture.learn(*learned, new_class=new_class, n_drifts=drifts)
            self._mixture.offer_network(tested, images, labelled, codes, events)
            self._since_keep += len(labelled)
            n = self._mixture.n
            wait = min(max(KEEP_EVENTS, n // KEEP_SHARE), KEEP_LONGEST)
            if self._since_keep >= wait or n <= EAGER_EVENTS or new_class:
                self.rehearsal.choose(self._encodings.compared(scale))
                self._weigh_keep()
                self._since_keep = 0
        return kept

    def _weigh_keep(self) -> None:
        kept = self.rehearsal.uniform.kept()
        rows = kept.rows[:, : len(self._inputs)]
        if not self._images:
            self._mixture.weigh_keep(rows, (), kept.codes)
            return
        asked = first_of_each(kept.codes, MOST_ASKED)
        images = self._kept_images.of(kept.event[asked], len(self._images))
        self._mixture.weigh_keep(rows[asked], images, kept.codes[asked])

    def _inner_loop(self) -> Adapts:
        return adapter_of(self.settings)

    def _adapt(self) -> Learning[None]:
        """Have the network learn what waits for it, if that is enough."""
        network = self._mixture.network
        while network is not None and (n := network.due()):
            with one_thread():
                draws = network.settings.steps * n  # as many as there are new, for each step
                learned = self._mixture.n - network.waiting  # events: another draw each time
                replay = self.rehearsal.replay(draws, learned, members=True)
                images = self._kept_images.of(replay.event, len(self._images))
                report = self.drift.report
                request = self._mixture.network_request(n, replay, images, report)
            result = yield request
            with one_thread():
                self.rehearsal.remember(LOGITS, *self._mixture.take_network(result))

    def _outcome(self, base_version: int, steps: Sequence[_Step]) -> Outcome:
        n_classes = len(self._classes)
        report = self.drift.report
        names = self._inputs.number_names
        by_keep = [step.predicted_keep for step in steps if step.predicted_keep is not None]
        return Outcome(
            base_version=base_version,
            probabilities=_joined([_widened(step.served, n_classes) for step in steps]),
            predicted=_joined([step.predicted for step in steps]),
            classes=self.classes,
            n_labelled=sum(step.score.n for step in steps),
            n_correct=sum(step.score.correct for step in steps),
            n_no_change_correct=sum(step.score.no_change for step in steps),
            n_no_change_delayed_correct=sum(step.score.no_change_delayed for step in steps),
            n_majority_correct=sum(step.score.majority for step in steps),
            drift=report.verdict,
            drift_report=report,
            drift_column=names[report.column] if 0 <= report.column < len(names) else "",
            heads=self.heads,
            head_weights=self._mixture.experts.weights,
            event=_joined([step.event for step in steps]),
            kept_slots=_joined([step.kept.clusters for step in steps]),
            kept_why=_joined([step.kept.why for step in steps]),
            trusted=self.rehearsal.trusted,
            recalls=dict(self.rehearsal.recalls),
            predicted_keep=_joined(by_keep) if len(by_keep) == len(steps) else None,
        )

    def model(self) -> Model:
        """The model after the frames learned so far; its tensors are its own."""
        if self._manifest is None:
            settings = self.settings
            self._manifest = {
                "format": MODEL_FORMAT,
                "inputs": self._inputs.as_json(),
                "texts": list(self._texts),
                "images": list(self._images),
                "network": self._mixture.network_kind,
                "classes": list(self._classes),
                "settings": {
                    "seed": settings.seed,
                    "random_features": settings.random_features,
                    "half_lives": list(settings.half_lives),
                    "label_decays": list(settings.label_decays),
                    "windows": [window_name(window) for window in settings.windows],
                    "softmax_rates": [f"{rate:g}" for rate in settings.softmax_rates],
                    "plain_rates": [f"{rate:g}" for rate in settings.plain_rates],
                    "trees": settings.trees,
                    "neighbours": settings.neighbours,
                    "stop_words": settings.stop_words,
                },
            }
        tensors = self._mixture.tensors()
        return Model(self.stream, self.version, self._manifest, tensors, self._mixture.slow)

    def state(self) -> LearnerState:
        """Everything needed to go on as if never stopped; arrays are copies."""
        parts = {
            "mixture": self._mixture.state(),
            "prequential": self.prequential.state(),
            "drift": self.drift.state(),
            "census": self._census.state(),
            "rehearsal": self.rehearsal.state(),
        }
        if self._pending is not None:
            sizes = len(self._classes), len(self._inputs.number_names)
            parts["pending"] = self._pending.state(*sizes)
        meta: dict[str, Any] = {
            "format": STATE_FORMAT if self._encodings.width else _PLAIN_FORMAT,
            "stream": self.stream,
            "settings": dict(_settings_json(self.settings)),
            "version": self.version,
            "n_events": self.n_events,
            "since_keep": self._since_keep,
            "inputs": self._inputs.as_json(),
            "images": list(self._images),
            "classes": list(self._classes),
        }
        if self._encodings.width:
            meta["encodings"] = self._encodings.as_json(self._mixture.slow)
        scale = self._standardiser
        arrays: dict[str, NDArray[Any]] = {
            "scale/count": scale.count.copy(),
            "scale/mean": scale.mean.copy(),
            "scale/squares": scale.squares.copy(),
        }
        for name, (part_meta, part_arrays) in parts.items():
            meta[name] = part_meta
            arrays |= {f"{name}/{key}": array for key, array in part_arrays.items()}
        if self._images:
            pixels = self._kept_images.state(self.rehearsal.events(), len(self._images))
            arrays |= {f"images/{key}": array for key, array in pixels.items()}
        return LearnerState(meta, arrays)

    @classmethod
    def restore(cls, state: LearnerState, settings: LearnerSettings) -> "StreamLearner":
        """Go on, to the bit, from what `state` gave. StateError where it doesn't fit."""
        meta, arrays = state.meta, state.arrays
        if meta.get("format") not in (_PLAIN_FORMAT, STATE_FORMAT):
            raise StateError(
                f"a learner's state of format {meta.get('format')!r}, and this program reads "
                f"{_PLAIN_FORMAT} and {STATE_FORMAT}: learn the stream again from the log"
            )
        then = {**_settings_json(_DEFAULTS), **meta.get("settings", {})}
        if then != _settings_json(settings):  # settings that are newer than the state: defaults
            raise StateError(
                f"the state of stream {meta.get('stream')!r} was learned with settings "
                f"{meta.get('settings')}, now they are {_settings_json(settings)}: put the old "
                "ones back, or learn the stream again from the log"
            )
        try:
            return cls._restore(meta, arrays, settings)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise StateError(
                f"the state of stream {meta.get('stream')!r} is not whole: {error!r}; "
                "learn the stream again from the log"
            ) from error

    @classmethod
    def _restore(
        cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], settings: LearnerSettings
    ) -> "StreamLearner":
        learner, parts = cls(str(meta["stream"]), settings), _by_part(arrays)
        learner.version, learner.n_events = int(meta["version"]), int(meta["n_events"])
        learner._since_keep = int(meta["since_keep"])
        learner._inputs = Inputs.from_json(meta["inputs"])
        learner._census = Census.restore(meta["census"], parts["census"])
        learner._texts = learner._census.text_columns
        learner._images = tuple(str(name) for name in meta["images"])
        if learner._images:
            learner._kept_images = KeptImages.restore(parts["images"])
        learner._classes = {label: code for code, label in enumerate(meta["classes"])}
        scale = learner._standardiser
        scale.count, scale.mean, scale.squares = (
            np.array(parts["scale"][name], np.float64) for name in ("count", "mean", "squares")
        )
        learner._mixture.resume(meta["mixture"], parts["mixture"])
        learner._publish_scale()
        learner.prequential = Prequential.restore(meta["prequential"], parts["prequential"])
        learner.drift = DriftMonitor.restore(meta["drift"], parts["drift"])
        learner.rehearsal = Rehearsal.restore(meta["rehearsal"], parts["rehearsal"])
        learner._take_encodings(meta.get("encodings"))
        if learner._pending is not None:
            learner._pending.resume(parts["pending"])
        shapes = {len(learner._inputs), learner._mixture.experts.layout.n_inputs, len(scale.mean)}
        if len(shapes) != 1 or len(learner._classes) != learner._mixture.experts.n_classes:
            raise ValueError(f"inputs {sorted(shapes)}, classes {learner._classes}")
        if bool(learner._texts) != (learner._mixture.text is not None):
            raise ValueError(f"texts {learner._texts}")
        if len(learner._images) != int(meta["mixture"]["n_images"]):
            raise ValueError(f"images {learner._images}")
        return learner

    def _take_encodings(self, meta: Mapping[str, Any] | None) -> None:
        """Those of a state, which may be of another version: then kept events are encoded anew."""
        self._encodings = Encodings.from_json(meta)
        now = self._encodings_now()
        if now.width and now.as_json(self._mixture.slow) != meta:
            self._encodings = now
            self.rehearsal.renew(self._encoded_again)

    def _encoded_again(self, events: NDArray[np.int64]) -> NDArray[np.float64]:
        """(m, w) of kept events, by their images; what they said is not kept whole."""
        images = self._kept_images.of(events, len(self._images))
        return self._mixture.encode_images(self._encodings, images, len(events))


@lru_cache(maxsize=8)
def step_cuts(n: int, step_events: int, *, first: bool) -> list[tuple[int, int]]:
    """Start and stop of each step of a frame of n events.

    A stream's first frame begins with steps of 1, 1, 2, 4, ... events, so that all but its
    first event are tested by something; a stream may not have many frames.

    >>> step_cuts(20, 8, first=True)
    [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 20)]
    """
    cuts: list[tuple[int, int]] = []
    start = 0
    while start < n:
        longest = max(start, 1) if first else n
        stop = min(start + min(longest, step_events), n)
        cuts.append((start, stop))
        start = stop
    return cuts


def _named(probabilities: NDArray[np.float32]) -> NDArray[np.int32]:
    """(n,) the likeliest class; -1 where there is none yet."""
    if not probabilities.shape[1]:
        return np.full(len(probabilities), -1, np.int32)
    return np.asarray(probabilities.argmax(axis=1), np.int32)


@lru_cache(maxsize=8)
def _settings_json(settings: LearnerSettings) -> Mapping[str, Any]:
    """JSON-able and exact; infinity by name, since JSON has none. Shared: not to be changed."""
    values = asdict(settings)
    del values["network_device"]  # where it is learned, not what
    values["windows"] = [window_name(window) for window in settings.windows]
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _by_part(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    """The arrays of each part, by the rest of their names; a part may have none."""
    parts: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
    for name, array in arrays.items():
        first, _, rest = name.partition("/")
        parts[first][rest] = array
    return parts


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _widened(served: NDArray[np.float32], n_classes: int) -> NDArray[np.float32]:
    """(n, n_classes): classes that were unknown when the step was served have 0."""
    missing = n_classes - served.shape[1]
    return grown(served, 0, missing) if missing else served

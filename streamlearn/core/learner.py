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
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.cohort import Adapts, Learning, adapter_of, finish
from streamlearn.core.drift import DriftMonitor
from streamlearn.core.memory import Memory
from streamlearn.core.mixture import Mixture
from streamlearn.core.model import MODEL_FORMAT, Model
from streamlearn.core.network_expert import LOGITS
from streamlearn.core.outcome import LateOutcome, LearnerState, Outcome
from streamlearn.core.pending import PendingEvents, frame_of, served_by
from streamlearn.core.prequential import Prequential, StepScore
from streamlearn.core.records import Frame, Label
from streamlearn.core.rehearsal import Rehearsal, Taken
from streamlearn.core.reservoir import stream_key
from streamlearn.core.ridge import window_name
from streamlearn.core.schema import Schema
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.steps import Step, named, outcome_of, step_cuts
from streamlearn.core.tested import Tested
from streamlearn.core.text import Texts
from streamlearn.core.threads import one_thread
from streamlearn.core.vision import Images
from streamlearn.errors import StateError

__all__ = ["LateOutcome", "LearnerState", "Outcome", "StreamLearner"]

STATE_FORMAT = 6
_PLAIN_FORMAT = 5  # without encodings, as before there were any
_DEFAULTS = LearnerSettings()


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
        self._memory = Memory(capacity=settings.reservoir_per_class, key=key)
        self._schema = Schema(max_recent=settings.max_context_columns)
        self._mixture = Mixture(settings, key)
        self._pending: PendingEvents | None = None
        if settings.late_labels:
            self._pending = PendingEvents(
                capacity=settings.late_labels, max_age_s=settings.late_label_max_age_s
            )
        self._manifest: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[Label, ...]:
        """In order of appearance."""
        return tuple(self._schema.classes)

    @property
    def rehearsal(self) -> Rehearsal:
        """The samples of its past."""
        return self._memory.rehearsal

    @property
    def n_rolled_back(self) -> int:
        """Inner loops that diverged: its network went back to the weights before each."""
        network = self._mixture.network
        return 0 if network is None else network.n_rolled_back

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
        schema = self._schema
        lookup = schema.lookup(frame)
        whole = None if schema.new_columns(frame) else schema.inputs.rows(frame)
        plain = whole is not None and schema.passes(frame, whole)
        steps: list[Step] = []
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
        columns = schema.inputs.number_names
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
            self._schema.inputs.number_names,
        )
        numbers = np.array([event.event for event in found.events], np.int64)
        predicted = np.array([event.predicted for event in found.events], np.int32)
        lookup, size = self._schema.lookup(frame), self.settings.step_events
        served = served_by(found.events, len(self._schema.classes))
        steps: list[Step] = []
        for start in range(0, len(frame), size):
            cut = slice(start, start + size)
            step = frame.rows(start, start + size)
            with one_thread():
                scored = self._late_step(step, numbers[cut], predicted[cut], lookup)
            score, kept = scored
            steps.append(Step(served[cut], predicted[cut], score, numbers[cut], kept))
            yield from self._adapt()
        self.version += 1
        outcome = self._outcome(self.version - 1, steps)
        return LateOutcome(frame, outcome, found.unknown, found.repeated)

    def waiting(self, first: int, stop: int) -> Frame:
        """Events of the counts first..stop that are remembered and wait for their labels."""
        ids, events = ([], []) if self._pending is None else self._pending.waiting(first, stop)
        return frame_of(
            self.stream, events, ids, [None] * len(ids), self._schema.inputs.number_names
        )

    def _late_step(
        self,
        step: Frame,
        events: NDArray[np.int64],
        predicted: NDArray[np.int32],
        lookup: NDArray[np.int32],
    ) -> tuple[StepScore, Taken]:
        """Steps 3 and 4 for remembered events: 1, 2 (but for classes) and 5 were done for them."""
        schema, n_known = self._schema, len(self._schema.classes)
        codes, new_class = schema.class_codes(step, lookup)
        if new_class:
            self._grow()
        rows, (texts, images) = schema.inputs.rows(step), schema.read(step)
        tested = self._mixture.recall(rows, texts, images, n_known)
        score = self.prequential.update(codes, predicted)
        wrong = (predicted != codes).astype(np.int8)
        self.drift.update(wrong, None, step.event_time_s)
        slots = self._learn(
            tested, rows, codes, texts, images, events, step.event_time_s, new_class
        )
        return score, slots

    def _step(
        self,
        step: Frame,
        rows: NDArray[np.float64] | None,
        lookup: NDArray[np.int32],
        *,
        plain: bool,
        keep: bool,
    ) -> Step:
        """One step. `rows` None: it may bring new columns; lookup: class of each label code.

        `plain`: there is nothing for the census in it.
        """
        schema, n_known = self._schema, len(self._schema.inputs)
        new = {} if rows is not None else dict.fromkeys(schema.new_columns(step), 0)
        if rows is None or rows.shape[1] < n_known:
            rows = schema.inputs.rows(step)
        texts, images = schema.read(step)
        tested = self._mixture.test(rows, texts, images)  # 1
        predicted = named(tested.served)
        by_keep = named(self._mixture.keep(tested)) if keep else None
        codes, new_class = schema.class_codes(step, lookup)
        learned = tested
        if not plain:
            new |= schema.count(step, rows, codes)
        if schema.grow(step, new, self.n_events) or new_class:  # 2
            rows, (texts, images) = schema.inputs.rows(step), schema.read(step)
            schema.standardiser.update(rows, n_known, len(schema.inputs))
            self._publish_scale()
            self._grow()
            if schema.texts:
                self._mixture.add_texts()
            learned = self._mixture.again(rows, texts, images, tested)
        score = self.prequential.update(codes, predicted)  # 3
        wrong = np.where(codes < 0, -1, predicted != codes).astype(np.int8)
        self.drift.update(wrong, rows[:, schema.inputs.numbers], step.event_time_s)
        events, times = self.n_events + np.arange(len(step)), step.event_time_s
        kept = self._learn(  # 4
            learned, rows, codes, texts, images, events, times, new_class
        )
        schema.standardiser.update(rows, 0, n_known)  # 5
        self._publish_scale()
        self.n_events += len(step)
        return Step(tested.served, predicted, score, events, kept, by_keep)

    def _grow(self) -> None:
        """Room for all inputs, images and classes that there are now."""
        schema, n_images = self._schema, len(self._schema.images)
        self._memory.grow(texts=schema.is_text_alone, n_images=n_images)
        inputs = schema.inputs
        self._mixture.grow(len(inputs), inputs.recent, len(schema.classes), n_images)
        if self.settings.network != "off" and n_images:
            self._mixture.add_network("conv")
        elif self.settings.network == "all" and len(inputs):
            self._mixture.add_network("mlp")
        self._manifest = None

    def _publish_scale(self) -> None:
        experts = self._mixture.experts
        experts.mean = self._schema.standardiser.mean
        experts.inverse_std = self._schema.standardiser.inverse_std()

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
        numbers, n_images = self._schema.has_numbers, len(self._schema.images)
        given = rows, codes, events, event_time_s, texts, images
        kept = self._memory.offer(self._mixture, tested, *given, numbers=numbers)
        labelled = np.flatnonzero(codes >= 0)
        if len(labelled):
            chosen = None if len(labelled) == len(codes) else labelled
            if chosen is not None:
                texts = {n: [t[i] for i in chosen.tolist()] for n, t in texts.items()}
            drifts = self.drift.report.n_drifts
            learned = tested, chosen, codes[labelled], texts
            self._mixture.learn(*learned, new_class=new_class, n_drifts=drifts)
            self._mixture.offer_network(tested, images, labelled, codes, events)
            self._memory.review(
                self._mixture,
                len(labelled),
                new_class=new_class,
                numbers=numbers,
                n_images=n_images,
            )
        return kept

    def _inner_loop(self) -> Adapts:
        return adapter_of(self.settings)

    def _adapt(self) -> Learning[None]:
        """Have the network learn what waits for it, if that is enough."""
        network = self._mixture.network
        while network is not None and (n := network.due()):
            with one_thread():
                draws = network.settings.steps * n  # as many as there are new, for each step
                learned = self._mixture.n - network.waiting  # events: another draw each time
                replayed = self._memory.replay(draws, learned, len(self._schema.images))
                request = self._mixture.network_request(n, *replayed, self.drift.report)
            result = yield request
            with one_thread():
                self.rehearsal.remember(LOGITS, *self._mixture.take_network(result))

    def _outcome(self, base_version: int, steps: Sequence[Step]) -> Outcome:
        return outcome_of(
            steps,
            base_version=base_version,
            classes=self.classes,
            report=self.drift.report,
            columns=self._schema.inputs.number_names,
            heads=self.heads,
            head_weights=self._mixture.experts.weights,
            rehearsal=self.rehearsal,
        )

    def model(self) -> Model:
        """The model after the frames learned so far; its tensors are its own."""
        if self._manifest is None:
            settings = self.settings
            self._manifest = {
                "format": MODEL_FORMAT,
                **self._schema.as_json(),
                "network": self._mixture.network_kind,
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
        }
        if self._pending is not None:
            sizes = len(self._schema.classes), len(self._schema.inputs.number_names)
            parts["pending"] = self._pending.state(*sizes)
        meta: dict[str, Any] = {
            "format": STATE_FORMAT if self._memory.encodings.width else _PLAIN_FORMAT,
            "stream": self.stream,
            "settings": dict(_settings_json(self.settings)),
            "version": self.version,
            "n_events": self.n_events,
        }
        known, arrays = self._schema.state()
        remembered, kept = self._memory.state(self._mixture, len(self._schema.images))
        for name, (part_meta, part_arrays) in parts.items():
            meta[name] = part_meta
            arrays |= {f"{name}/{key}": array for key, array in part_arrays.items()}
        return LearnerState(meta | known | remembered, arrays | kept)

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
        learner._schema.resume(meta, parts)
        learner._mixture.resume(meta["mixture"], parts["mixture"])
        learner._publish_scale()
        learner.prequential = Prequential.restore(meta["prequential"], parts["prequential"])
        learner.drift = DriftMonitor.restore(meta["drift"], parts["drift"])
        schema, experts = learner._schema, learner._mixture.experts
        n_images = len(schema.images)
        learner._memory.resume(
            meta, parts, learner._mixture, texts=schema.is_text_alone, n_images=n_images
        )
        if learner._pending is not None:
            learner._pending.resume(parts["pending"])
        if len(schema.inputs) != experts.layout.n_inputs:
            raise ValueError(f"{len(schema.inputs)} inputs")
        if len(schema.classes) != experts.n_classes:
            raise ValueError(f"classes {schema.classes}")
        if bool(schema.texts) != (learner._mixture.text is not None):
            raise ValueError(f"texts {schema.texts}")
        if n_images != int(meta["mixture"]["n_images"]):
            raise ValueError(f"images {schema.images}")
        return learner


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

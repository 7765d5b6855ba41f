"""Experts, learning: what turns tested and labelled events into the heads' next weights.

In: rows, then their class codes. Out: the `Experts` that the next step, and every subscriber,
predicts with. Experts holds what prediction needs; here lies the rest: the ridge heads'
statistics, rows waiting for them, and the pool's likelihoods.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from streamlearn.core import network_input
from streamlearn.core.adaptation import AdaptRequest, AdaptResult
from streamlearn.core.drift import DriftReport
from streamlearn.core.encodings import Encodings
from streamlearn.core.experts import Experts, stacked
from streamlearn.core.features import (
    Layout,
    SlowWeights,
    draw_slow,
    input_scale,
    label_rows,
    move_labels,
    project,
    random_width,
    rates_of,
    slow_size,
)
from streamlearn.core.grown import grown
from streamlearn.core.local_heads import FIRST_STACK as FIRST_LOCAL
from streamlearn.core.local_heads import LocalHeads, local_heads
from streamlearn.core.network_expert import NetworkExpert
from streamlearn.core.network_head import (
    NETWORK,
    NETWORK_HEADS,
    NetworkHead,
    adapt_settings,
    spec_of,
)
from streamlearn.core.network_spec import NetworkSpec
from streamlearn.core.pool import STACK_SUM, Pool
from streamlearn.core.rehearsal import Replay
from streamlearn.core.ridge_heads import RidgeHeads, resting_heads, ridge_heads
from streamlearn.core.roster import CHEAP, DEAR, Roster
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.softmax_heads import SoftmaxHeads
from streamlearn.core.tested import Tested, scores_now
from streamlearn.core.text import Texts
from streamlearn.core.text_head import (
    FIRST_STACK,
    TEXT_HEADS,
    TextHead,
    keep_with_texts,
)
from streamlearn.core.vision import Images, Vision


@lru_cache(maxsize=8)
def head_names(settings: LearnerSettings) -> tuple[str, ...]:
    """The K heads in the order of their scores: "ridge/a/100" ... "neighbours/log"."""
    return (*view_heads(settings), *local_heads(settings.trees, settings.neighbours))


@lru_cache(maxsize=8)
def view_heads(settings: LearnerSettings) -> tuple[str, ...]:
    """Those whose weights are a matrix each: "ridge/a/100" ... "softmax/z/0.02"."""
    return (
        *ridge_heads(settings.windows),
        *(f"softmax/{rate:g}" for rate in settings.softmax_rates),
        *(f"softmax/z/{rate:g}" for rate in settings.plain_rates),
    )


class Mixture:
    """All heads of one stream and their pool, learning."""

    def __init__(self, settings: LearnerSettings, key: int) -> None:
        """`key` stands for (seed, stream): what texts draw follows from it."""
        self.settings = settings
        self.key = key
        self.heads = head_names(settings)
        self.text: TextHead | None = None
        self.n = 0  # labelled events learned
        self.network: NetworkExpert | None = None
        self.slow = self._draw_slow(0)
        self.scale = np.zeros((2, 0), np.float32)
        self.local = LocalHeads(settings, key)
        at = len(view_heads(settings))
        self.pool, self.roster = Pool(at, len(settings.windows)), Roster()
        for head in resting_heads(settings.windows):
            self.roster.add(head, self.heads.index(head), 1, CHEAP)
        for name in self.local.parts:
            self.roster.add(name, len(self.pool.likelihood), len(FIRST_LOCAL), CHEAP)
            self.pool.grow(FIRST_LOCAL)
        self._decays = np.array(settings.label_decays, np.float64)
        self.softmax = SoftmaxHeads(settings.softmax_rates, settings.plain_rates)
        self.experts = self._first_experts()
        layout = self.experts.layout
        self.ridge = RidgeHeads(settings.windows, (layout.n_a, layout.n_b))

    def _draw_slow(self, n_inputs: int, *, images: bool = False) -> SlowWeights:
        settings = self.settings
        n_random, n_half_lives = settings.random_features, len(settings.half_lives)
        size, spec = slow_size(n_inputs), None
        if self.network is not None:
            spec = replace(self.network.spec, classes=2)  # the head has no part in it
        drawn = (settings.seed, n_random, n_half_lives, size)
        return draw_slow(*drawn, images=images, network=spec)

    def _first_experts(self) -> Experts:
        settings, empty = self.settings, np.zeros(0)
        h, k = len(settings.half_lives), len(settings.label_decays)
        layout = Layout(0, 0, (), h, 0, 1 + k)
        self.softmax.grow(layout, layout, 0)
        return Experts(
            layout=layout,
            projections=project(self.slow, layout, self.scale),
            rates=rates_of(settings.half_lives),
            mean=empty,
            inverse_std=empty,
            recent_means=np.zeros((h, 0)),
            labels=np.zeros((0, 1 + k)),
            ridge_a=np.zeros((layout.n_a, 0), np.float32),
            ridge_b=np.zeros((layout.n_b, 0), np.float32),
            softmax=self.softmax.weights,
            weights=self.pool.weights(),
            stack=self.pool.stack,
            serve=self.pool.serve(),
            keep=self.pool.keep,
            n_classes=0,
            local=self.local.reader(self.roster),
        )

    def test(self, rows: NDArray[np.float64], texts: Texts, images: Images) -> Tested:
        """Predict rows (n, d), texts and images as the next events; recent means move past them."""
        experts = self.experts
        before = experts.recent_means.copy()
        seen = experts.see(images, len(rows))
        features = experts.features(rows, seen, experts.recent_means)
        grams = self._grams(texts)
        if experts.n_classes == 0:
            n, k = len(rows), len(self.heads)
            empty = np.zeros((n, 0), np.float32)
            none = empty.reshape(n, k, 0), np.zeros((n, 3, 0)), empty
            return Tested(before, features, *none, 0, self.heads, grams)
        network = experts.network_logits(features, images)
        scores = experts.scores(features, experts.gram_logs(grams), network)
        mixed, served = experts.mix(scores)
        return Tested(before, features, scores, mixed, served, experts.n_classes, self.heads, grams)

    def _grams(self, texts: Texts) -> csr_array | None:
        return None if self.text is None else self.text.expert.grams(texts)

    def encode(self, encodings: Encodings, tested: Tested) -> NDArray[np.float64]:
        """(n, w) what the events' images and texts are like."""
        blocks = tested.features[:, : self.experts.layout.image_width]
        given = self.slow, tested.grams, self.settings.seed
        return encodings.of(len(blocks), blocks, *given)

    def encode_images(self, encodings: Encodings, images: Images, n: int) -> NDArray[np.float64]:
        """(n, w) the same of n events' images alone."""
        return encodings.of(n, self.experts.see(images, n), self.slow, None, self.settings.seed)

    def keep(self, tested: Tested) -> NDArray[np.float32]:
        """(n, C) what `keep` says of a tested step, before it is learned."""
        kept = self.experts.keep_numbers(tested.scores)
        if self.text is None:
            return kept
        return keep_with_texts(kept, tested.scores, self.experts.text_share)

    def recall(
        self, rows: NDArray[np.float64], texts: Texts, images: Images, n_known: int
    ) -> Tested:
        """Scores, now, of events whose labels came late; each on its own, and nothing moves.

        `n_known`: classes that were known before these labels.
        """
        experts = self.experts
        features = experts.features(rows, experts.see(images, len(rows)))
        network = experts.network_logits(features, images)
        grams = self._grams(texts)
        scores = experts.scores(features, experts.gram_logs(grams), network)
        mixed, served = experts.mix(scores)
        before = experts.recent_means.copy()
        return Tested(before, features, scores, mixed, served, n_known, self.heads, grams)

    def grow(self, n_inputs: int, recent: tuple[int, ...], n_classes: int, n_images: int) -> None:
        """Room for more inputs, classes and image columns; what was learned stays."""
        old, experts, settings = self.experts.layout, self.experts, self.settings
        h, k = old.n_half_lives, old.n_label_features
        n_random = random_width(settings.random_features, n_inputs)
        new_inputs = n_inputs - old.n_inputs
        if new_inputs or (n_images and experts.vision is None):
            self.slow = self._draw_slow(n_inputs, images=n_images > 0)
        if n_images and experts.vision is None:
            experts.vision = Vision(self.slow.tensors)
        width = n_images * experts.vision.width if experts.vision is not None else 0
        layout = Layout(n_random, n_inputs, recent, h, label_rows(n_classes), k, width)
        if new_inputs:
            self.scale = np.concatenate([self.scale, input_scale(layout, new_inputs)], axis=1)
            more = len(recent) - len(old.recent)
            experts.recent_means = grown(experts.recent_means, 0, more)
        positions = old.positions_in(layout)
        a, b = positions[old.a] - layout.a.start, positions[old.b] - layout.b.start
        self.ridge.grow((a, b), (layout.n_a, layout.n_b), n_classes)
        self.softmax.grow(old, layout, n_classes)
        experts.softmax = self.softmax.weights
        experts.labels = grown(experts.labels, layout.n_classes - old.n_classes)
        self.local.grow(old, layout, n_classes, self.n)
        experts.local = self.local.reader(self.roster)
        experts.layout, experts.n_classes = layout, n_classes
        if self.network is not None:
            self.network.grow(self._network_spec(self.network.spec.kind), n_classes)
            self._draw_slow_again()
        experts.projections = project(self.slow, layout, self.scale)
        self._take_ridge_weights()
        self._take_network()
        if self.text is not None:
            self.text.grow(n_classes)
            self._take_text()

    def add_network(self, kind: str) -> None:
        """The stream has an adapted network from now on: one more head, before the texts'.

        `kind` "mlp" or "conv"; the first one stays.
        """
        if self.network is None:
            spec = self._network_spec(kind)
            self.network = NetworkExpert(
                spec, key=self.key, settings=adapt_settings(self.settings, spec)
            )
            self.network.grow(spec, self.experts.n_classes)
            self._add_network_heads()

    @property
    def network_kind(self) -> str | None:
        """ "mlp", "conv", or None, for a model's manifest."""
        return None if self.network is None else self.network.spec.kind

    def _network_spec(self, kind: str) -> NetworkSpec:
        experts = self.experts
        classes = max(experts.n_classes, 1)
        return spec_of(kind, experts.layout, seed=self.settings.seed, classes=classes)

    def _add_network_heads(self) -> None:
        at = len(head_names(self.settings))
        self.heads = (*self.heads[:at], *NETWORK_HEADS, *self.heads[at:])
        first = STACK_SUM / len(view_heads(self.settings))
        self.pool.grow((first,) * len(NETWORK_HEADS), at=at)
        self.roster.add(NETWORK, at, len(NETWORK_HEADS), DEAR)
        self._draw_slow_again()
        self.experts.projections = project(self.slow, self.experts.layout, self.scale)
        self._take_pool()
        self._take_network()

    def _draw_slow_again(self) -> None:
        """With the network's layers as they are now."""
        images = self.experts.vision is not None
        self.slow = self._draw_slow(self.experts.layout.n_inputs, images=images)

    def _take_network(self) -> None:
        self.experts.network = None
        if self.network is not None and self.roster.is_awake(NETWORK):
            network = self.network.network(part(self.slow.tensors, "network/"))
            self.experts.network = NetworkHead(network, self.scale[1])

    def add_texts(self) -> None:
        """The stream has texts from now on: two more heads."""
        if self.text is None:
            self.text = TextHead.new(self.settings, self.key)
            self.text.grow(self.experts.n_classes)
            self._add_text_heads()

    def _add_text_heads(self) -> None:
        self.heads = (*self.heads, *TEXT_HEADS)
        self.pool.grow(FIRST_STACK)
        self._take_pool()
        self._take_text()

    def again(
        self, rows: NDArray[np.float64], texts: Texts, images: Images, tested: Tested
    ) -> Tested:
        """The same step after `grow`: features of the new layout, and no score for new classes."""
        experts = self.experts
        r = tested.recent_before.shape[1]
        recent_means = np.zeros_like(experts.recent_means)
        recent_means[:, :r] = tested.recent_before
        features = experts.features(rows, experts.see(images, len(rows)), recent_means)
        experts.recent_means = recent_means
        more = experts.n_classes - tested.served.shape[1]
        return Tested(
            tested.recent_before,
            features,
            self._scores_again(tested),
            grown(tested.mixed, 0, 0, more),
            grown(tested.served, 0, more),
            tested.n_classes,
            self.heads,
            self._grams(texts),  # of columns that were not read as texts before, too
        )

    def _scores_again(self, tested: Tested) -> NDArray[np.float32]:
        experts, at = self.experts, len(head_names(self.settings))
        wider = scores_now(tested, self.heads, experts.n_classes, experts.weights, at)
        self.local.widen(wider, len(view_heads(self.settings)), tested.n_classes)
        return wider

    def learn(
        self,
        tested: Tested,
        labelled: NDArray[np.intp] | None,
        codes: NDArray[np.int32],
        texts: Texts,
        *,
        new_class: bool,
        n_drifts: int = 0,
    ) -> None:
        """Learn the events `labelled` (None: all) of a tested step: classes `codes`, texts (m,).

        `n_drifts`: of the stream so far.
        """
        experts = self.experts
        features, scores, mixed = tested.features, tested.scores, tested.mixed
        if labelled is not None:
            features, scores, mixed = features[labelled], scores[labelled], mixed[labelled]
        if tested.n_classes:
            known = codes < tested.n_classes  # nobody is to blame for what nobody could know
            told = scores[known], mixed[known], codes[known]
            self.roster.learn(*told, experts.weights, experts.stack, experts.serve)
            self.pool.learn(*told)
        self._review(len(codes), n_drifts, new_class)
        self._take_pool()
        if self.text is not None:
            if tested.n_classes:
                self.text.weigh(experts.keep_numbers(scores), scores, codes)
            grams = tested.grams
            if labelled is not None and grams is not None:
                grams = grams[labelled]
            self.text.learn(texts, codes, grams)
            self._take_text()
        self.softmax.learn(features, experts.layout, codes)
        self.local.learn(features, experts.layout, codes, self.n, self.roster)
        experts.local = self.local.reader(self.roster)
        a = np.ascontiguousarray(features[:, experts.layout.a])
        b = np.ascontiguousarray(features[:, experts.layout.b])
        self.n += len(codes)
        if self.ridge.learn(a, b, codes, self.n, new_class=new_class):
            self._take_ridge_weights()
        move_labels(experts.labels, self._decays, codes)

    def _review(self, n_events: int, n_drifts: int, new_class: bool) -> None:
        """Who brings nothing falls asleep, whose time has come wakes: from the next step on."""
        for part in self.roster.review(n_events, n_drifts, new_class=new_class):
            move = self.pool.wake if part.awake else self.pool.rest
            move(part.first, part.last)
            if part.name == NETWORK:
                self._take_network()
            self.ridge.take(self.roster)

    def network_blocks(self, tested: Tested) -> dict[str, NDArray[np.float32]]:
        """What is to be kept with each event for the network: what it reads of numbers."""
        if self.network is None:
            return {}
        return network_input.blocks_to_keep(
            self.network, tested.features, self.experts.layout, self.scale[1]
        )

    def offer_network(
        self,
        tested: Tested,
        images: Images,
        labelled: NDArray[np.intp],
        codes: NDArray[np.int32],
        events: NDArray[np.int64],
    ) -> None:
        """Let the network wait for more of the events `labelled`, of classes `codes` (n,)."""
        if self.network is not None and self.roster.is_awake(NETWORK):
            read = tested.features, images, self.experts.layout, self.scale[1]
            network_input.offer(self.network, *read, labelled, codes, events)

    def network_request(
        self, n: int, replay: Replay, images: Images, report: DriftReport
    ) -> AdaptRequest:
        """The oldest `n` events that wait, with those that are replayed, and their `images`."""
        assert self.network is not None
        return network_input.request(self.network, n, replay, images, report)

    def take_network(self, result: AdaptResult) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Predict with what the inner loop made of a request; its events and their logits now."""
        assert self.network is not None
        self.network.take(result)
        self._take_network()
        return self.network.said(part(self.slow.tensors, "network/"))

    def weigh_keep(
        self, rows: NDArray[np.float64], images: Images, codes: NDArray[np.int32]
    ) -> None:
        """Weigh view a's heads anew by how well they recall the reservoir's events."""
        experts = self.experts
        features = experts.features(rows, experts.see(images, len(rows)))
        scores = features[:, experts.layout.a] @ experts.ridge_a
        self.pool.set_keep(scores.reshape(len(rows), -1, experts.n_classes), codes)
        experts.keep = self.pool.keep

    def _take_pool(self) -> None:
        experts, pool = self.experts, self.pool
        experts.weights, experts.stack, experts.serve = pool.weights(), pool.stack, pool.serve()

    def _take_text(self) -> None:
        if self.text is not None:
            self.experts.text, self.experts.text_share = self.text.expert.view(), self.text.share

    def _take_ridge_weights(self) -> None:
        a, b = self.ridge.views
        self.experts.ridge_a, self.experts.ridge_b = stacked(a.weights), stacked(b.weights)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a Model needs, copied; heads that were not solved since are the same objects."""
        experts = self.experts
        tensors: dict[str, NDArray[Any]] = {
            "input/mean": experts.mean.copy(),
            "input/inverse_std": experts.inverse_std.copy(),
            "input/scale": self.scale.copy(),
            "recent/means": experts.recent_means.copy(),
            "labels/recent": experts.labels.copy(),
            "pool/weights": experts.weights.copy(),
            "pool/stack": experts.stack.copy(),
            "pool/serve": experts.serve.copy(),
            "pool/keep": experts.keep.copy(),
        }
        if self.network is not None and self.roster.is_awake(NETWORK):
            tensors |= self.network.tensors()
        matrices = *self.ridge.weights(), *self.softmax.tensors(experts.layout)
        tensors |= dict(zip(view_heads(self.settings), matrices, strict=True))
        tensors |= self.local.tensors(self.roster)
        if self.text is not None:
            tensors |= self.text.tensors()
        return {name: tensor for name, tensor in tensors.items() if tensor.size}

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict, and arrays."""
        experts, layout = self.experts, self.experts.layout
        arrays: dict[str, NDArray[Any]] = {
            "scale": self.scale.copy(),
            "recent_means": experts.recent_means.copy(),
            "labels": experts.labels.copy(),
            "softmax": experts.softmax.copy(),
            "keep": self.pool.keep.copy(),
            "likelihood": self.pool.likelihood.copy(),
            "stack": self.pool.stack.copy(),
            "mixtures": self.pool.mixtures.copy(),
        }
        meta: dict[str, Any] = {"n": self.n, "n_classes": experts.n_classes}
        meta |= {"n_inputs": layout.n_inputs, "recent": list(layout.recent)}
        width = layout.image_width
        meta["n_images"] = 0 if experts.vision is None else width // experts.vision.width
        meta["slow"] = self.slow.hash
        meta["roster"] = self.roster.state()
        meta["ridge"], ridge_arrays = self.ridge.state()
        arrays |= ridge_arrays
        arrays |= {f"local/{key}": array for key, array in self.local.state().items()}
        if self.network is not None:
            meta["network"], network_arrays = self.network.state()
            arrays |= {f"network/{key}": array for key, array in network_arrays.items()}
        if self.text is not None:
            meta["text"], text_arrays = self.text.state()
            arrays |= {f"text/{key}": array for key, array in text_arrays.items()}
        return meta, arrays

    def resume(self, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """A new one goes on, to the bit, from what `state` gave.

        KeyError, ValueError, StateError where it doesn't fit.
        """
        settings, key = self.settings, self.key
        n_inputs, n_classes = int(meta["n_inputs"]), int(meta["n_classes"])
        self.grow(n_inputs, tuple(meta["recent"]), n_classes, int(meta["n_images"]))
        if "network" in meta:
            spec = self._network_spec(str(meta["network"]["kind"]))
            own = adapt_settings(settings, spec)
            self.network = NetworkExpert.restore(
                meta["network"], part(arrays, "network/"), spec=spec, key=key, settings=own
            )
            if self.network.n_classes != n_classes:
                raise ValueError("its network knows other classes")
            self._add_network_heads()
        if "text" in meta:
            self.text = TextHead.restore(settings, meta["text"], part(arrays, "text/"))
            if self.text.expert.n_classes != n_classes:
                raise ValueError("its texts know other classes")
            self._add_text_heads()
        self.n = int(meta["n"])
        if self.slow.hash != meta["slow"]:
            raise ValueError("its random matrices are not drawn by this version of numpy")
        self.scale[...] = arrays["scale"]
        experts, pool = self.experts, self.pool
        experts.projections = project(self.slow, experts.layout, self.scale)
        for array, name in (
            (experts.recent_means, "recent_means"),
            (experts.labels, "labels"),
            (experts.softmax, "softmax"),
            (pool.keep, "keep"),
            (pool.likelihood, "likelihood"),
            (pool.stack, "stack"),
            (pool.mixtures, "mixtures"),
        ):
            array[...] = _fitting(arrays[name], array)
        self.ridge.resume(meta["ridge"], arrays)
        self.local.resume(part(arrays, "local/"), experts.layout, n_classes)
        self.roster.resume(meta["roster"])
        self.ridge.take(self.roster)
        experts.local = self.local.reader(self.roster)
        self._take_pool()
        self._take_ridge_weights()
        self._take_network()


def _fitting(array: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    if array.shape != like.shape or array.dtype != like.dtype:
        raise ValueError(f"{array.dtype} {array.shape} where {like.dtype} {like.shape} belongs")
    return array


def part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays under a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}

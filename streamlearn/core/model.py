"""Model: what a subscriber holds of a stream. Immutable, thread-safe, whole.

In: a manifest and tensors, from the learner or from an update's bytes. Out: probabilities, by
the same path and so with the same bits as the learner's own. Statistics that only learning needs
(Gram matrices, pending rows, the reservoir) are the learner's state and not in here.

| tensor | shape | |
|---|---|---|
| input/mean, input/inverse_std | (d,) float64 | of the inputs, in the manifest's order |
| input/scale | (2, d) float32 | of each input's rows of the slow weights, views a and b |
| recent/means | (h, r) float64 | exponentially weighted, of standardised inputs |
| labels/recent | (c, 1 + decays) float64 | last known label, recent frequencies |
| ridge/a/100 ... ridge/b/inf | (F, C) float32 | a head each |
| softmax/0.005 ..., softmax/z/0.02 ... | (C, F), (C, 1 + d) float32 | a head each |
| pool/weights, pool/stack, pool/serve, pool/keep | (K,), (2, K), (3,), (windows,) float64 | |
| forest/feature, /threshold, /child, /unlikely | (T N,) int16, float32, int16, (T N, c) uint8 | |
| neighbours/rows, neighbours/codes | (m, d) int8, (m,) int32 | recent events |
| network | (P,) float32 | fast weights, laid out as its spec says |
| text/buckets, text/rarity, text/weights | (R,) int32, (R,) uint8, (R, C) int8 | a row a gram |
| text/prior, text/n_texts, text/share | (C,) float32, (1,) int64, (1,) float64 | |

Tensors without elements are left out, text/... where the stream has no texts, network where it
has no adapted one. Where all weights in pool/... of a part's heads are 0 it is at rest, nobody asks
it, and forest/..., neighbours/... or network is left out (core/roster.py).
F, K: see features and experts; P: network_spec; R: core.text.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.experts import Experts, Readout, stacked
from streamlearn.core.features import (
    Layout,
    SlowWeights,
    label_rows,
    project,
    random_width,
    rates_of,
    tensors_hash,
)
from streamlearn.core.grown import grown
from streamlearn.core.local_heads import LocalReader, local_heads
from streamlearn.core.network import Network
from streamlearn.core.network_head import NETWORK_HEADS, NetworkHead, spec_of
from streamlearn.core.preprocess import Inputs
from streamlearn.core.records import Frame, Label
from streamlearn.core.roster import asked
from streamlearn.core.text import STOP_WORD_LISTS, Texts, TextWeights, texts_of
from streamlearn.core.text_head import TEXT_HEADS
from streamlearn.core.threads import one_thread
from streamlearn.core.vision import Images, Vision, images_of
from streamlearn.errors import FormatError

__all__ = ["MODEL_FORMAT", "Model", "SlowWeights"]

MODEL_FORMAT = 5


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One version of one stream's model.

    `version` is the number of frames learned. `manifest` is JSON-able: format, inputs, classes in
    the order of their appearance, and the settings that prediction needs.
    """

    stream: str
    version: int
    manifest: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]
    slow: SlowWeights
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for tensor in self.tensors.values():
            tensor.flags.writeable = False

    @property
    def classes(self) -> tuple[Label, ...]:
        """Column c of the probabilities is the class classes[c]."""
        return tuple(self.manifest["classes"])

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the model reads: numbers and categories, then texts, then images."""
        inputs, images = self._inputs().columns, self.image_columns
        return tuple(dict.fromkeys((*inputs, *self.text_columns, *images)))

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that it reads word by word."""
        return tuple(self.manifest["texts"])

    @property
    def image_columns(self) -> tuple[str, ...]:
        """Columns that it looks at."""
        return tuple(self.manifest["images"])

    @property
    def hash(self) -> str:
        """sha256 hex over stream, version, manifest, tensors and the slow weights' hash."""
        if "hash" not in self._cache:
            manifest = json.dumps(self.manifest, sort_keys=True, separators=(",", ":"))
            parts = [self.stream, str(self.version), manifest]
            parts += [tensors_hash(self.tensors), self.slow.hash]
            digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass"))
            self._cache["hash"] = digest.hexdigest()
        return str(self._cache["hash"])

    def predict_next(self, frame: Frame, *, readout: Readout = "serve") -> NDArray[np.float32]:
        """(n, C) for events that come next in the stream, in sequence.

        Bit-identical to what the learner serves for the same events as one step. Before the
        first label C is 0. Missing columns are missing values, unknown ones are ignored.
        """
        with one_thread():
            return self._experts().sequence(*self._read(frame), readout)

    def predict_proba(self, frame: Frame, *, readout: Readout = "serve") -> NDArray[np.float32]:
        """(n, C) for each event on its own, as if it were the stream's next one.

        Independent, to the bit, of the other events of the frame and of their order.
        """
        with one_thread():
            return self._experts().alone(*self._read(frame), readout)

    def standardised(self, frame: Frame) -> NDArray[np.float64]:
        """(n, d) the frame's inputs as the model reads them, 0 where missing."""
        rows = self._inputs().rows(frame)
        n_inputs = rows.shape[1]
        mean, inverse_std = (
            self.tensors.get(f"input/{name}", np.zeros(0)) for name in ("mean", "inverse_std")
        )
        if {len(mean), len(inverse_std)} != {n_inputs}:
            raise FormatError(
                f"model {self.stream!r} version {self.version} is not whole: {n_inputs} inputs, "
                f"{len(mean)} means; fetch its snapshot"
            )
        z: NDArray[np.float64] = np.clip((rows - mean) * inverse_std, -5.0, 5.0)
        return np.nan_to_num(z)

    def _read(self, frame: Frame) -> tuple[NDArray[np.float64], Texts, Images]:
        rows = self._inputs().rows(frame)
        return rows, texts_of(frame, self.text_columns), images_of(frame, self.image_columns)

    def _inputs(self) -> Inputs:
        if "inputs" not in self._cache:
            self._check_format()
            self._cache["inputs"] = Inputs.from_json(self.manifest["inputs"])
        inputs: Inputs = self._cache["inputs"]
        return inputs

    def _experts(self) -> Experts:
        if "experts" not in self._cache:
            self._check_format()
            try:
                self._cache["experts"] = _build(self, self._inputs())
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise FormatError(
                    f"model {self.stream!r} version {self.version} is not whole: {error}; "
                    "fetch its snapshot"
                ) from error
        experts: Experts = self._cache["experts"]
        return experts

    def _check_format(self) -> None:
        if self.manifest.get("format") != MODEL_FORMAT:
            raise FormatError(
                f"model {self.stream!r} has format {self.manifest.get('format')!r}, and this "
                f"program reads {MODEL_FORMAT}: upgrade streamlearn"
            )


def _build(model: Model, inputs: Inputs) -> Experts:
    settings, tensors = model.manifest["settings"], model.tensors
    n_classes, d = len(model.classes), len(inputs)
    half_lives, decays = settings["half_lives"], settings["label_decays"]
    windows = settings["windows"]
    softmax_rates, plain_rates = settings["softmax_rates"], settings["plain_rates"]
    vision = Vision(model.slow.tensors) if model.image_columns else None
    layout = Layout(
        n_random=random_width(settings["random_features"], d),
        n_inputs=d,
        recent=inputs.recent,
        n_half_lives=len(half_lives),
        n_classes=label_rows(n_classes),
        n_label_features=1 + len(decays),
        image_width=0 if vision is None else vision.width * len(model.image_columns),
    )

    def get(name: str, shape: Sequence[int], dtype: type = np.float64) -> NDArray[Any]:
        if 0 in shape:
            return np.zeros(shape, dtype)
        tensor = tensors[name]
        if tensor.shape != tuple(shape) or tensor.dtype != dtype:
            raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not {dtype} {shape}")
        return tensor.copy()  # writable, as the learner's own: one compiled code for both

    def ridge(view: str, n_features: int) -> NDArray[np.float32]:
        names = [f"ridge/{view}/{window}" for window in windows]
        return stacked([get(name, (n_features, n_classes), np.float32) for name in names])

    sizes = int(settings["trees"]), int(settings["neighbours"])
    first_local = 2 * len(windows) + len(softmax_rates) + len(plain_rates)
    n_heads = first_local + len(local_heads(*sizes))
    scale = get("input/scale", (2, d), np.float32)
    network, network_at = None, n_heads
    if model.manifest["network"]:
        n_heads += len(NETWORK_HEADS)
    if model.text_columns:
        n_heads += len(TEXT_HEADS)
    weights, stack = get("pool/weights", (n_heads,)), get("pool/stack", (2, n_heads))
    has_weight = asked(weights, stack)
    if model.manifest["network"] and has_weight[network_at]:
        seed, kind = settings["seed"], model.manifest["network"]
        spec = spec_of(kind, layout, seed=seed, classes=max(n_classes, 1))
        row = get("network", (spec.layout.width,), np.float32)
        slow = {f"{i}/w": model.slow.tensors[f"network/{i}/w"] for i in range(len(spec.layers))}
        network = NetworkHead(Network.of(spec, slow, row, n_classes), scale[1])
    awake = has_weight[first_local:network_at:2]
    local = LocalReader.of(tensors, layout, n_classes, *sizes, awake)
    text, share = None, 0.0
    if model.text_columns:
        share = float(get("text/share", (1,))[0])
    if model.text_columns and n_classes:
        get("text/prior", (n_classes,), np.float32)
        stop_words = settings["stop_words"]
        if stop_words not in STOP_WORD_LISTS:
            raise ValueError(f"no list of stop words is called {stop_words!r}")
        copies = {name: tensors[name].copy() for name in tensors if name.startswith("text/")}
        text = TextWeights.of(copies, stop_words=stop_words)
    shape, plain = (n_classes, layout.n_linear), (n_classes, layout.n_plain)
    softmax = [get(f"softmax/{rate}", shape, np.float32) for rate in softmax_rates]
    softmax += [
        grown(get(f"softmax/z/{rate}", plain, np.float32), 0, layout.n_linear - layout.n_plain)
        for rate in plain_rates
    ]
    return Experts(
        layout=layout,
        projections=project(model.slow, layout, scale),
        rates=rates_of(half_lives),
        mean=get("input/mean", (d,)),
        inverse_std=get("input/inverse_std", (d,)),
        recent_means=get("recent/means", (len(half_lives), len(inputs.recent))),
        labels=get("labels/recent", (layout.n_classes, 1 + len(decays))),
        ridge_a=ridge("a", layout.n_a),
        ridge_b=ridge("b", layout.n_b),
        softmax=np.concatenate(softmax),
        weights=weights,
        stack=stack,
        serve=get("pool/serve", (3,)),
        keep=get("pool/keep", (len(windows),)),
        n_classes=n_classes,
        local=local,
        network=network,
        text=text,
        text_share=share,
        vision=vision,
    )

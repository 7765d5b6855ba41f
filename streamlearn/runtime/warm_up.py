"""Learns a made-up stream once, so that nobody's first real frame waits for compilers.

numba compiles the small loops when they first run: half a minute on a fresh installation, later
read from its cache. Done before a worker takes partitions, it delays nobody's events; done before
`evaluate` looks at the clock, it is in nobody's figures.
"""

from dataclasses import replace

import numpy as np

from streamlearn.core.encodings import Encodings
from streamlearn.core.features import draw_slow, slow_size
from streamlearn.core.learner import StreamLearner
from streamlearn.core.network_head import NETWORK_HEADS, with_sleepers
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.text import hashed_grams
from streamlearn.core.update import apply, diff
from streamlearn.core.vision import Vision
from streamlearn.wire import event_codec

N_EVENTS = 8
N_FRAMES = (
    6  # of each kind: a first, one that goes on, ones with new classes; texts from the middle on
)


def warm_up(settings: LearnerSettings) -> None:
    """Learn, publish and predict what nobody keeps."""
    learner = StreamLearner("warm-up", settings)
    rng = np.random.default_rng(0)
    for n in range(N_FRAMES):
        said = tuple(
            f"{n} words {event} are never the same {n * event}" for event in range(N_EVENTS)
        )
        frame = Frame(
            stream="warm-up",
            columns=("a", "b"),
            numbers=rng.normal(size=(N_EVENTS, 2)),
            label_codes=np.arange(N_EVENTS, dtype=np.int32) % (n + 1),
            label_values=tuple(range(n + 1)),
            event_time_s=np.arange(N_EVENTS, dtype=np.float64),
            texts={"said": said} if n >= N_FRAMES // 2 else {},
        )
        for one in (frame, _as_it_comes(frame)):
            learner.learn(one, keep=True)
        model = learner.model()
    held = apply(None, diff(None, model), model.slow)
    held.predict_next(frame)
    held.predict_proba(replace(frame, numbers=np.full((N_EVENTS, 2), np.nan)))
    StreamLearner.restore(learner.state(), settings)
    _encode(settings)


def _encode(settings: LearnerSettings) -> None:
    """What only streams of images, and of texts alone, do; without the torch of their network."""
    shape = settings.random_features, len(settings.half_lives), slow_size(0)
    slow = draw_slow(settings.seed, *shape, images=True)
    blank = ImageColumn.of(ImageColumn.missing(1).pixels)
    seen = Vision(slow.tensors).see([blank], 1)
    grams = hashed_grams({"said": ("words",)})
    Encodings(texts=True, n_images=1).of(1, seen, slow, grams, settings.seed)
    with_sleepers(np.zeros((1, 1, 1), np.float32), np.ones(1 + len(NETWORK_HEADS)), 1)


def _as_it_comes(frame: Frame) -> Frame:
    """As from the topic, with read-only arrays: numba compiles those apart."""
    value, headers = event_codec.encode(frame)
    decoded, _ = event_codec.decode(value, frame.stream.encode(), headers, 0.0)
    return decoded

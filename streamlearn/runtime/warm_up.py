"""Learns a made-up stream once, so that a worker's first real frame doesn't wait for compilers.

numba compiles the small loops when they first run: seconds on a fresh installation, later read
from its cache. Done before a worker takes partitions, it delays nobody's events.
"""

from dataclasses import replace

import numpy as np

from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.update import apply, diff
from streamlearn.core.vision import Vision, draw_theta
from streamlearn.wire import event_codec

N_EVENTS = 8
N_FRAMES = 3  # a first, one that goes on, one with a new class


def warm_up(settings: LearnerSettings) -> None:
    """Learn, publish and predict what nobody keeps."""
    learner = StreamLearner("warm-up", settings)
    rng = np.random.default_rng(0)
    for n in range(N_FRAMES):
        frame = Frame(
            stream="warm-up",
            columns=("a", "b"),
            numbers=rng.normal(size=(N_EVENTS, 2)),
            label_codes=np.arange(N_EVENTS, dtype=np.int32) % (n + 1),
            label_values=tuple(range(n + 1)),
            event_time_s=np.arange(N_EVENTS, dtype=np.float64),
        )
        frame = _as_it_comes(frame)
        learner.learn(frame)
        model = learner.model()
    held = apply(None, diff(None, model), model.slow)
    held.predict_next(frame)
    held.predict_proba(replace(frame, numbers=np.full((N_EVENTS, 2), np.nan)))
    StreamLearner.restore(learner.state(), settings)
    blank = ImageColumn.of(ImageColumn.missing(1).pixels)
    Vision(draw_theta(settings.seed)).see([blank], 1)


def _as_it_comes(frame: Frame) -> Frame:
    """As from the topic, with read-only arrays: numba compiles those apart."""
    value, headers = event_codec.encode(frame)
    decoded, _ = event_codec.decode(value, frame.stream.encode(), headers, 0.0)
    return decoded

"""Stage 7e, adaptation: what a stream asks the inner loop for, and what it gets back.

A stream's learner does not take the inner loop's steps itself: it stops with a request, and goes on
with the result. So whoever drives learners gathers the requests of many streams into one call
(`adapter`), and a learner needs no torch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.network_spec import NetworkSpec


@dataclass(frozen=True, slots=True, eq=False)
class FastWeights:
    """All that the inner loop moves of one stream; P and classes as in its spec."""

    phi: NDArray[np.float32]  # (P,)
    anchor: NDArray[np.float32]  # (P,) phi's running average (compensate)
    importance: NDArray[np.float32]  # (P,) of each weight at the anchor; zeros without proximal
    anchored: NDArray[np.bool_]  # (classes,) whose head columns the anchor has learned


@dataclass(frozen=True, slots=True, eq=False)
class AdaptRequest:
    """k steps on m new events, each joined with r replayed ones."""

    spec: NetworkSpec
    weights: FastWeights
    x: NDArray[np.float32]  # (m, d)
    y: NDArray[np.int64]  # (m,) class
    replay_x: NDArray[np.float32]  # (k, r, d), r at most m
    replay_y: NDArray[np.int64]  # (k, r)
    replay_logits: NDArray[np.float32]  # (k, r, classes) as stored; NaN: class unknown then
    known: NDArray[np.bool_]  # (classes,) seen so far, these events included
    learned: NDArray[np.bool_]  # (classes,) that the last request knew
    rate: float
    boundary: bool  # a new class, or drift, since the last request


@dataclass(frozen=True, slots=True, eq=False)
class AdaptResult:
    """The weights to go on with."""

    weights: FastWeights
    loss: float  # before the first step
    rolled_back: bool  # it diverged, and phi is what it was

"""The learner's settings: what changes predictions, and nothing else.

They are part of what makes two runs equal: the same log, the same LearnerSettings, the same
weights, bit for bit on one machine. Figures: docs/learner.md.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSettings:
    """Defaults were measured prequentially on six streams; other streams may want others."""

    seed: int = 0
    step_events: int = 256  # events tested before their labels are learned; small learns better
    random_features: int = 200  # D: 64 .944, 128 .948, 256 .958 on watch_imu; cost grows with D^2
    half_lives: tuple[float, ...] = (2.0, 10.0, 50.0)  # events, of what is new against the past
    label_decays: tuple[float, ...] = (0.5, 0.9, 0.99)  # of recent label frequencies
    max_context_columns: int = 64  # above it, numbers get no recent-past features
    windows: tuple[float, ...] = (100.0, 1000.0, float("inf"))  # events, the heads' time scales
    softmax_rates: tuple[float, ...] = (0.02, 0.1)
    reservoir_per_class: int = 20

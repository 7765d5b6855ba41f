"""Stage 7a, adapt settings: how fast weights learn, and at which rate.

What `adapt` and `gradients` compute with torch, here without it: whoever only predicts, or only
reads settings, need not load it.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamlearn.errors import ConfigError

LossName: TypeAlias = Literal["er", "er-ace", "der++"]
RARE = 0.02  # added to each class's share of a batch, so that an absent class has a finite prior


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Which loss, and the weights of its parts."""

    loss: LossName = "der++"
    alpha: float = 0.1  # of the distance to the stored logits (der++)
    beta: float = 1.0  # of the replayed labels
    prior: float = 1.0  # share of the class frequencies taken out of the logits; 0: left in


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptSettings:
    """How a stream's fast weights learn.

    Measured by benchmarks/forgetting.py: mnist_5k in five tasks, one pass, micro-batches of 32,
    replay of 20 a class, a 784-512-10 mlp of rank 8, 3 seeds, +- .02; final / forgetting:

                   two classes at a time    turned images     permuted pixels
    ER                  .805 / .137          .635 / .237        .783 / .066
    ER-ACE              .834 / .062          .636 / .237        .784 / .068
    DER++               .828 / .107          .692 / .163        .785 / .056
    DER++, prior        .861 / .016          .697 / .151        .782 / .057

    The conv network (16, 32 channels, rank 4), two classes at a time: ER .833 / .119, ER-ACE
    .868 / .059, DER++ .855 / .073, with prior .890 / -.007.

    Fresh replay for every step (`InnerLoop(draws=...)`): two classes at a time +.02..+.03.
    """

    loss: LossName = "der++"
    steps: int = 4  # k
    alpha: float = 0.1  # weight of the stored logits (der++); .3: turned +.01, the others -.01
    beta: float = 1.0  # weight of the replayed labels
    prior: float = 1.0  # share of the class frequencies taken out of the logits
    rate: float = 0.2  # numbers (elec2, noaa): .1 +.01
    rate_half_life: float = 2000.0  # events since the last boundary, see learning_rate()
    rate_floor: float = 0.3  # share of `rate` that an old, calm stream keeps
    clip: float = 1.0  # largest norm of a stream's gradient
    explosion: float = 2.0  # rolled back above this times max(loss before, ln C)
    proximal: float = (
        0.0  # pull to the anchor, by importance; 10: forgetting -.01..-.04, final -.01
    )

    def __post_init__(self) -> None:
        if self.steps < 1 or min(self.rate, self.clip, self.explosion) <= 0:
            raise ConfigError(
                f"the inner loop needs steps >= 1 and rate, clip, explosion > 0, not "
                f"steps={self.steps}, rate={self.rate}, clip={self.clip}, "
                f"explosion={self.explosion}"
            )

    @property
    def objective(self) -> Objective:
        return Objective(loss=self.loss, alpha=self.alpha, beta=self.beta, prior=self.prior)


def learning_rate(settings: AdaptSettings, *, age_events: float, drift: float) -> float:
    """A stream's rate: high after a boundary, falling as it stays calm, up again as it drifts.

    Measured against a constant rate, as above: final -.006, -.010, +.007. It is for streams that
    stay calm far longer than those 800 events a task.

    age_events: events since the last boundary (start, drift, new class).
    drift: the detector's score over its threshold; 1 and more means the full rate.

    >>> settings = AdaptSettings(rate=0.1, rate_half_life=1000, rate_floor=0.25)
    >>> learning_rate(settings, age_events=0, drift=0), learning_rate(
    ...     settings, age_events=1000, drift=0)
    (0.1, 0.05)
    >>> learning_rate(settings, age_events=1e6, drift=0), learning_rate(
    ...     settings, age_events=1e6, drift=2)
    (0.025, 0.1)
    """
    calm = math.pow(0.5, age_events / settings.rate_half_life)
    return settings.rate * max(settings.rate_floor, calm, min(drift, 1.0))

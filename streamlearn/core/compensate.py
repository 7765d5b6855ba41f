"""Stage 7d, compensate: keep the fast weights from forgetting, outside and between the steps.

`adapt` moves the weights towards the newest events, and replay holds against it. This stage keeps
an anchor beside them: their running average, which answers for events of any time (`keep`) while
the weights themselves answer for the next ones (`serve`). At a boundary (a new class, a detected
drift) it can also correct the weights. Each correction is a setting, on or off by what it measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamlearn.core.adapt_settings import Objective
from streamlearn.core.encoder import views
from streamlearn.core.gradients import Gradient, goal
from streamlearn.core.network_spec import NetworkSpec
from streamlearn.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensateSettings:
    """What is done against forgetting.

    Measured as in `AdaptSettings`; final / forgetting, two classes at a time, turned, permuted:

    DER++                   .828 / .107    .692 / .163    .785 / .056
      merge .3              .837 / .085    .660 / .196    .771 / .072
      align                 .828 / .106    .692 / .163    .785 / .056
      average .9            .829 / .113    .722 / .111    .799 / .042
    DER++, prior            .861 / .016    .697 / .151    .782 / .057
      merge .3              .858 / .002    .656 / .196    .771 / .071
      proximal 10           .858 / -.028   .680 / .146    .784 / .044
      average .9 (default)  .860 / .010    .720 / .112    .798 / .043
    """

    merge: float = 0.0  # share of the anchor in the weights that go on at a boundary
    average: float = 0.9  # the anchor keeps this share of itself a call; 0: set at boundaries
    align: bool = False  # at a boundary, scale new classes' head columns to the old ones' norm
    fisher_decay: float = 0.5  # share of the older importance kept at a boundary

    def __post_init__(self) -> None:
        if not (0 <= self.merge <= 1 and 0 <= self.average < 1 and 0 <= self.fisher_decay <= 1):
            raise ConfigError(
                f"merge, average and fisher_decay are shares in 0..1, not {self.merge}, "
                f"{self.average}, {self.fisher_decay}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """What S streams' weights were, to be compared with and drawn back to."""

    phi: Tensor  # (S, P)
    importance: Tensor  # (S, P) diagonal Fisher, 0 before the first boundary
    known: Tensor  # (S, C) bool: the classes whose head columns the anchor has learned


def first_anchor(spec: NetworkSpec, phi: Tensor) -> Anchor:
    """The anchor of new streams: their weights, nothing important, no class learned."""
    known = torch.zeros(phi.shape[0], spec.classes, dtype=torch.bool)
    return Anchor(phi.clone(), torch.zeros_like(phi), known)


def merge(spec: NetworkSpec, phi: Tensor, anchor: Anchor, share: float) -> Tensor:
    """phi drawn to the anchor by `share`; head columns that the anchor never learned stay.

    Averaging along one trajectory cancels what the last events added by chance (Arani et al.
    2022, CLS-ER, arXiv:2201.12604).
    """
    merged = torch.lerp(phi, anchor.phi, share)
    parts, mine = views(spec, merged), views(spec, phi)
    for name in ("head/w", "head/bias"):
        learned = anchor.known if name == "head/bias" else anchor.known.unsqueeze(1)
        parts[name].copy_(torch.where(learned, parts[name], mine[name]))
    return merged


def follow(spec: NetworkSpec, anchor: Anchor, phi: Tensor, known: Tensor, keep: float) -> Anchor:
    """The anchor moved towards phi: it keeps `keep` of itself; new classes' columns are copied."""
    return Anchor(merge(spec, phi, anchor, keep), anchor.importance, known.clone())


def align_head(spec: NetworkSpec, phi: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """New classes' head columns scaled down to the old ones' mean norm (S, C masks).

    The newest classes' columns grow largest and win too often (Zhao et al. 2020, arXiv:1911.07053).
    """
    aligned = phi.clone()
    parts = views(spec, aligned)
    norm = torch.linalg.vector_norm(parts["head/w"], dim=1)  # (S, C)
    ratio = _mean(norm, old) / _mean(norm, new)
    usable = old.any(dim=1) & new.any(dim=1) & ratio.isfinite()
    scale = torch.where(usable, ratio.clamp_max(1.0), 1.0).unsqueeze(1)
    scale = torch.where(new, scale, 1.0)
    parts["head/w"].mul_(scale.unsqueeze(1))
    parts["head/bias"].mul_(scale)
    return aligned


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(dim=1) / mask.sum(dim=1)


def fisher(
    spec: NetworkSpec,
    slow: Sequence[Tensor],
    phi: Tensor,
    *,
    x: Tensor,  # (S, N, d)
    y: Tensor,  # (S, N)
    mask: Tensor,  # (S, N)
    known: Tensor,  # (S, C)
) -> Tensor:
    """Diagonal of the empirical Fisher information, (S, P): mean squared gradient an event.

    Kirkpatrick et al. 2017 (EWC), arXiv:1612.00796. An event at a time: this runs at boundaries.
    """
    total = torch.zeros_like(phi)
    none = mask[:, :0]
    gradient = Gradient(spec, slow, phi)
    for event in range(x.shape[1]):
        aim = goal(
            Objective(loss="er", prior=0.0),
            x=x[:, event : event + 1],
            y=y[:, event : event + 1],
            mask=mask[:, event : event + 1],
            replay_x=x[:, :0],
            replay_y=y[:, :0],
            replay_mask=none,
            replay_logits=known.new_zeros(known.shape[0], 0, known.shape[1], dtype=phi.dtype),
            known=known,
        )
        gradient.at(aim)
        total.addcmul_(gradient.grad, gradient.grad)
    return total / mask.sum(dim=1, keepdim=True).clamp_min(1)


def cross_boundary(
    spec: NetworkSpec,
    settings: CompensateSettings,
    phi: Tensor,
    anchor: Anchor,
    *,
    at: Tensor,  # (S,) bool: streams that stand at a boundary
    known: Tensor,  # (S, C) bool: classes learned up to it
    importance: Tensor | None = None,  # (S, P) of the stretch that ends here (`fisher`)
) -> tuple[Tensor, Anchor]:
    """Weights to go on with, and the new anchor. 1 align; 2 merge; 3 anchor; 4 importance."""
    here = at.unsqueeze(1)
    after = phi
    if settings.align:
        after = align_head(spec, after, anchor.known, known & ~anchor.known)
    if settings.merge:
        after = merge(spec, after, anchor, settings.merge)
    weight = anchor.importance
    if importance is not None:
        weight = torch.lerp(importance, weight, settings.fisher_decay)
    after = torch.where(here, after, phi)
    return after, Anchor(
        torch.where(here, after, anchor.phi),
        torch.where(here, weight, anchor.importance),
        torch.where(here, known, anchor.known),
    )

"""Stage 7b, gradients: a loss and its gradient for every stream of a batch at once.

The encoder gives logits; this stage says how wrong they are and which way is down; `adapt` takes
the steps. The losses know their gradient with respect to the logits in closed form. From there
the mlp goes back by hand (twice as fast as autograd), the conv by autograd.

    er       cross entropy of the new events + that of the replayed ones (Chaudhry et al. 2019,
             arXiv:1902.10486)
    er-ace   the same, but new events compete with the classes at hand only, so that they do not
             push old classes down (Caccia et al. 2022, arXiv:2104.05025)
    der++    er + distance of the replayed events' logits from those stored when they came in
             (Buzzega et al. 2020, arXiv:2004.07211)

Any of them can take the batch's class frequencies out of the logits (`prior`): a class that is
frequent just now is then not favoured for being frequent (Huang et al. 2024, logit adjusted
softmax, arXiv:2311.06460).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from streamlearn.core.encoder import NetworkSpec, effective, logits

LossName: TypeAlias = Literal["er", "er-ace", "der++"]
BARRED = -1e30  # the logit of a class that does not take part; -inf would make NaN of an empty row
RARE = 0.02  # added to each class's share of a batch, so that an absent class has a finite prior


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Which loss, and the weights of its parts."""

    loss: LossName = "der++"
    alpha: float = 0.1  # of the distance to the stored logits (der++)
    beta: float = 1.0  # of the replayed labels
    prior: float = 1.0  # share of the class frequencies taken out of the logits; 0: left in


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """What a step aims at; does not depend on the weights. M = N new + R replay rows."""

    x: Tensor  # (S, M, d) new events first, then replay
    one_hot: Tensor  # (S, M, C) float32
    weight: Tensor  # (S, M, 1) a row's share of the cross entropy; 0 where there is no event
    shift: Tensor  # (S, M, C) added to the logits: log prior, or BARRED
    stored: Tensor  # (S, M, C) logits to stay near, 0 where none
    pull: Tensor  # (S, M, C) weight of that distance, 0 where none


def goal(
    objective: Objective,
    *,
    x: Tensor,  # (S, N, d)
    y: Tensor,  # (S, N) int64
    mask: Tensor,  # (S, N) bool
    replay_x: Tensor,  # (S, R, d)
    replay_y: Tensor,  # (S, R)
    replay_mask: Tensor,  # (S, R)
    replay_logits: Tensor,  # (S, R, C), NaN where a class was unknown when the row was stored
    known: Tensor,  # (S, C) bool: classes seen by the stream, those of this batch included
) -> Goal:
    """Masks, targets and weights of a step."""
    n = x.shape[1]
    rows = torch.cat([mask, replay_mask], dim=1)
    index = torch.arange(known.shape[1], device=x.device)
    one_hot = torch.cat([y, replay_y], dim=1).unsqueeze(2) == index  # (S, M, C)
    one_hot = one_hot & rows.unsqueeze(2)
    weight = torch.cat([_share(mask), objective.beta * _share(replay_mask)], dim=1).unsqueeze(2)
    allowed = known.unsqueeze(1).expand_as(one_hot)
    if objective.loss == "er-ace":
        at_hand = one_hot[:, :n].any(dim=1, keepdim=True).expand(-1, n, -1)
        allowed = torch.cat([at_hand, allowed[:, n:]], dim=1)
    shift = torch.zeros_like(one_hot, dtype=x.dtype)
    if objective.prior:
        frequency = (weight * one_hot).sum(dim=1, keepdim=True) + RARE
        shift = shift + objective.prior * frequency.log()
    stored, pull = torch.zeros_like(shift), torch.zeros_like(shift)
    if objective.loss == "der++":
        told = replay_logits.isfinite() & replay_mask.unsqueeze(2)
        stored[:, n:] = replay_logits.masked_fill(~told, 0.0)
        pull[:, n:] = objective.alpha * _share(told.flatten(1)).view_as(told)
    return Goal(
        x=torch.cat([x, replay_x], dim=1).masked_fill(~rows.unsqueeze(2), 0.0),
        one_hot=one_hot.to(x.dtype),
        weight=weight,
        shift=shift.masked_fill(~allowed, BARRED),
        stored=stored,
        pull=pull,
    )


def _share(mask: Tensor) -> Tensor:
    """1 / n where true, 0 elsewhere, a stream at a time: (S, n)."""
    return mask / mask.sum(dim=1, keepdim=True).clamp_min(1)


def loss_at(aim: Goal, z: Tensor) -> Tensor:
    """Loss of each stream (S,) at logits z (S, M, C)."""
    log_p = torch.log_softmax(z + aim.shift, dim=2)
    off = z - aim.stored
    return (aim.pull * off * off - aim.weight * aim.one_hot * log_p).sum(dim=(1, 2))


def loss_and_slope(aim: Goal, z: Tensor) -> tuple[Tensor, Tensor]:
    """`loss_at` z, and its gradient with respect to z (S, M, C)."""
    log_p = torch.log_softmax(z + aim.shift, dim=2)
    off = z - aim.stored
    pulled = aim.pull * off
    target = aim.weight * aim.one_hot
    loss = (pulled * off - target * log_p).sum(dim=(1, 2))
    slope = torch.addcmul(pulled.mul_(2.0).sub_(target), aim.weight, log_p.exp_())
    return loss, slope


def gradient(
    spec: NetworkSpec, slow: Sequence[Tensor], phi: Tensor, aim: Goal
) -> tuple[Tensor, Tensor]:
    """Loss (S,) and gradient (S, P) at fast weights phi (S, P)."""
    if spec.kind == "mlp":
        return _by_hand(spec, slow, phi, aim)
    with torch.enable_grad():
        leaf = phi.detach().requires_grad_()
        z = logits(spec, slow, leaf, aim.x)
        loss, slope = loss_and_slope(aim, z.detach())
        (grad,) = torch.autograd.grad(z, leaf, slope)
    return loss, grad


def _by_hand(
    spec: NetworkSpec, slow: Sequence[Tensor], phi: Tensor, aim: Goal
) -> tuple[Tensor, Tensor]:
    """The mlp's forward and backward pass, layer by layer."""
    parts = spec.layout.views(phi)
    grad = torch.zeros_like(phi)
    out = spec.layout.views(grad)
    inputs, matrices = [aim.x], []
    for index in range(len(spec.layers)):
        matrices.append(effective(slow[index], parts, index))
        z = torch.baddbmm(parts[f"{index}/bias"].unsqueeze(1), inputs[-1], matrices[-1])
        inputs.append(z.relu_())
    z = torch.baddbmm(parts["head/bias"].unsqueeze(1), inputs[-1], parts["head/w"])
    loss, slope = loss_and_slope(aim, z)
    out["head/w"].copy_(torch.bmm(inputs[-1].transpose(1, 2), slope))
    out["head/bias"].copy_(slope.sum(dim=1))
    down = torch.bmm(slope, parts["head/w"].transpose(1, 2))  # (S, M, outputs)
    for index in reversed(range(len(spec.layers))):
        down = torch.ops.aten.threshold_backward(down, inputs[index + 1], 0.0)
        x, a, b = inputs[index], parts[f"{index}/a"], parts[f"{index}/b"]
        out[f"{index}/bias"].copy_(down.sum(dim=1))
        # the rank first: r rows, whatever the width
        out[f"{index}/b"].copy_(torch.bmm(torch.bmm(a, x.transpose(1, 2)), down))
        out[f"{index}/a"].copy_(torch.bmm(torch.bmm(b, down.transpose(1, 2)), x))
        if index:
            down = torch.bmm(down, matrices[index].transpose(1, 2))
    return loss, grad

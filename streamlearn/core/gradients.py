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

import torch
from torch import Tensor

from streamlearn.core.adapt_settings import RARE, Objective
from streamlearn.core.encoder import adapted, logits, views
from streamlearn.core.network_spec import NetworkSpec

threshold_backward = torch.ops.aten.threshold_backward.grad_input  # relu's, in place
BARRED = -1e30  # the logit of a class that does not take part; -inf would make NaN of an empty row


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """What a step aims at; does not depend on the weights. M = N new + R replay rows."""

    x: Tensor  # (S, M, d) new events first, then replay
    weight: Tensor  # (S, M, 1) a row's share of the cross entropy; 0 where there is no event
    target: Tensor  # (S, M, C) that share at the row's class, 0 elsewhere
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
    target = weight * one_hot
    allowed = known.unsqueeze(1).expand_as(one_hot)
    if objective.loss == "er-ace":
        at_hand = one_hot[:, :n].any(dim=1, keepdim=True).expand(-1, n, -1)
        allowed = torch.cat([at_hand, allowed[:, n:]], dim=1)
    shift = torch.zeros_like(one_hot, dtype=x.dtype)
    if objective.prior:
        shift = shift + objective.prior * (target.sum(dim=1, keepdim=True) + RARE).log()
    stored, pull = torch.zeros_like(shift), torch.zeros_like(shift)
    if objective.loss == "der++":
        told = replay_logits.isfinite() & replay_mask.unsqueeze(2)
        stored[:, n:] = replay_logits.masked_fill(~told, 0.0)
        pull[:, n:] = objective.alpha * _share(told.flatten(1)).view_as(told)
    return Goal(
        x=torch.cat([x, replay_x], dim=1).masked_fill(~rows.unsqueeze(2), 0.0),
        weight=weight,
        target=target,
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
    return (aim.pull * off * off - aim.target * log_p).sum(dim=(1, 2))


def loss_and_slope(aim: Goal, z: Tensor) -> tuple[Tensor, Tensor]:
    """`loss_at` z, and its gradient with respect to z (S, M, C)."""
    shifted = z + aim.shift
    off = z - aim.stored
    pulled = aim.pull * off
    loss = (pulled * off - aim.target * torch.log_softmax(shifted, dim=2)).sum(dim=(1, 2))
    p = torch.softmax(shifted, dim=2)  # exp(log p) costs three times as much on a CPU
    return loss, torch.addcmul(pulled.mul_(2.0).sub_(aim.target), aim.weight, p)


class Gradient:
    """The gradient at fast weights `phi` (S, P), which the caller moves in place between calls."""

    def __init__(self, spec: NetworkSpec, slow: Sequence[Tensor], phi: Tensor) -> None:
        self.spec = spec
        self.slow = slow
        self.phi = phi
        self.grad = torch.zeros_like(phi)  # of the last call
        self._parts = views(spec, phi)
        self._out = views(spec, self.grad)

    def at(self, aim: Goal) -> Tensor:
        """Loss of each stream (S,); its gradient is in `grad`."""
        return self._by_hand(aim) if self.spec.kind == "mlp" else self._by_autograd(aim)

    def _by_autograd(self, aim: Goal) -> Tensor:
        with torch.enable_grad():
            leaf = self.phi.detach().requires_grad_()
            z = logits(self.spec, self.slow, leaf, aim.x)
            loss, slope = loss_and_slope(aim, z.detach())
            (grad,) = torch.autograd.grad(z, leaf, slope)
        self.grad.copy_(grad)
        return loss

    def _by_hand(self, aim: Goal) -> Tensor:
        """The mlp, forward and back, layer by layer; the rank first: such products are small."""
        parts, out = self._parts, self._out
        inputs, narrow = [aim.x], []  # a layer's x (S, M, inputs) and (x A) transposed (S, r, M)
        for index, slow in enumerate(self.slow):
            z, u = adapted(slow, parts, index, inputs[-1])
            inputs.append(z.relu_())
            narrow.append(u)
        z = torch.baddbmm(parts["head/bias"].unsqueeze(1), inputs[-1], parts["head/w"])
        loss, down = loss_and_slope(aim, z)
        out["head/w"].copy_(torch.bmm(inputs[-1].transpose(1, 2), down))
        out["head/bias"].copy_(down.sum(dim=1))
        down = torch.bmm(down, parts["head/w"].transpose(1, 2))  # (S, M, outputs)
        for index in reversed(range(len(self.slow))):
            threshold_backward(down, inputs[index + 1], 0.0, grad_input=down)
            up = torch.bmm(parts[f"{index}/b"], down.transpose(1, 2))  # (S, r, M)
            out[f"{index}/bias"].copy_(down.sum(dim=1))
            out[f"{index}/b"].copy_(torch.bmm(narrow[index], down))
            out[f"{index}/a"].copy_(torch.bmm(up, inputs[index]))
            if index:
                down = torch.bmm(down, self.slow[index].t().expand(down.shape[0], -1, -1))
                down.baddbmm_(up.transpose(1, 2), parts[f"{index}/a"])
        return loss

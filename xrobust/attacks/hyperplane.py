"""The way to a hyperplane within the pixel box, exactly, for a batch: {z : w·z + b = 0} ∩ [low, high]^d."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_TINY = 1e-30


def step_to_hyperplane(norm: str, x: Tensor, normal: Tensor, residual: Tensor, clip: tuple[float, float]) -> Tensor:
    """argmin ‖δ‖_p subject to residual + w·δ = 0 and x + δ in the box (Croce & Hein 2020, FAB, section 2).

    Where the box does not meet the hyperplane, δ leads to the corner of the box nearest to it.

    Args:
        norm: "linf", "l2" or "l1".
        x: (N, ...) in the box.
        normal: w, of x's shape.
        residual: w·x + b, (N,).
        clip: the box (low, high).
    """
    scale = normal.flatten(1).abs().amax(1, keepdim=True).clamp(min=_TINY)  # vanishing gradients must not underflow
    w = normal.flatten(1) / scale * -residual.sign()[:, None]  # oriented: moving along w reduces |residual|
    room = torch.where(w > 0, clip[1] - x.flatten(1), x.flatten(1) - clip[0])
    return (w.sign() * _AMOUNTS[norm](w.abs(), room, residual.abs()[:, None] / scale)).view_as(x)


def dual_norm(norm: str, w: Tensor) -> Tensor:
    """‖w‖_q with 1/p + 1/q = 1, for each sample: |w·x + b| / ‖w‖_q is the distance to the hyperplane."""
    return _DUALS[norm](w.flatten(1))


def _linf_amounts(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """min(t, room) with the t at which Σ |w| min(t, room) = need."""
    return torch.minimum(_level(weight, room, need), room)


def _l2_amounts(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """min(t|w|, room) with the t at which Σ |w| min(t|w|, room) = need."""
    return torch.minimum(_level(weight.square(), room / weight.clamp(min=_TINY), need) * weight, room)


def _l1_amounts(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Fill the pixels up to their room, those of largest |w| first, until Σ |w| amount = need."""
    sorted_weight, order = weight.sort(dim=1, descending=True)
    sorted_room = room.gather(1, order)
    gain = sorted_weight * sorted_room
    missing = need - (gain.cumsum(1) - gain)
    amount = torch.minimum((missing / sorted_weight.clamp(min=_TINY)).clamp(min=0), sorted_room)
    return torch.zeros_like(room).scatter_(1, order, amount)


def _level(slope: Tensor, knee: Tensor, need: Tensor) -> Tensor:
    """The least t ≥ 0 with Σ_i slope_i · min(t, knee_i) = need, else the largest knee: (N, 1)."""
    knee = knee.where(slope > 0, 0)
    knee, order = knee.sort(dim=1)
    slope = slope.gather(1, order)
    full = slope * knee
    before = full.cumsum(1) - full  # from the coordinates whose knee lies below
    rising = slope.flip(1).cumsum(1).flip(1)  # the joint slope of the others
    level = (need - before) / rising.clamp(min=_TINY)
    reached = level <= knee
    first = reached.int().argmax(1, keepdim=True)
    return torch.where(reached.any(1, keepdim=True), level.gather(1, first).clamp(min=0), knee[:, -1:])


_AMOUNTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linf": _linf_amounts,
    "l2": _l2_amounts,
    "l1": _l1_amounts,
}
_DUALS: dict[str, Callable[[Tensor], Tensor]] = {
    "linf": lambda w: w.abs().sum(1),
    "l2": lambda w: w.norm(dim=1),
    "l1": lambda w: w.abs().amax(1),
}

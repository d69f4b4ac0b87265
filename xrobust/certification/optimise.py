"""Bounds with optimised slopes (α-CROWN) and multipliers of constraints (β-CROWN)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.certification.backward import Walk, lower_bound
from xrobust.certification.bounds import Bounds
from xrobust.certification.rules.relu import LeakyReLU

BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8  # of Adam


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """Projected gradient ascent on slopes and multipliers, by Adam (Xu et al. 2021; Wang et al. 2021).

    Args:
        steps: iterations.
        slope_rate: learning rate of the slopes α in [s, 1].
        multiplier_rate: of the multipliers β ≥ 0.
        decay: of both rates, at each step.
    """

    steps: int = 20
    slope_rate: float = 0.25
    multiplier_rate: float = 0.1
    decay: float = 0.98


@dataclass(eq=False)
class Optimised:
    """The best bounds found, and the parameters that gave them.

    Attributes:
        lower: (N, S).
        slopes: α for each operation that splits, by its node: (N, S, *shape).
        multipliers: β ≥ 0 for each of their preactivations: (N, S, *shape).
    """

    lower: Tensor
    slopes: dict[int, Tensor]
    multipliers: dict[int, Tensor]


def optimised_lower_bound(
    bounds: Bounds,
    a: Tensor,
    ascent: Ascent,
    *,
    node: int | None = None,
    signs: dict[int, Tensor] | None = None,
    start: Optimised | None = None,
) -> Optimised:
    """Lower bounds of linear forms as in `lower_bound`, at the best slopes and multipliers that an ascent finds.

    A unit that is known to be ≥ 0 (sign 1) or ≤ 0 (sign −1) in the domain adds −β · sign · z to the form: for β ≥ 0 a
    lower bound of that is one of the form wherever the constraints hold. Each form has its own slopes and multipliers,
    so that results do not depend on the batch. A form's ascent ends where its bound becomes positive. The first iterate
    has the adaptive slopes and no multipliers: the result is never below CROWN's.

    Args:
        bounds: of N samples.
        a: (N, S, *shape of the node).
        ascent: how.
        node: by default the logits.
        signs: for each preactivation, (N, *shape) in {−1, 0, 1}: constraints in force.
        start: slopes and multipliers to begin with.
    """
    signs = signs or {}
    with torch.enable_grad():
        slopes, multipliers, floors = _initial(bounds, a, node, signs, start)
        best: Optimised | None = None
        variables = [*slopes.values(), *multipliers.values()]
        moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in variables]
        for step in range(ascent.steps + 1):
            walk = Walk(slopes=slopes, additions=_additions(multipliers, signs))
            lower = lower_bound(bounds, a, node, walk)
            best = _best(best, lower.detach(), slopes, multipliers)
            climbing = (best.lower <= 0) & best.lower.isfinite()
            if step == ascent.steps or not variables or not climbing.any():
                break
            gradients = torch.autograd.grad(lower.sum(), variables, allow_unused=True)
            for position, (variable, gradient) in enumerate(zip(variables, gradients, strict=True)):
                if gradient is None:
                    continue
                is_slope = position < len(slopes)
                rate = (ascent.slope_rate if is_slope else ascent.multiplier_rate) * ascent.decay**step
                with torch.no_grad():
                    variable += rate * _adam(moments[position], gradient, step)
                    variable.clamp_(floors[position], 1.0 if is_slope else None)
    assert best is not None
    return best


def _initial(
    bounds: Bounds, a: Tensor, node: int | None, signs: dict[int, Tensor], start: Optimised | None
) -> tuple[dict[int, Tensor], dict[int, Tensor], list[float]]:
    """Slopes and multipliers to start from, and their lower limits."""
    network = bounds.network
    last = network.output if node is None else node
    forms = (bounds.samples, a.shape[1])
    slopes: dict[int, Tensor] = {}
    floors = []
    for source, users in network.preactivations.items():
        for user in users:
            operation = network.operation(user)
            if user <= last and isinstance(operation, LeakyReLU):
                if start is not None:
                    slope = start.slopes[user].clamp(operation.negative, 1.0)  # kept in float32, s may be rounded down
                else:
                    slope = operation.adaptive(bounds.boxes[source]).unsqueeze(1)
                    slope = slope.expand(*forms, *slope.shape[2:]).clone()
                slopes[user] = slope.requires_grad_()
                floors.append(operation.negative)
    multipliers = {}
    for source, sign in signs.items():
        if source <= last and sign.any():
            known = start is not None and source in start.multipliers
            beta = start.multipliers[source].clone() if known else sign.new_zeros(*forms, *sign.shape[1:])  # type: ignore[union-attr]
            multipliers[source] = beta.requires_grad_()
            floors.append(0.0)
    return slopes, multipliers, floors


def _additions(multipliers: dict[int, Tensor], signs: dict[int, Tensor]) -> dict[int, Tensor]:
    return {source: -beta * signs[source].unsqueeze(1) for source, beta in multipliers.items()}


def _best(
    best: Optimised | None, lower: Tensor, slopes: dict[int, Tensor], multipliers: dict[int, Tensor]
) -> Optimised:
    """For each form the better of two; one that is positive is final."""
    if best is None:
        copies = [{node: value.detach().clone() for node, value in each.items()} for each in (slopes, multipliers)]
        return Optimised(lower, *copies)
    better = (lower > best.lower) & ~(best.lower > 0)
    for kept, now in ((best.slopes, slopes), (best.multipliers, multipliers)):
        for node, value in now.items():
            mask = better.view(*better.shape, *[1] * (value.dim() - 2))
            kept[node] = torch.where(mask, value.detach(), kept[node])
    return Optimised(torch.where(better, lower, best.lower), best.slopes, best.multipliers)


def _adam(moments: tuple[Tensor, Tensor], gradient: Tensor, step: int) -> Tensor:
    first, second = moments
    first.lerp_(gradient, 1 - BETA_1)
    second.lerp_(gradient.square(), 1 - BETA_2)
    return first / (1 - BETA_1 ** (step + 1)) / ((second / (1 - BETA_2 ** (step + 1))).sqrt() + TINY)

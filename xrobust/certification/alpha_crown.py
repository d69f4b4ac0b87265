"""α-CROWN as a certifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.certification.base import Certifier
from xrobust.certification.bounds import Bounds
from xrobust.certification.box import Box
from xrobust.certification.certificate import Certificate
from xrobust.certification.intermediate import forms_at_once, forward_again
from xrobust.certification.optimise import Ascent, Optimised, optimised_lower_bound
from xrobust.certification.problem import Problem
from xrobust.certification.specification import marked, units
from xrobust.errors import at_least


@dataclass(frozen=True, kw_only=True)
class AlphaCROWN(Certifier):
    """CROWN with the slopes of ReLUs optimised for each difference of logits (Xu et al. 2021).

    Args:
        steps: of the ascent on the slopes.
        slope_rate: its learning rate.
        intermediate_steps: of ascents on the slopes for each unstable preactivation as well, which then serve all later
            bounds; 0 leaves CROWN's boxes.
    """

    steps: int = 20
    slope_rate: float = 0.25
    intermediate_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 0, steps=self.steps, intermediate_steps=self.intermediate_steps)
        at_least(type(self).__name__, 0.0, slope_rate=self.slope_rate)

    def run(self, problem: Problem) -> Certificate:
        problem.bound_by_intervals()
        problem.bound_by_lines(problem.interval())
        bounds = problem.crown()
        margin = problem.bound_by_lines(bounds)
        still_open = (~(margin > 0)).nonzero().flatten()
        if len(still_open):
            bounds = bounds.rows(still_open)
            if self.intermediate_steps:
                ascent = Ascent(steps=self.intermediate_steps, slope_rate=self.slope_rate)
                bounds = optimised_bounds(bounds, ascent, problem.chunk)
            part = problem.rows(still_open)
            ascent = Ascent(steps=self.steps, slope_rate=self.slope_rate)
            part.raise_lower(open_forms_optimised(part, bounds, ascent))
            problem.lower[still_open] = part.lower
        return Certificate.of_margins(problem.x, problem.margin)


def open_forms_optimised(problem: Problem, bounds: Bounds, ascent: Ascent) -> Tensor:
    """Lower bounds (N, K − 1): with optimised slopes where the known ones are not positive."""
    lower = problem.lower.clone()
    wanted = ~(lower > 0)
    for form in marked(wanted).split(forms_at_once(bounds, problem.chunk), dim=1):
        chosen = problem.forms.gather(1, form.unsqueeze(2).expand(-1, -1, problem.forms.shape[2]))
        found = optimised_lower_bound(bounds, chosen, ascent).lower
        known = lower.gather(1, form)
        better = torch.maximum(known, found.to(lower.dtype))
        lower.scatter_(1, form, torch.where(wanted.gather(1, form), better, known))
    return lower


def optimised_bounds(bounds: Bounds, ascent: Ascent, chunk: int) -> Bounds:
    """Boxes of the preactivations with slopes optimised for each unstable unit, layer by layer.

    An ascent ends where a unit turns out to be stable.
    """
    network = bounds.network
    for node, users in network.preactivations.items():
        if node == 0:
            continue
        loose = torch.stack([network.operation(user).loose(bounds.boxes[node]) for user in users]).any(0)
        lower, upper = (corner.flatten(1).clone() for corner in (bounds.boxes[node].lower, bounds.boxes[node].upper))
        loose = loose.flatten(1)
        for index in marked(loose).split(forms_at_once(bounds, chunk, copies=2), dim=1):
            forms = units(index, network.shapes[node], lower.dtype)
            best: Optimised = optimised_lower_bound(bounds, torch.cat([forms, -forms], 1), ascent, node=node)
            low, up = best.lower.to(lower.dtype).chunk(2, 1)
            known = lower.gather(1, index), upper.gather(1, index)
            low, up = torch.maximum(known[0], low), torch.minimum(known[1], -up)
            fine = loose.gather(1, index) & (low <= up)
            lower.scatter_(1, index, torch.where(fine, low, known[0]))
            upper.scatter_(1, index, torch.where(fine, up, known[1]))
        shape = bounds.boxes[node].lower.shape
        bounds = forward_again(bounds.replaced({node: Box(lower.view(shape), upper.view(shape))}), node)
    return bounds

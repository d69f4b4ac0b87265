"""Bounds of sub-domains, and which unit to split next."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.certification.backward import Walk, linear_form
from xrobust.certification.bounds import Bounds
from xrobust.certification.domains import Domains, Layout, restricted
from xrobust.certification.optimise import Ascent, Optimised, optimised_lower_bound
from xrobust.certification.rules.relu import LeakyReLU


def bounded(domains: Domains, root: Bounds, forms: Tensor, layout: Layout, ascent: Ascent) -> Domains:
    """The domains with bounds of their own: at least those that they came with, which are their parents'.

    Args:
        domains: with the slopes, multipliers and bounds of their parents.
        root: bounds of all samples.
        forms: of all samples, (N, K − 1, K).
        layout: of the units.
        ascent: on slopes and multipliers.
    """
    dtype = forms.dtype
    signs = layout.unpacked(domains.signs.to(dtype), layout.sources)
    bounds = restricted(root.rows(domains.row), signs)
    a = forms[domains.row, domains.form].unsqueeze(1)
    best = optimised_lower_bound(bounds, a, ascent, signs=signs, start=domains.start(layout, dtype))
    corner, unit = _next(bounds, a, signs, best, layout)
    return Domains(
        domains.row,
        domains.form,
        domains.signs,
        torch.maximum(domains.lower, best.lower[:, 0].double()),
        layout.packed(best.slopes, layout.users, domains.slopes),
        layout.packed(best.multipliers, layout.sources, domains.multipliers),
        unit,
        corner,
    )


def _next(
    bounds: Bounds, a: Tensor, signs: dict[int, Tensor], best: Optimised, layout: Layout
) -> tuple[Tensor, Tensor]:
    """Where the linear bound is least, and the unit to split: images (D, C, H, W) and positions (D,)."""
    seen: dict[int, Tensor | None] = dict.fromkeys(layout.users)
    additions = {node: -beta * signs[node].unsqueeze(1) for node, beta in best.multipliers.items()}
    walk = Walk(slopes=best.slopes, additions=additions, coefficients=seen)
    slope = linear_form(bounds, a, walk=walk).coefficients[:, 0]
    box = bounds.boxes[0]
    corner = torch.where(slope > 0, box.lower, box.upper)
    scores = {}
    for source in layout.sources:
        score = torch.zeros_like(bounds.boxes[source].lower)
        for user in bounds.network.preactivations[source]:
            score = score + _loss(bounds, source, user, seen[user], best.slopes[user][:, 0])
        scores[source] = score
    packed = layout.packed(scores, layout.sources, slope)
    if not packed.shape[1]:
        return corner, torch.full_like(bounds.boxes[0].lower.flatten(1)[:, 0], -1, dtype=torch.int64)
    most = packed.max(1)
    return corner, most.indices.masked_fill(most.values <= 0, -1)


def _loss(bounds: Bounds, source: int, user: int, coefficients: Tensor | None, alpha: Tensor) -> Tensor:
    """How much the lines of each unit may cost the bound, as estimated in BaBSR (Bunel et al. 2020); 0 for stable ones.

    A negative coefficient pays the upper line's offset; a positive one the mean gap between ReLU and the lower line at
    the ends. Every unstable unit has a positive score, so that none is forgotten.
    """
    operation, box = bounds.network.operation(user), bounds.boxes[source]
    assert isinstance(operation, LeakyReLU)
    lower, upper, kink = box.lower, box.upper, 1 - operation.negative
    a = torch.zeros_like(lower) if coefficients is None else coefficients[:, 0]
    width = (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny)
    offset = -kink * upper * lower / width
    gap = ((1 - alpha) * upper - (alpha - operation.negative) * lower) / 2
    score = a.clamp(max=0).abs() * offset + a.clamp(min=0) * gap
    return torch.where(operation.loose(box), score + 1e-9 * torch.minimum(upper, -lower) + 1e-30, 0)

"""Domains in which the network is linear: a linear program each, whose dual solution is checked by a sound bound."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from xrobust.certification.backward import Walk, linear_form, lower_bound
from xrobust.certification.bounds import Bounds
from xrobust.certification.domains import Domains, Layout, restricted
from xrobust.certification.specification import units


class Leaf(NamedTuple):
    """What is known of a domain: a lower bound (∞ if it is empty) and where the program has its minimum (C, H, W)."""

    lower: float
    image: Tensor | None


def solved(domain: Domains, root: Bounds, forms: Tensor, layout: Layout) -> Leaf:
    """The minimum of the form over the polytope where all split units have their signs.

    The program's multipliers give a lower bound by weak duality whatever the solver's tolerances are: it is computed as
    any other bound, rounding included. An empty domain is proven empty in the same way, by the multipliers of the
    program that looks for the least violation (Farkas' lemma).

    Args:
        domain: a single one, with no unstable unit left.
        root, forms, layout: as for `bounded`.
    """
    from scipy.optimize import linprog

    signs = layout.unpacked(domain.signs.to(forms.dtype), layout.sources)
    bounds = restricted(root.rows(domain.row), signs)
    a = forms[domain.row, domain.form].unsqueeze(1)
    objective = linear_form(bounds, a).coefficients.flatten().cpu().numpy().astype(np.float64)
    rows, offsets, places = _constraints(bounds, signs)
    limits = np.stack(
        [corner.flatten().double().cpu().numpy() for corner in (bounds.boxes[0].lower, bounds.boxes[0].upper)]
    )
    program = linprog(objective, A_ub=-rows, b_ub=offsets, bounds=limits.T)
    if program.status == 0:
        lower = _dual(bounds, a, signs, places, -program.ineqlin.marginals)
        return Leaf(max(lower, float(domain.lower[0])), torch.from_numpy(program.x).view_as(bounds.boxes[0].lower[0]))
    violation = linprog(
        np.append(np.zeros(rows.shape[1]), 1.0),
        A_ub=np.hstack([-rows, -np.ones((len(rows), 1))]),
        b_ub=offsets,
        bounds=[*limits.T, (0, None)],
    )
    if violation.status == 0 and _dual(bounds, 0 * a, signs, places, -violation.ineqlin.marginals) > 0:
        return Leaf(torch.inf, None)
    return Leaf(float(domain.lower[0]), None)


def _constraints(bounds: Bounds, signs: dict[int, Tensor]) -> tuple[np.ndarray, np.ndarray, dict[int, Tensor]]:
    """Rows G and offsets d with G·x + d ≥ 0, and the units that they are of, for each preactivation."""
    rows, offsets, places = [], [], {}
    for source, sign in signs.items():
        index = sign.flatten(1).nonzero()[:, 1]
        if len(index):
            places[source] = index
            side = sign.flatten(1)[0, index]
            form = linear_form(bounds, units(index.unsqueeze(0), sign.shape[1:], sign.dtype), source)
            rows.append((side.unsqueeze(1) * form.coefficients[0].flatten(1)).cpu().numpy())
            offsets.append((side * form.constant[0]).cpu().numpy())
    image = bounds.boxes[0].lower[0].numel()
    if not rows:
        return np.zeros((0, image)), np.zeros(0), places
    return np.concatenate(rows).astype(np.float64), np.concatenate(offsets).astype(np.float64), places


def _dual(bounds: Bounds, a: Tensor, signs: dict[int, Tensor], places: dict[int, Tensor], dual: np.ndarray) -> float:
    """The sound lower bound of the form with these multipliers ≥ 0 of the constraints."""
    multipliers = torch.from_numpy(np.maximum(dual, 0)).to(a)
    additions = {}
    for (source, index), part in zip(places.items(), multipliers.split([len(i) for i in places.values()]), strict=True):
        sign = signs[source].flatten(1)
        added = torch.zeros_like(sign)
        added[0, index] = -part * sign[0, index]
        additions[source] = added.view_as(signs[source]).unsqueeze(1)
    return float(lower_bound(bounds, a, walk=Walk(additions=additions)))

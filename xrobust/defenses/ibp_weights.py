"""Initial weights for interval arithmetic, and what keeps intervals tight while ε grows.

Shi et al. 2021, "Fast certified robust training with short warmup".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.certification import Bounds, Box
from xrobust.randomness import Generator, normal_like

TINY = 1e-12


@torch.no_grad()
def initialise(model: nn.Module, generator: Generator) -> None:
    """Draw the weights of all convolutions and linear layers but the last from N(0, 2π / n²), in place; n the fan-in.

    Then E|w| · n / 2 = 1, so that in the mean the radius of an interval neither grows nor shrinks through a layer and
    its ReLU. The last layer is the one that the model defines last; it and all biases stay as they are.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers[:-1]:
        drawn = normal_like(layer.weight, generator) * math.sqrt(2 * math.pi) / layer.weight[0].numel()
        layer.weight.copy_(drawn)


def tightness(image: Box, preactivations: Sequence[Box], tolerance: float) -> Tensor:
    """mean_l ReLU(τ − r̄₀ / r̄_l) / τ, in [0, 1]: the mean radius r̄_l of a layer may be 1/τ times that of the image."""
    start = image.radius.mean()
    terms = [F.relu(tolerance - start / box.radius.mean().clamp(min=TINY)) for box in preactivations]
    return torch.stack(terms).mean() / tolerance


def imbalance(preactivations: Sequence[Box], tolerance: float) -> Tensor:
    """mean_l [ReLU(τ − min(α_l, 1/α_l)) + ReLU(τ − min(β_l, 1/β_l))] / τ, in [0, 2]: active against inactive units.

    With the centres c of the active units (l > 0) and of the inactive ones (u < 0), α = Σ_active c / −Σ_inactive c and
    β = Σ_active (c − c̄)² / Σ_inactive (c − c̄)². A layer that has not both kinds counts as balanced.
    """
    terms = []
    for box in preactivations:
        active, inactive = box.lower > 0, box.upper < 0
        off = (box.centre - box.centre.mean()).square()
        alpha = _ratio((box.centre * active).sum(), -(box.centre * inactive).sum())
        beta = _ratio((off * active).sum(), (off * inactive).sum())
        both = active.any() & inactive.any()
        terms.append(both * (F.relu(tolerance - alpha) + F.relu(tolerance - beta)))
    return torch.stack(terms).mean() / tolerance


def relu_preactivations(bounds: Bounds) -> list[Box]:
    """The boxes of the values that ReLUs take."""
    network = bounds.network
    users = network.preactivations.items()
    return [bounds.boxes[node] for node, ops in users if node and all(network.operation(op).splits for op in ops)]


def _ratio(first: Tensor, second: Tensor) -> Tensor:
    """min(a/b, b/a) for a, b ≥ 0."""
    return torch.minimum(first, second) / torch.maximum(first, second).clamp(min=TINY)

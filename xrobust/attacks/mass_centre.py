"""The attack that moves the relevance across the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.attacks.attribution import AttributionAttack, Goal, relevance_shares


@dataclass(frozen=True, kw_only=True)
class MassCentreAttack(AttributionAttack):
    """max_z ‖C(z) − C(x)‖₂, C = Σ_i m_i·(row_i, column_i) / Σ_i m_i, m = Σ_c |a_c| (Ghorbani et al. 2019)."""

    def goal(self, maps: Tensor, logits: Tensor) -> Goal:
        start = mass_centre(maps)

        def loss(maps: Tensor, logits: Tensor) -> Tensor:
            return -(mass_centre(maps) - start).square().sum(1)

        return Goal(loss, loss)


def mass_centre(maps: Tensor) -> Tensor:
    """(row, column) of the centre of the relevance, in pixels; (0, 0) for a zero map: (N, C, H, W) → (N, 2)."""
    height, width = maps.shape[-2:]
    shares = relevance_shares(maps).view(-1, height, width)
    rows, columns = (torch.arange(n, device=maps.device, dtype=maps.dtype) for n in (height, width))
    return torch.stack([(shares.sum(2) * rows).sum(1), (shares.sum(1) * columns).sum(1)], 1)

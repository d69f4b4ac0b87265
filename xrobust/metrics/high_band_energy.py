"""How much of an attribution is fine grain."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.errors import UserError
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe


def high_band_energy(maps: Tensor, radius: float) -> Tensor:
    """Σ_{‖ω‖ > radius} |FFT(a)|² / Σ_ω |FFT(a)|², summed over the channels: (N, C, H, W) → (N,).

    ω in cycles a pixel, along each side at most ½. In [0, 1]; NaN for a zero map.
    """
    if not len(maps):  # which the FFT refuses
        return maps.new_zeros(0)
    energy = torch.fft.fft2(maps.double()).abs().square().sum(1)
    vertical, horizontal = (
        torch.fft.fftfreq(size, device=maps.device, dtype=torch.float64) for size in maps.shape[-2:]
    )
    high = torch.hypot(vertical[:, None], horizontal) > radius
    return energy.where(high, 0).sum((1, 2)) / energy.sum((1, 2))


class HighBandEnergy(ExplanationMetric):
    """The share of the signed map's energy at spatial frequencies above a radius (after Yin et al. 2019).

    Args:
        radius: in cycles a pixel, in [0, ½]; ½ is a chessboard along one side.
    """

    higher_is_better, group, cost = False, "smoothness", "cheap"

    def __init__(self, radius: float = 0.25):
        super().__init__()
        if not 0 <= radius <= 0.5:
            raise UserError(f"HighBandEnergy.radius must be between 0 and 0.5, got {radius}")
        self.radius = radius

    def per_sample(self, probe: Probe) -> Tensor:
        return high_band_energy(probe.map, self.radius)

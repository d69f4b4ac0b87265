"""Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xrobust.attributions.class_activation import ClassActivation


@dataclass(frozen=True, kw_only=True)
class GradCAM(ClassActivation):
    """a = ReLU(Σ_k α_k A_k), α_k = mean_ij ∂s/∂A_kij, interpolated to the image (Selvaraju et al. 2017)."""

    def weights(self, features: Tensor, gradients: Tensor) -> Tensor:
        return gradients.mean((2, 3))

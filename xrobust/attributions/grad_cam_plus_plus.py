"""Grad-CAM++."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xrobust.attributions.class_activation import ClassActivation


@dataclass(frozen=True, kw_only=True)
class GradCAMPlusPlus(ClassActivation):
    """a = ReLU(Σ_k w_k A_k), w_k = Σ_ij α_kij·max(g_kij, 0), g = ∂s/∂A (Chattopadhay et al. 2018).

    α_kij = g² / (2g² + g³·Σ_ab A_kab) is the paper's closed form for exp(s) with a network that is linear between
    its kinks. The factor exp(s), one number for each image, is left out. Features that are not negative (those after
    a ReLU) are assumed: otherwise the denominator may vanish.
    """

    def weights(self, features: Tensor, gradients: Tensor) -> Tensor:
        positive = gradients.relu()
        # g² cancels; where g ≤ 0 the product with max(g, 0) is 0 whatever α is.
        return (positive / (2 + positive * features.sum((2, 3), keepdim=True))).sum((2, 3))

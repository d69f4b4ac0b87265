"""Guided Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xrobust.attributions.base import Score
from xrobust.attributions.grad_cam import GradCAM
from xrobust.attributions.guided_backprop import GuidedBackprop
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class GuidedGradCAM(GuidedBackprop):
    """a = guided backpropagation ⊙ Grad-CAM in the size of the image (Selvaraju et al. 2017).

    Args:
        layer: as in `GradCAM`.
    """

    demands: ClassVar[str] = "a gradient, each ReLU as a module, and a layer with feature maps"

    layer: str | None = None

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        guided = super().attribute(model, x, score, create_graph, generator)
        grad_cam = GradCAM(layer=self.layer, batch_size=self.batch_size)
        coarse = grad_cam.activation_map(model, x, score, owner=type(self).__name__)
        return guided * coarse[:, None]

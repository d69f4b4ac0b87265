"""Input gradients that should look like a given map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.errors import one_of
from xrobust.frame import hard_labels, logits_of
from xrobust.randomness import Generator
from xrobust.regularizers.base import Regularizer
from xrobust.regularizers.gradients import cosine, leaf, logit_of

TargetMap = Callable[[Tensor, Tensor], Tensor]
"""Images (N, C, H, W) and one class for each (N,) → maps (N, C, H, W)."""

CLASSES = ("label", "all")


@dataclass(frozen=True, kw_only=True)
class GradientTarget(Regularizer):
    """R(x) = mean over k of 1 − cos(∇ₓ f_k(x), t(x, k)); in [0, 2].

    Noack et al. (2021) take for t the map of a robust network, k the label; Ganz, Kawar & Elad (2023) the direction
    from x to what class k looks like, over all k. An image whose gradient or target vanishes pays nothing.

    Args:
        target: t, such as those in `regularizers.targets`.
        classes: k, the "label" or "all", which costs a backward pass for each class.
    """

    target: TargetMap
    classes: str = "label"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes not in CLASSES:
            raise one_of(f"{type(self).__name__}.classes", self.classes, CLASSES)

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        x_in = leaf(x)
        output = logits_of(model, x_in)
        label, every = hard_labels(y), torch.arange(output.shape[1], device=x.device)
        asked = label[None] if self.classes == "label" else every[:, None].expand(-1, len(x))
        distances = []
        for classes in asked:
            (gradient,) = torch.autograd.grad(logit_of(classes)(output).sum(), x_in, create_graph=True)
            distances.append(1 - cosine(gradient, self.target(x.detach(), classes)))
        return torch.stack(distances).mean(0)

"""What input gradients may be asked to look like: images and one class for each → maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xrobust.attributions import Attribution, Gradient
from xrobust.errors import UserError


@dataclass(frozen=True, eq=False)
class TeacherMap:
    """The attribution of another network, such as a robust one, for the class (Noack et al. 2021).

    Args:
        model: the network; it is not trained.
        attribution: the method.
    """

    model: nn.Module
    attribution: Attribution = field(default_factory=Gradient)

    def __call__(self, x: Tensor, classes: Tensor) -> Tensor:
        return self.attribution(self.model.to(x.device), x, classes)


@dataclass(frozen=True, eq=False)
class TowardsClass:
    """r_k − x: the direction from the image to what stands for the class (Ganz, Kawar & Elad 2023).

    Args:
        images: r, (K, C, H, W).
    """

    images: Tensor

    def __call__(self, x: Tensor, classes: Tensor) -> Tensor:
        if self.images.shape[1:] != x.shape[1:]:
            raise UserError(f"images of classes {tuple(self.images.shape)} do not fit images {tuple(x.shape)}")
        return self.images.to(x.device, x.dtype)[classes] - x


def towards_class_means(data: Any) -> TowardsClass:
    """`TowardsClass` for the mean training image of each class.

    Args:
        data: a data module: `setup()`, and a `train_dataloader()` that holds uint8 `images` and `labels`.
    """
    data.setup()
    loader = data.train_dataloader()
    means = [loader.images[loader.labels == k].double().mean(0) for k in loader.labels.unique()]
    return TowardsClass((torch.stack(means) / 255).float())

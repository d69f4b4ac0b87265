"""Images as models take them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unit(images: Tensor) -> Tensor:
    """Floating-point images as they are; uint8 divided by 255."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def device_of(model: nn.Module, x: Tensor) -> torch.device:
    """Where the model computes; for a model without parameters, where the images are."""
    return next((parameter.device for parameter in model.parameters()), x.device)

"""Weight initialisation."""

from __future__ import annotations

from torch import nn


def he_normal(model: nn.Module) -> None:
    """Draw the weights of every convolution from N(0, 2 / fan_out), in place (He et al. 2015)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

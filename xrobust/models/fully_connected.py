"""Fully connected networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.models.activation import Activation, make_activation
from xrobust.models.normalize import Normalize


class FullyConnected(nn.Module):
    """FC(h₁) – … – FC(h_m) – FC(K) on the flattened image.

    Weights start from PyTorch's defaults.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H = W.
        mean, std: normalisation for each channel, or None for raw pixels.
        activation: see `make_activation`.
        hidden: the widths h; none gives a linear classifier.

    Shapes: (N, C, H, W) in [0, 1] → (N, K).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        activation: Activation = "relu",
        hidden: Sequence[int] = (100, 100),
    ):
        super().__init__()
        at_least("model", 1, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        at_least("model", 1, hidden=min(hidden, default=1))
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            normalize=Normalize(mean, std, in_channels), flatten=nn.Flatten()
        )
        features = in_channels * image_size**2
        for number, size in enumerate(hidden, 1):
            layers[f"linear{number}"] = nn.Linear(features, size)
            layers[f"activation{number}"] = make_activation(activation)
            features = size
        layers[f"linear{len(hidden) + 1}"] = nn.Linear(features, num_classes)
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

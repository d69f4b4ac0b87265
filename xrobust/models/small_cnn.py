"""2C2F, the small convolutional network of the certified-training literature."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.models.activation import Activation, make_activation
from xrobust.models.normalize import Normalize
from xrobust.models.shapes import side_after


class SmallCNN(nn.Module):
    """Conv(w, 4, 2) – Conv(2w, 4, 2) – FC(hidden) – FC(K): 2C2F of Leino et al. 2021.

    Convolutions are (channels, kernel, stride) with padding 1. Weights start from PyTorch's defaults.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H = W, at least 4.
        mean, std: normalisation for each channel, or None for raw pixels.
        activation: see `make_activation`.
        width: w, the channels of the first convolution.
        hidden: the width of the fully connected layer.

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
        width: int = 16,
        hidden: int = 100,
    ):
        super().__init__()
        at_least(
            "model",
            1,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            width=width,
            hidden=hidden,
        )
        side = side_after(image_size, [(4, 2, 1), (4, 2, 1)])
        self.layers = nn.Sequential(
            OrderedDict(
                normalize=Normalize(mean, std, in_channels),
                conv1=nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
                activation1=make_activation(activation),
                conv2=nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                activation2=make_activation(activation),
                flatten=nn.Flatten(),
                linear1=nn.Linear(2 * width * side**2, hidden),
                activation3=make_activation(activation),
                linear2=nn.Linear(hidden, num_classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

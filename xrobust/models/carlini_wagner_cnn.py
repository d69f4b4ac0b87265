"""Four convolutions in two pairs, each with max pooling, then three fully connected layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.models.activation import Activation, make_activation
from xrobust.models.normalize import Normalize
from xrobust.models.shapes import side_after


class CarliniWagnerCNN(nn.Module):
    """2 × Conv3×3(32) – MaxPool2 – 2 × Conv3×3(64) – MaxPool2 – FC(200) – FC(200) – FC(K), without padding.

    The MNIST network of Carlini & Wagner 2017, which TRADES calls SmallCNN. Weights start from PyTorch's defaults.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H = W, at least 16.
        mean, std: normalisation for each channel, or None for raw pixels.
        activation: see `make_activation`.
        dropout: the share of the first hidden layer that is dropped in training.

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
        dropout: float = 0.5,
    ):
        super().__init__()
        at_least("model", 1, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        side = side_after(image_size, 2 * [(3, 1, 0), (3, 1, 0), (2, 2, 0)])
        self.layers = nn.Sequential(
            OrderedDict(
                normalize=Normalize(mean, std, in_channels),
                conv1=nn.Conv2d(in_channels, 32, 3),
                activation1=make_activation(activation),
                conv2=nn.Conv2d(32, 32, 3),
                activation2=make_activation(activation),
                pool1=nn.MaxPool2d(2),
                conv3=nn.Conv2d(32, 64, 3),
                activation3=make_activation(activation),
                conv4=nn.Conv2d(64, 64, 3),
                activation4=make_activation(activation),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                linear1=nn.Linear(64 * side**2, 200),
                activation5=make_activation(activation),
                dropout=nn.Dropout(dropout),
                linear2=nn.Linear(200, 200),
                activation6=make_activation(activation),
                linear3=nn.Linear(200, num_classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

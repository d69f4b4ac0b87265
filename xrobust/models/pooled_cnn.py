"""Two convolutions with max pooling, then two fully connected layers: LeNet and Madry's MNIST network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.models.activation import Activation, make_activation
from xrobust.models.normalize import Normalize
from xrobust.models.shapes import side_after


class PooledCNN(nn.Module):
    """Conv5×5 – MaxPool2 – Conv5×5 – MaxPool2 – FC – FC(K); subclasses fix the widths.

    Weights start from PyTorch's defaults.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H = W.
        mean, std: normalisation for each channel, or None for raw pixels.
        activation: see `make_activation`.

    Shapes: (N, C, H, W) in [0, 1] → (N, K).
    """

    widths: tuple[int, int]
    hidden: int
    padding: int

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        activation: Activation = "relu",
    ):
        super().__init__()
        at_least("model", 1, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        first, second = self.widths
        side = side_after(image_size, 2 * [(5, 1, self.padding), (2, 2, 0)])
        self.layers = nn.Sequential(
            OrderedDict(
                normalize=Normalize(mean, std, in_channels),
                conv1=nn.Conv2d(in_channels, first, 5, padding=self.padding),
                activation1=make_activation(activation),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(first, second, 5, padding=self.padding),
                activation2=make_activation(activation),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                linear1=nn.Linear(second * side**2, self.hidden),
                activation3=make_activation(activation),
                linear2=nn.Linear(self.hidden, num_classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LeNet(PooledCNN):
    """Conv(20), Conv(50) without padding, FC(500), FC(K): LeNet (LeCun et al. 1998).

    The widths are those of the smoothing papers.

    Arguments, shapes and weights as in `PooledCNN`; images of at least 16 × 16.
    """

    widths = (20, 50)
    hidden = 500
    padding = 0


class MadryCNN(PooledCNN):
    """Conv(32), Conv(64) with "same" padding, FC(1024), FC(K): the MNIST network of Madry et al. 2018.

    Arguments, shapes and weights as in `PooledCNN`; images of at least 4 × 4.
    """

    widths = (32, 64)
    hidden = 1024
    padding = 2

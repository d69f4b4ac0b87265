"""Convolutional networks that are 1-Lipschitz in L2 up to their last layer, by AOL, Cayley or SLL layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.models.activation import MinMax
from xrobust.models.normalize import Normalize
from xrobust.models.one_lipschitz import AOLConv2d, AOLLinear, CayleyConv2d, CayleyLinear, SLLConv2d, SLLLinear
from xrobust.models.shapes import side_after


class OneLipschitzCNN(nn.Module):
    """Stages that halve the image and widen, then a hidden layer and the last layer, which alone is free.

    Subclasses say what a stage and the hidden layer are. With `std`, the constant is 1/min(std).

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H = W, at least 2^stages.
        mean, std: normalisation for each channel, or None for raw pixels.
        width: channels after the first stage, even; each further stage doubles them.
        stages: so many.
        hidden: width of the hidden layer, even.

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
        width: int = 16,
        stages: int = 2,
        hidden: int = 128,
    ):
        super().__init__()
        at_least("model", 1, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        at_least("model", 1, width=width, stages=stages, hidden=hidden)
        side = side_after(image_size, [(2, 2, 0)] * stages)
        layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=Normalize(mean, std, in_channels))
        channels = in_channels
        for number in range(1, stages + 1):
            wider = width * 2 ** (number - 1)
            for name, layer in self.stage(channels, wider):
                layers[f"{name}{number}"] = layer
            channels = wider
        layers["flatten"] = nn.Flatten()
        layers.update(self.hidden(channels * side**2, hidden))
        layers["head"] = nn.Linear(hidden, num_classes)
        self.layers = nn.Sequential(layers)

    def stage(self, channels: int, wider: int) -> Iterator[tuple[str, nn.Module]]:
        """Named layers: (N, channels, H, W) → (N, wider, ⌊H/2⌋, ⌊W/2⌋)."""
        raise NotImplementedError

    def hidden(self, features: int, width: int) -> Iterator[tuple[str, nn.Module]]:
        """Named layers: (N, features) → (N, width)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class AOLCNN(OneLipschitzCNN):
    """Almost orthogonal layers (Prach & Lampert 2022): 2×2 with stride 2, MinMax, 3×3, MinMax in each stage.

    Arguments and shapes as in `OneLipschitzCNN`.
    """

    def stage(self, channels: int, wider: int) -> Iterator[tuple[str, nn.Module]]:
        yield "down", AOLConv2d(channels, wider, 2, stride=2)
        yield "down_activation", MinMax()
        yield "conv", AOLConv2d(wider, wider, 3, padding=1)
        yield "activation", MinMax()

    def hidden(self, features: int, width: int) -> Iterator[tuple[str, nn.Module]]:
        yield "linear", AOLLinear(features, width)
        yield "last_activation", MinMax()


class CayleyCNN(OneLipschitzCNN):
    """Cayley transforms (Trockman & Kolter 2021) of 2×2 patches, and of each pixel's channels.

    Arguments and shapes as in `OneLipschitzCNN`.
    """

    def stage(self, channels: int, wider: int) -> Iterator[tuple[str, nn.Module]]:
        yield "down", CayleyConv2d(channels, wider, 2)
        yield "down_activation", MinMax()
        yield "conv", CayleyConv2d(wider, wider, 1)
        yield "activation", MinMax()

    def hidden(self, features: int, width: int) -> Iterator[tuple[str, nn.Module]]:
        yield "linear", CayleyLinear(features, width)
        yield "last_activation", MinMax()


class SLLCNN(OneLipschitzCNN):
    """SDP-based layers (Araujo et al. 2023): orthogonal 2×2 patches, then two 3×3 blocks in each stage.

    Arguments and shapes as in `OneLipschitzCNN`.
    """

    def stage(self, channels: int, wider: int) -> Iterator[tuple[str, nn.Module]]:
        yield "down", CayleyConv2d(channels, wider, 2)
        yield "first", SLLConv2d(wider)
        yield "second", SLLConv2d(wider)

    def hidden(self, features: int, width: int) -> Iterator[tuple[str, nn.Module]]:
        yield "linear", CayleyLinear(features, width)
        yield "block", SLLLinear(width)

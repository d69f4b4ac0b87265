"""The convolutional networks of the certified-training papers: CNN7, DM-small, DM-medium, DM-large."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.models.activation import Activation, make_activation
from xrobust.models.normalize import Normalize
from xrobust.models.shapes import side_after

Window = tuple[int, int, int]  # channels, kernel, stride


class CertifiedCNN(nn.Module):
    """Convolutions, then fully connected layers; subclasses fix the widths.

    Weights start from PyTorch's defaults.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H = W.
        mean, std: normalisation for each channel, or None for raw pixels.
        activation: see `make_activation`.
        width: a factor of all channels and fully connected widths; 1 as published.

    Shapes: (N, C, H, W) in [0, 1] → (N, K).
    """

    convolutions: tuple[Window, ...]
    padding: int
    hidden: tuple[int, ...]
    batch_norm: bool

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        activation: Activation = "relu",
        width: float = 1.0,
    ):
        super().__init__()
        at_least("model", 1, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        at_least("model", 0.01, width=width)
        side = side_after(image_size, [(kernel, stride, self.padding) for _, kernel, stride in self.convolutions])
        layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=Normalize(mean, std, in_channels))

        def follow(number: int, norm: type[nn.Module], size: int) -> None:
            if self.batch_norm:
                layers[f"norm{number}"] = norm(size)
            layers[f"activation{number}"] = make_activation(activation)

        channels = in_channels
        for number, (wanted, kernel, stride) in enumerate(self.convolutions, 1):
            size = max(1, round(wanted * width))
            layers[f"conv{number}"] = nn.Conv2d(channels, size, kernel, stride, padding=self.padding)
            follow(number, nn.BatchNorm2d, size)
            channels = size
        layers["flatten"] = nn.Flatten()
        features = channels * side**2
        for number, wanted in enumerate(self.hidden, 1):
            size = max(1, round(wanted * width))
            layers[f"linear{number}"] = nn.Linear(features, size)
            follow(len(self.convolutions) + number, nn.BatchNorm1d, size)
            features = size
        layers[f"linear{len(self.hidden) + 1}"] = nn.Linear(features, num_classes)
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class CNN7(CertifiedCNN):
    """Five 3×3 convolutions, 64, 64, 128 (stride 2), 128, 128, and FC(512), batch norm in every layer but the last.

    The network of Shi et al. 2021, Müller et al. 2023 and De Palma et al. 2024. Arguments, shapes and weights as in
    `CertifiedCNN`.
    """

    convolutions = ((64, 3, 1), (64, 3, 1), (128, 3, 2), (128, 3, 1), (128, 3, 1))
    padding = 1
    hidden = (512,)
    batch_norm = True


class DMSmall(CertifiedCNN):
    """Conv(16, 4, 2), Conv(32, 4, 1) without padding, FC(100): the small network of Gowal et al. 2018.

    Arguments, shapes and weights as in `CertifiedCNN`.
    """

    convolutions = ((16, 4, 2), (32, 4, 1))
    padding = 0
    hidden = (100,)
    batch_norm = False


class DMMedium(CertifiedCNN):
    """The medium network of Gowal et al. 2018.

    Conv(32, 3, 1), Conv(32, 4, 2), Conv(64, 3, 1), Conv(64, 4, 2) without padding, FC(512), FC(512).

    Arguments, shapes and weights as in `CertifiedCNN`.
    """

    convolutions = ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2))
    padding = 0
    hidden = (512, 512)
    batch_norm = False


class DMLarge(CertifiedCNN):
    """Conv 64, 64, 128 (stride 2), 128, 128, all 3×3 with padding 1, FC(512): the large network of Gowal et al. 2018.

    CNN7 without batch norm. Arguments, shapes and weights as in `CertifiedCNN`.
    """

    convolutions = CNN7.convolutions
    padding = 1
    hidden = (512,)
    batch_norm = False

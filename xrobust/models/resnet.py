"""Residual networks for small images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.models.activation import Activation, make_activation
from xrobust.models.init import he_normal
from xrobust.models.normalize import Normalize


class BasicBlock(nn.Module):
    """activation(F(x) + S(x)), F = conv – norm – activation – conv – norm, S = identity or conv – norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: Activation):
        super().__init__()
        self.residual = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
                norm1=nn.BatchNorm2d(out_channels),
                activation=make_activation(activation),
                conv2=nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                norm2=nn.BatchNorm2d(out_channels),
            )
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                    norm=nn.BatchNorm2d(out_channels),
                )
            )
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.residual(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet for 32 × 32 images (He et al. 2016): a 3×3 stem without pooling, and stages that halve the side.

    With the defaults this is the ResNet-18 of the robustness papers: 11,173,962 parameters for CIFAR-10.
    Convolutions start from He's normal initialisation, the last layer from PyTorch's default.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H = W, at least 2^(stages − 1).
        mean, std: normalisation for each channel, or None for raw pixels.
        activation: see `make_activation`.
        blocks: residual blocks in each stage.
        width: channels of the first stage; each further stage doubles them.

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
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
    ):
        super().__init__()
        at_least(
            "model",
            1,
            num_classes=num_classes,
            in_channels=in_channels,
            width=width,
            blocks=min(blocks, default=0),
        )
        at_least("model", 2 ** (len(blocks) - 1), image_size=image_size)
        self.normalize = Normalize(mean, std, in_channels)
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(width),
                activation=make_activation(activation),
            )
        )
        self.stages = nn.Sequential()
        channels = width
        for stage, depth in enumerate(blocks):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                self.stages.append(BasicBlock(channels, width * 2**stage, stride, activation))
                channels = width * 2**stage
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.flatten(self.pool(self.stages(self.stem(self.normalize(x))))))

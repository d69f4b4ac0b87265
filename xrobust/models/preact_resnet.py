"""Residual networks with pre-activation, narrow and wide."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from xrobust.errors import UserError, at_least
from xrobust.models.activation import Activation, make_activation
from xrobust.models.init import he_normal
from xrobust.models.normalize import Normalize


class PreActBlock(nn.Module):
    """S(x) + conv(a(conv(a(x)))), a = activation ∘ norm, S(x) = x or a 1×1 convolution of a(x)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: Activation):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.activation1 = make_activation(activation)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.activation2 = make_activation(activation)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation1(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        return skip + self.conv2(self.activation2(self.norm2(self.conv1(active))))


class PreActResNet(nn.Module):
    """Pre-activation ResNet for 32 × 32 images (He et al. 2016, "Identity mappings").

    With the defaults this is the PreActResNet-18 of Rice et al. 2020: 11,172,170 parameters for CIFAR-10,
    1,024 of which belong to the final norm, which some variants lack. Convolutions start from He's normal
    initialisation, the last layer from PyTorch's default.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H = W, at least 2^(stages − 1).
        mean, std: normalisation for each channel, or None for raw pixels.
        activation: see `make_activation`.
        blocks: residual blocks in each stage.
        widths: channels of each stage.
        stem: channels of the first convolution.

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
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
    ):
        super().__init__()
        at_least("model", 1, num_classes=num_classes, in_channels=in_channels, stem=stem)
        at_least("model", 1, blocks=min(blocks, default=0), widths=min(widths, default=0))
        if len(blocks) != len(widths):
            raise UserError(f"model.blocks={list(blocks)} and model.widths={list(widths)} must have one entry a stage")
        at_least("model", 2 ** (len(blocks) - 1), image_size=image_size)
        self.normalize = Normalize(mean, std, in_channels)
        self.stem = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.stages = nn.Sequential()
        channels = stem
        for stage, (depth, width) in enumerate(zip(blocks, widths, strict=True)):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                self.stages.append(PreActBlock(channels, width, stride, activation))
                channels = width
        self.norm = nn.BatchNorm2d(channels)
        self.activation = make_activation(activation)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        features = self.activation(self.norm(self.stages(self.stem(self.normalize(x)))))
        return self.linear(self.flatten(self.pool(features)))


class WideResNet(PreActResNet):
    """WRN-depth-widen: pre-activation, three wide stages, no dropout (Zagoruyko & Komodakis 2016).

    WRN-28-10 has 36,479,194 parameters for CIFAR-10. The rest is as in `PreActResNet`.

    Args:
        depth: 6n + 4 layers, n blocks in each stage.
        widen: k, the stages have 16k, 32k and 64k channels.
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
        depth: int = 28,
        widen: int = 10,
    ):
        at_least("model", 1, widen=widen)
        at_least("model", 10, depth=depth)
        if (depth - 4) % 6:
            raise UserError(f"model.depth must be 6n + 4 (10, 16, 22, 28, 34, ...), got {depth}")
        super().__init__(
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            mean=mean,
            std=std,
            activation=activation,
            blocks=3 * [(depth - 4) // 6],
            widths=[16 * widen, 32 * widen, 64 * widen],
            stem=16,
        )

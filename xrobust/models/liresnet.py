"""LiResNet: a deep network whose Lipschitz constant stays small, of linear residual blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.models.activation import Activation, make_activation
from xrobust.models.normalize import Normalize
from xrobust.models.one_lipschitz import CayleyConv2d, CayleyLinear
from xrobust.models.shapes import side_after


class LinearResidual(nn.Conv2d):
    """x + s·(γ ∘ W) ∗ x + b, computed as the one convolution that it is (Hu et al. 2023).

    The norm of the whole is below 1 + s‖γ ∘ W‖, which is all that is known of a block with an activation inside.

    Args:
        channels: of input and output.
        scale: s; 1/√depth as published.

    Shapes: (N, channels, H, W) → the same; 3×3 with padding 1.
    """

    identity: Tensor

    def __init__(self, channels: int, scale: float):
        super().__init__(channels, channels, 3, padding=1)
        nn.init.normal_(self.weight, std=1 / (9 * channels))
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1, 1))
        self.scale = scale
        identity = torch.zeros_like(self.weight)
        identity[:, :, 1, 1] = torch.eye(channels)
        self.register_buffer("identity", identity, persistent=False)

    def effective_weight(self) -> Tensor:
        """δ + s·γ ∘ W, (channels, channels, 3, 3)."""
        return self.identity + self.scale * self.gamma * self.weight

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.effective_weight(), self.bias, padding=1)


class NormalizedLinear(nn.Linear):
    """The last layer with rows of norm 1 (Singla et al. 2022): all pairs of classes are told apart by like slopes."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight / torch.linalg.vector_norm(self.weight, dim=1, keepdim=True), self.bias)


class LiResNet(nn.Module):
    """Stem – depth × (linear residual block, activation) – neck – normalised last layer (Hu et al. 2023).

    Stem: 5×5, stride 2. Neck: patches of a quarter of the image's side by a matrix with orthonormal rows, then one
    linear layer with orthonormal rows. The published neck has eight more fully connected layers, and the published
    blocks subtract a running mean.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H = W, such that the side after the stem is a multiple of `patch`.
        mean, std: normalisation for each channel, or None for raw pixels.
        activation: see `make_activation`.
        width: channels of the blocks, even for MinMax.
        depth: so many blocks.
        patch: the side of the neck's patches.
        hidden: features that the last layer takes.

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
        activation: Activation = "min_max",
        width: int = 512,
        depth: int = 12,
        patch: int = 4,
        hidden: int = 2048,
    ):
        super().__init__()
        sizes = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size, "hidden": hidden}
        at_least("model", 1, width=width, depth=depth, patch=patch, **sizes)
        side = side_after(image_size, [(5, 2, 2), (patch, patch, 0)])
        layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=Normalize(mean, std, in_channels))
        layers["stem"] = stem = nn.Conv2d(in_channels, width, 5, stride=2, padding=2)
        nn.init.orthogonal_(stem.weight)
        layers["activation"] = make_activation(activation)
        for number in range(1, depth + 1):
            layers[f"block{number}"] = LinearResidual(width, depth**-0.5)
            layers[f"activation{number}"] = make_activation(activation)
        layers["neck"] = CayleyConv2d(width, width, patch)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = CayleyLinear(width * side**2, hidden)
        layers["last_activation"] = make_activation(activation)
        layers["head"] = NormalizedLinear(hidden, num_classes)
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

"""Layers that are 1-Lipschitz in L2 whatever their parameters are: AOL, Cayley, SLL."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = 1e-12  # keeps an all-zero direction from being divided by 0; it only lowers norms


def _in_full_precision(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Computed in float32 at least, whatever the autocast: in bfloat16, orthogonal is off by percents."""

    @wraps(function)
    def computed(weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return function(weight.to(torch.promote_types(weight.dtype, torch.float32))).to(weight.dtype)

    return computed


@_in_full_precision
def autocorrelation(kernel: Tensor) -> Tensor:
    """Σ over all shifts of |⟨w_i, shifted w_j⟩| for the first dimension of a kernel or matrix: (C, …) → (C, C)."""
    if kernel.dim() == 2:
        return (kernel @ kernel.T).abs()
    return F.conv2d(kernel, kernel, padding=[side - 1 for side in kernel.shape[2:]]).abs().sum((2, 3))


class AOLLinear(nn.Linear):
    """y = W·diag(d)·x + b with d_i = (Σ_j |WᵀW|_ij)^(−1/2): almost orthogonal (Prach & Lampert 2022).

    Shapes and arguments as `torch.nn.Linear`; W starts orthogonal.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        nn.init.orthogonal_(self.weight)

    def effective_weight(self) -> Tensor:
        """W·diag(d), (out, in)."""
        return self.weight * (autocorrelation(self.weight.transpose(0, 1)).sum(1) + TINY).rsqrt()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.effective_weight(), self.bias)


class AOLConv2d(nn.Conv2d):
    """The convolution with the kernel w·d, d_c = (Σ_c' Σ_shifts |⟨w_c, shifted w_c'⟩|)^(−1/2) (Prach & Lampert 2022).

    1-Lipschitz for any image size, stride and zero padding, because each is a part of the convolution on the plane.
    Shapes and arguments as `torch.nn.Conv2d`; starts as near to the identity as the channels allow.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        nn.init.zeros_(self.weight)
        with torch.no_grad():
            nn.init.orthogonal_(self.weight[:, :, kernel_size // 2, kernel_size // 2])

    def effective_weight(self) -> Tensor:
        """w·d, (out, in, k, k)."""
        scale = (autocorrelation(self.weight.transpose(0, 1)).sum(1) + TINY).rsqrt()
        return self.weight * scale.view(1, -1, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.effective_weight(), self.bias, self.stride, self.padding)


@_in_full_precision
def cayley(weight: Tensor) -> Tensor:
    """The Cayley transform of a matrix: orthonormal rows or columns, whichever are fewer: (m, n) → (m, n).

    With W = (U; V), U square, and A = U − Uᵀ + VᵀV: ((I + A)⁻¹(I − A); −2 V (I + A)⁻¹) has orthonormal columns
    (Trockman & Kolter 2021).
    """
    if weight.shape[0] < weight.shape[1]:
        return cayley(weight.T).T
    square, rest = weight[: weight.shape[1]], weight[weight.shape[1] :]
    skew = square - square.T + rest.T @ rest
    one = torch.eye(len(skew), dtype=weight.dtype, device=weight.device)
    inverse = torch.linalg.inv(one + skew)
    return torch.cat([inverse @ (one - skew), -2 * rest @ inverse])


class CayleyLinear(nn.Linear):
    """y = cayley(W)·x + b: no direction is shrunk that need not be. Shapes and arguments as `torch.nn.Linear`."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        nn.init.orthogonal_(self.weight)

    def effective_weight(self) -> Tensor:
        """cayley(W), (out, in)."""
        return cayley(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.effective_weight(), self.bias)


class CayleyConv2d(nn.Conv2d):
    """A convolution of non-overlapping patches (stride = kernel) by one matrix with orthonormal rows or columns.

    Shapes and arguments as `torch.nn.Conv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__(in_channels, out_channels, kernel_size, kernel_size)
        nn.init.orthogonal_(self.weight)

    def effective_weight(self) -> Tensor:
        """The matrix as a kernel, (out, in, k, k)."""
        return cayley(self.weight.flatten(1)).view(self.weight.shape)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.effective_weight(), self.bias, self.stride)


class _SLL(nn.Module):
    """What SLL layers share: V, b, and q as exp(log_q), all by V's first dimension."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight)))
        self.log_q = nn.Parameter(torch.zeros(len(weight)))

    def diagonal(self) -> Tensor:
        """The diagonal of T, (hidden,)."""
        q = self.log_q.exp()
        return (autocorrelation(self.weight) * q).sum(1) / q + TINY


class SLLLinear(_SLL):
    """x − 2 Vᵀ T⁻¹ ReLU(V x + b), T_ii = Σ_j |V Vᵀ|_ij q_j / q_i with q > 0 (Araujo et al. 2023).

    Args:
        features: of input and output.
        hidden: rows of V; by default as many.

    Shapes: (N, features) → (N, features).
    """

    def __init__(self, features: int, hidden: int | None = None):
        super().__init__(nn.init.orthogonal_(torch.empty(hidden or features, features)))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(F.linear(x, self.weight, self.bias))
        return x - F.linear(2 * hidden / self.diagonal(), self.weight.T)


class SLLConv2d(_SLL):
    """The same with a convolution V of odd kernel and zero padding, which keeps the image's size.

    Shapes: (N, channels, H, W) → (N, channels, H, W).
    """

    def __init__(self, channels: int, hidden: int | None = None, kernel_size: int = 3):
        weight = torch.zeros(hidden or channels, channels, kernel_size, kernel_size)
        nn.init.orthogonal_(weight[:, :, kernel_size // 2, kernel_size // 2])
        super().__init__(weight)
        self.padding = kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(F.conv2d(x, self.weight, self.bias, padding=self.padding))
        hidden = 2 * hidden / self.diagonal().view(-1, 1, 1)
        return x - F.conv_transpose2d(hidden, self.weight, padding=self.padding)

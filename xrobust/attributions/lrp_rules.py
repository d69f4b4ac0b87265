"""How layer-wise relevance propagation shares a linear layer's relevance among its inputs.

A rule is a linear map from the layer's inputs to its outputs, of which each output's contributions are taken: the
relevance R_k of an output is shared as R_ik = n_ik / (Σ_i n_ik + b_k) · R_k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Apply = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """h ↦ W·h + b for a dense layer or convolution.

    Args:
        apply: (h, W) → W·h.
        weight: W, its first dimension that of the outputs.
        bias: b, (K,).
    """

    apply: Apply
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, module: nn.Linear | nn.Conv2d) -> LinearMap:
        def convolve(h: Tensor, weight: Tensor) -> Tensor:
            assert isinstance(module, nn.Conv2d)
            return module._conv_forward(h, weight, None)  # all padding modes

        weight = module.weight
        bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias
        return cls(convolve if isinstance(module, nn.Conv2d) else F.linear, weight, bias)

    def then(self, norm: Any) -> LinearMap:
        """This layer and a batch norm in eval mode as one: W ← s·W, b ← s·b + t."""
        scale, shift = scale_and_shift(norm)
        weight = self.weight * scale.view(-1, *[1] * (self.weight.dim() - 1))
        return replace(self, weight=weight, bias=self.bias * scale + shift)

    def __call__(self, h: Tensor) -> Tensor:
        return self.apply(h, self.weight)

    def signed(self, h: Tensor, signal: Tensor, sign: int) -> Tensor:
        """Of W·signal the terms whose contribution w·h has this sign, 1 or −1."""
        with_sign, against = (self.weight * sign).relu() * sign, (self.weight * -sign).relu() * -sign
        total = self.apply(signal * (h > 0), with_sign)
        if (h < 0).any():  # seldom: most layers follow a ReLU
            total = total + self.apply(signal * (h < 0), against)
        return total

    @property
    def spread_bias(self) -> Tensor:
        """The bias, shaped to be added to the output."""
        return self.bias.view(-1, *[1] * (self.weight.dim() - 2))


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """s and t of a batch norm in eval mode, h ↦ s·h + t: both (K,)."""
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def ratio(z: Tensor, total: Tensor, epsilon: float) -> Tensor:
    """z / (total + ε·sign(total)), sign(0) = 1; where that is a division by 0, z stays as it is."""
    total = total + epsilon * torch.where(total < 0, -1.0, 1.0).to(total.dtype)
    return z / total.where(total != 0, 1)


def gamma_rule(layer: LinearMap, h: Tensor, z: Tensor, signal: Tensor, gamma: float, epsilon: float) -> Tensor:
    """Contributions z_ik + γ·z_ik·[z_ik has the sign of z_k]: the output of the layer's stand-in for a signal.

    γ = 0 is the ε rule, γ = ∞ the z⁺ rule (only contributions of z_k's sign), and where h ≥ 0 and z > 0 it is the γ
    rule of Montavon et al. 2019; with the sign it cannot divide by a vanishing sum. The bias takes its part.

    Args:
        h: the layer's input.
        z: its output, W·h + b.
        signal: what the stand-in is applied to.
        gamma: γ ≥ 0.
        epsilon: ε ≥ 0, in the unit of z.
    """
    if gamma == 0:
        return layer(signal) * ratio(z, z, epsilon)
    bias, up = layer.spread_bias, z >= 0

    def enhanced(values: Tensor) -> Tensor:
        return layer.signed(h, values, 1) * up + layer.signed(h, values, -1) * ~up

    share = enhanced(h) + bias.relu().where(up, -(-bias).relu())
    if gamma == torch.inf:
        return enhanced(signal) * ratio(z, share, epsilon)
    return (layer(signal) + gamma * enhanced(signal)) * ratio(z, z + gamma * share, epsilon)


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """What a rule for the first layer may use: the layer, its input, and that for a black and for a white image."""

    layer: LinearMap
    h: Tensor
    low: Tensor
    high: Tensor


def z_box(first: FirstLayer, signal: Tensor) -> Tensor:
    """n_ik = h_i·w_ik − l_i·w⁺_ik − u_i·w⁻_ik ≥ 0, l and u the bounds of h (Montavon et al. 2017)."""
    apply, weight = first.layer.apply, first.layer.weight
    low, high = torch.minimum(first.low, first.high), torch.maximum(first.low, first.high)
    return apply(first.h * signal, weight) - apply(low * signal, weight.relu()) + apply(high * signal, (-weight).relu())


def flat(first: FirstLayer, signal: Tensor) -> Tensor:
    """n_ik = 1: equal shares for all of the receptive field (Lapuschkin et al. 2019)."""
    return first.layer.apply(signal, torch.ones_like(first.layer.weight))


def w_squared(first: FirstLayer, signal: Tensor) -> Tensor:
    """n_ik = w²_ik (Montavon et al. 2017)."""
    return first.layer.apply(signal, first.layer.weight.square())


FIRST: dict[str, Callable[[FirstLayer, Tensor], Tensor]] = {rule.__name__: rule for rule in (z_box, flat, w_squared)}
"""Rules for the layer that sees the image. Their signal is the share that each input has in its contributions, 1."""

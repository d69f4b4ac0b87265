"""Fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.certification.operation import Affine
from xrobust.certification.rules.registry import Call, rule


@dataclass(frozen=True, eq=False)
class Linear(Affine):
    """z ↦ W·z + b on the last dimension."""

    weight: Tensor
    bias: Tensor | None

    def linear(self, *inputs: Tensor) -> Tensor:
        return F.linear(inputs[0], self.weight)

    def apply(self, *inputs: Tensor) -> Tensor:
        return F.linear(inputs[0], self.weight, self.bias)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a @ self.weight,)

    @property
    def unsigned(self) -> Linear:
        return replace(self, weight=self.weight.abs(), bias=None)

    @property
    def offset(self) -> Tensor | None:
        return self.bias

    @property
    def terms(self) -> int:
        return max(self.weight.shape)


@rule(nn.Linear, F.linear)
def _linear(call: Call) -> Linear:
    if isinstance(call.module, nn.Linear):
        return Linear(call.module.weight, call.module.bias)
    given = call.bound(input=None, weight=None, bias=None)
    call.inputs()
    return Linear(given["weight"], given["bias"])

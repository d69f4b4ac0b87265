"""Guided backpropagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xrobust.attributions.relu_backward import ReLUBackward


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return signal.relu() * (x > 0)


@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(ReLUBackward):
    """The gradient whose signal r passes a ReLU backwards as [x > 0]·max(r, 0) (Springenberg et al. 2015).

    Sharp, but hardly a function of the upper layers or the class: it fails the sanity checks (Adebayo et al. 2018)
    and tends to a partial recovery of the image (Nie et al. 2018).
    """

    @staticmethod
    def relu(x: Tensor) -> Tensor:
        return _GuidedReLU.apply(x)

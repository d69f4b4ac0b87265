"""The deconvolutional network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xrobust.attributions.relu_backward import ReLUBackward


class _DeconvReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.relu()

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:  # type: ignore[override]
        return signal.relu()


@dataclass(frozen=True, kw_only=True)
class Deconvnet(ReLUBackward):
    """The gradient whose signal r passes a ReLU backwards as max(r, 0), open or not (Zeiler & Fergus 2014).

    Max pooling passes the signal to the place of its maximum (the "switches"). The sanity checks that guided
    backpropagation fails, it fails, too (Nie et al. 2018).
    """

    @staticmethod
    def relu(x: Tensor) -> Tensor:
        return _DeconvReLU.apply(x)

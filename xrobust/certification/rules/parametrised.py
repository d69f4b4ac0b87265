"""Layers whose weights are a function of their parameters."""

from __future__ import annotations

from typing import Any

from xrobust.certification.rules.convolution import Conv2d
from xrobust.certification.rules.linear import Linear
from xrobust.certification.rules.registry import Call, rule
from xrobust.models.liresnet import LinearResidual
from xrobust.models.one_lipschitz import AOLConv2d, AOLLinear, CayleyConv2d, CayleyLinear


@rule(AOLLinear, CayleyLinear)
def _linear(call: Call) -> Linear:
    module: Any = call.module
    return Linear(module.effective_weight(), module.bias)


@rule(AOLConv2d, CayleyConv2d, LinearResidual)
def _conv2d(call: Call) -> Conv2d:
    module: Any = call.module
    (shape,) = call.inputs()
    windows = (module.stride, module.padding, module.dilation, module.groups)
    return Conv2d(module.effective_weight(), module.bias, *windows, shape)

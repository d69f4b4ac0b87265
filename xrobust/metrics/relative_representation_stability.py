"""How much an explanation changes, relative to what the network makes of the image before it decides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xrobust.errors import UserError
from xrobust.frame import logits_of, untouched
from xrobust.metrics.probe import Probe
from xrobust.metrics.relative_stability import RelativeStability, relative_change

NEED = "a model that calls an nn.Linear"


class RelativeRepresentationStability(RelativeStability):
    """RRS: the relative change of the map over that of the penultimate representation (Agarwal et al. 2022).

    The representation is the input of the last `nn.Linear` that the model calls. NaN, too, where it is zero.

    Args:
        samples, floor, least_cause: see `RelativeStability`.

    Raises (when measured):
        UserError: if the model calls no `nn.Linear`.
    """

    def lacks(self, probe: Probe) -> str | None:
        try:
            representation(probe.model, probe.x[:1], 1)
        except UserError:
            return NEED
        return super().lacks(probe)

    def cause(self, probe: Probe, points: Tensor, logits: Tensor) -> Tensor:
        if "representation" not in probe.shared:
            probe.shared["representation"] = representation(probe.model, probe.x, probe.batch_size)
        after = representation(probe.model, points, probe.batch_size)
        change = relative_change(probe.shared["representation"], after, self.floor)
        return change.where(change.isfinite(), float("nan"))


def representation(model: nn.Module, points: Tensor, batch_size: int) -> Tensor:
    """The input of the last `nn.Linear` that a forward pass calls, flattened: (M, C, H, W) → (M, D)."""
    inputs: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs[:] = [arguments[0].flatten(1)]

    hooks = [module.register_forward_pre_hook(note) for module in model.modules() if isinstance(module, nn.Linear)]
    parts = []
    try:
        with untouched(model, points), torch.no_grad():
            for part in points.split(batch_size):
                logits_of(model, part)
                if not inputs:
                    raise UserError(f"RelativeRepresentationStability needs {NEED}")
                parts.append(inputs.pop())
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(parts)

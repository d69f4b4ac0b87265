"""Which forward passes update the running statistics of batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from xrobust.errors import one_of

POLICIES = ("adversarial", "clean", "both")


def check_policy(policy: str) -> str:
    """The policy, if it is one of `POLICIES`."""
    if policy not in POLICIES:
        raise one_of("defense.batch_norm", policy, POLICIES)
    return policy


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any running statistics are kept."""
    return any(isinstance(module, _BatchNorm) and module.track_running_stats for module in model.modules())


@contextmanager
def frozen_statistics(model: nn.Module, frozen: bool = True) -> Iterator[None]:
    """Training-mode forwards normalise by the batch and leave the running statistics alone."""
    tracking = [m for m in model.modules() if frozen and isinstance(m, _BatchNorm) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True

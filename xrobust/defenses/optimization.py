"""How a run descends: the optimiser, the parameters whose weights decay, the learning rate over the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from xrobust.defenses.base import OptimizerFactory, Schedule


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """parameters → optimiser, with its schedule.

    Args:
        optimizer: parameters, or groups of them, → optimiser.
        schedule: share of the run that is done → factor on the learning rate.
        decay_norm_and_bias: whether weight decay also acts on parameters of at most one dimension: the scales and
            shifts of normalisation layers, and biases. False puts them into a group without (He et al. 2019).
    """

    optimizer: OptimizerFactory
    schedule: Schedule
    decay_norm_and_bias: bool = True

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if self.decay_norm_and_bias:
            return self.optimizer(parameters)
        parameters = list(parameters)
        decayed = [p for p in parameters if p.dim() > 1]
        spared = [p for p in parameters if p.dim() <= 1]
        return self.optimizer([{"params": decayed}, {"params": spared, "weight_decay": 0.0}])  # type: ignore[list-item]

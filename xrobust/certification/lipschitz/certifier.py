"""Certificates in L2 by Lipschitz constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.certification.base import Certifier
from xrobust.certification.bounds import rounding_unit
from xrobust.certification.certificate import Certificate
from xrobust.certification.graph import Network
from xrobust.certification.lipschitz.constants import Norm, after
from xrobust.certification.lipschitz.margins import DENSE_LIMIT, pairwise_constants, proven
from xrobust.certification.problem import Problem
from xrobust.certification.specification import other_classes
from xrobust.errors import at_least, one_of

UNIT = torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True)
class Lipschitz(Certifier):
    """Certified if z_y − z_j > ε·K·‖w_y − w_j‖₂ for all j ≠ y (Tsuzuku et al. 2018; Leino et al. 2021).

    K bounds the Lipschitz constant of all layers before the last one. The radius min_j (z_y − z_j) / (K‖w_y − w_j‖₂)
    comes with it, so that one pass gives the certified accuracy at every ε. The pixel range is not made use of.

    Args:
        dense_limit: convolutions whose operators are larger on both sides get the bound on a torus.
    """

    norms: ClassVar[tuple[str, ...]] = ("l2",)

    dense_limit: int = DENSE_LIMIT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision != "float64":
            raise one_of("Lipschitz.precision", self.precision, ["float64"])
        at_least("Lipschitz", 1, dense_limit=self.dense_limit)

    def run(self, problem: Problem) -> Certificate:
        if problem.dtype != torch.float64:  # of the cascade that it is a member of
            raise one_of("the precision of a cascade with Lipschitz", str(problem.dtype), ["float64"])
        network, norm = problem.network, proven(self.dense_limit)
        values = network.values(problem.x.double())
        logits, others = values[-1], other_classes(problem.y, values[-1].shape[1])
        error = rounding_errors(network, values, norm).unsqueeze(1)
        gap = logits.gather(1, problem.y.unsqueeze(1)) - logits.gather(1, others) - 2 * error
        slope = pairwise_constants(network, norm).to(gap.device)[problem.y.unsqueeze(1), others]
        margin = _least(gap - problem.threat.radius * slope * (1 + 8 * UNIT))
        return Certificate.of_margins(problem.x, margin, _least(gap / slope * (1 - 2 * UNIT)).clamp(min=0))


def rounding_errors(network: Network, values: list[Tensor], norm: Norm) -> Tensor:
    """A bound of the L2 distance of the computed logits from the exact ones, for each sample: (N,).

    An operation adds what it rounds itself, and what its inputs are off by moves it no further than they could.
    """
    errors = [values[0].new_zeros(len(values[0]))]
    for node in range(1, network.output + 1):
        inputs = network.inputs(node)
        size = network.operation(node).magnitude(*(values[i].abs() for i in inputs)).flatten(1)
        own = rounding_unit(network, node, values[0].dtype) * torch.linalg.vector_norm(size, dim=1)
        moved = torch.as_tensor(after(network, node, [errors[i] for i in inputs], norm))
        errors.append(moved.to(own) + own)
    return errors[-1]


def _least(values: Tensor) -> Tensor:
    """The minimum over the other classes, ∞ with a single class: (N, K − 1) → (N,)."""
    return F.pad(values, (0, 1), value=torch.inf).amin(1)

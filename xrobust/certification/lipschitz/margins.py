"""How fast differences of logits can change: Lipschitz constants of z_i − z_j through the last linear layer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from xrobust.certification.graph import Network
from xrobust.certification.lipschitz.constants import Norm, constants
from xrobust.certification.lipschitz.operator_norm import norm_bound
from xrobust.certification.rules.linear import Linear
from xrobust.certification.trace import trace
from xrobust.frame import untouched

DENSE_LIMIT = 2048


def proven(dense_limit: int = DENSE_LIMIT) -> Norm:
    """Upper bounds of operator norms, for networks in float64: `norm_bound`."""
    return lambda node, operation, shape: norm_bound(operation, shape, dense_limit)


def pairwise_constants(network: Network, norm: Norm) -> Tensor:
    """K·‖w_i − w_j‖₂ for all pairs of classes, with K of the network up to its last linear layer: (classes, classes).

    |(z_i − z_j)(x) − (z_i − z_j)(x′)| is at most so many times ‖x − x′‖₂ (Leino et al. 2021). Tighter than the
    constants of z_i and z_j together, since what both classes weigh alike does not count. Without a linear layer at
    the end, w are the unit vectors.

    Args:
        network: images → logits.
        norm: of weighted layers; an upper bound gives upper bounds, a differentiable estimate a differentiable one.
    """
    last = network.operation(network.output)
    if isinstance(last, Linear):
        rows = last.weight.to(torch.promote_types(last.weight.dtype, torch.float32))
        features = network.inputs(network.output)[0]
    else:
        rows = torch.eye(network.shapes[-1].numel(), dtype=torch.float64)
        features = network.output
    constant = constants(network, norm, features)[-1]
    if isinstance(constant, Tensor):
        rows = rows.to(constant.device)
    apart = torch.linalg.vector_norm(rows.unsqueeze(1) - rows.unsqueeze(0), dim=2)
    return constant * apart * (1 + torch.finfo(torch.float64).eps * (rows.shape[1] + 16))


def slopes(model: nn.Module, image: Tensor, dense_limit: int = DENSE_LIMIT) -> Tensor:
    """A proven bound of ‖∇ₓ(z_i − z_j)‖₂ at every image, for all pairs: (classes, classes) float64.

    Args:
        model: images in [0, 1] → logits; as it is in evaluation.
        image: one image (C, H, W), for its size.
        dense_limit: as in `norm_bound`.

    Raises:
        UnsupportedOperation: naming an operation and its module.
    """
    with untouched(model, image), torch.no_grad():
        network = trace(copy.deepcopy(model).double().eval(), image.double()).network()
        return pairwise_constants(network, proven(dense_limit)).to(image.device)

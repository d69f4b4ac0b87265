"""Boxes of the input gradient over a ball of images: intervals forwards, then backwards through the network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from xrobust.certification.bounds import Bounds, interval_bounds, rounding_unit
from xrobust.certification.box import Box, input_box
from xrobust.certification.graph import Network
from xrobust.certification.intermediate import CHUNK, crown_bounds
from xrobust.certification.operation import Operation
from xrobust.certification.rules.registry import UnsupportedOperation
from xrobust.certification.trace import trace
from xrobust.errors import UserError, at_least, one_of
from xrobust.frame import untouched, without_tf32
from xrobust.threat import ThreatModel

PREACTIVATIONS = ("ibp", "crown")
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def gradient_bounds(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    threat: ThreatModel,
    *,
    preactivations: str = "ibp",
    precision: str = "float64",
    batch_size: int = 64,
    chunk: int = CHUNK,
) -> Box:
    """A box that holds ∇ₓ f_t(x′) for every image x′ of the threat model (Wicker et al. 2023).

    Sound as a certificate is: for the function that the weights define in exact arithmetic, with all rounding in the
    computation of the bounds accounted for. Where the function has a kink, every choice of a derivative between those
    of both sides is inside.

    Args:
        model: images in [0, 1] → logits (N, K).
        x: (N, C, H, W) in the threat model's box, on the device of the model.
        target: (N,) labels, whose logits are meant, or the coefficients (N, K) of any linear form of the logits, such
            as a difference z_y − z_j.
        threat: of norm "linf".
        preactivations: what bounds them: "ibp", interval arithmetic, or "crown", a backward pass for each unit, which
            is tighter and dear.
        precision: "float64" or "float32", in which bounds are computed.
        batch_size: images bounded at once.
        chunk: how many numbers a tensor of CROWN's coefficients may have.

    Returns:
        corners (N, C, H, W) in that precision.

    Raises:
        UnsupportedOperation: naming an operation and its module.
        UserError: for another norm, images outside of the threat model's box, or a network that cannot be traced.

    Works under `no_grad` and `inference_mode`; the model is afterwards as before.
    """
    if preactivations not in PREACTIVATIONS:
        raise one_of("gradient_bounds: preactivations", preactivations, PREACTIVATIONS)
    if precision not in PRECISIONS:
        raise one_of("gradient_bounds: precision", precision, PRECISIONS)
    at_least("gradient_bounds", 1, batch_size=batch_size, chunk=chunk)
    dtype = PRECISIONS[precision]
    network = boundable_network(model, x, threat, dtype)
    parts = []
    with torch.inference_mode(False), torch.no_grad(), without_tf32():
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            bounds = interval_bounds(network, input_box(threat, x[rows], dtype), rounding=True)
            if preactivations == "crown":
                bounds = crown_bounds(bounds, chunk=chunk)
            parts.append(gradient_box(bounds, _forms(target[rows], network.shapes[-1].numel(), dtype)))
        return Box(torch.cat([part.lower for part in parts]), torch.cat([part.upper for part in parts]))


def boundable_network(model: nn.Module, x: Tensor, threat: ThreatModel, dtype: torch.dtype = torch.float64) -> Network:
    """The network whose gradient can be bounded over the balls around images, in evaluation mode and a precision.

    Raises:
        UnsupportedOperation: naming an operation and its module.
        UserError: for another norm, images outside of the threat model's box, or a network that cannot be traced.
    """
    if threat.norm != "linf":
        raise one_of("gradient_bounds: threat.norm", threat.norm, ["linf"])
    if not len(x):
        raise UserError("gradient_bounds needs at least one image")
    threat.require_images(x)
    with untouched(model, x), torch.no_grad():
        network = trace(copy.deepcopy(model).to(dtype).eval(), x[0].to(dtype)).network()
    for step, operation in zip(network.graph.steps, network.operations, strict=True):
        if type(operation).gradient is Operation.gradient:
            kind = type(operation).__name__
            raise UnsupportedOperation(f"no bound of gradients is known for {kind}, at {step.where!r} of the model")
    return network


def gradient_box(bounds: Bounds, a: Tensor) -> Box:
    """A box that holds the gradient of ⟨a, logits⟩ with respect to the image, for every image in its box.

    The boxes of the preactivations bound the slopes of nonlinear operations, and interval arithmetic takes the
    gradient's box back through the network by the chain rule. Differentiable with respect to the weights.

    With rounding in the bounds, the box of each node is widened by 2u · (n + 64) of its size before it is taken back
    (`rounding_unit`): weights take the allowance along to the very sums whose rounding it is for.

    Args:
        bounds: of N samples, with the boxes of all preactivations.
        a: coefficients (N, K).

    Returns:
        corners (N, C, H, W).
    """
    network = bounds.network
    open_nodes = {network.output: Box(a, a)}
    for here in range(network.output, 0, -1):
        g = open_nodes.pop(here, None)
        if g is None:
            continue
        if bounds.rounding:
            g = g.widened(rounding_unit(network, here, a.dtype) * g.size)
        operation, sources = network.operation(here), network.inputs(here)
        boxes = () if operation.affine else tuple(bounds.boxes[source] for source in sources)
        for source, box in zip(sources, operation.gradient(g, boxes), strict=True):
            known = open_nodes.get(source)
            open_nodes[source] = box if known is None else Box(known.lower + box.lower, known.upper + box.upper)
    return open_nodes[0]


def _forms(target: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Labels or coefficients as coefficients (N, K)."""
    if target.dim() == 1:
        return torch.nn.functional.one_hot(target, classes).to(dtype)
    return target.to(dtype)

"""Whether a model that was read back is the model that was written, on real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.errors import UserError

TOLERANCE = 1e-5
BATCH = 32  # images at once


@dataclass(frozen=True)
class Agreement:
    """How far two functions are apart: max |Δ| / max(1, max |value|).

    Args:
        logits: of the logits.
        gradient: of the gradients of the predicted classes' logits with respect to the images; None if the function
            that was read back has none.
    """

    logits: float
    gradient: float | None


def agreement(read: Callable[[Tensor], Tensor], model: Callable[[Tensor], Tensor], x: Tensor) -> Agreement:
    """Compare the function that was read back with the model.

    Args:
        read: images (N, C, H, W) → logits (N, K), for any N.
        model: the same, differentiable.
        x: (n, C, H, W), n ≥ 2. The first image goes alone, so that a function for one batch size only fails.

    Raises:
        UserError: if logits or gradients are further apart than 1e-5 or not finite.
    """
    parts = (x[:1], *x[1:].split(BATCH))
    true = [_logits_and_gradient(model, part) for part in parts]
    found = [_logits_and_gradient(read, part, logits.argmax(1)) for part, (logits, _) in zip(parts, true, strict=True)]
    logits = _difference("logits", [pair[0] for pair in found], [pair[0] for pair in true])
    gradients = [[gradient for _, gradient in side if gradient is not None] for side in (found, true)]
    if len(gradients[0]) < len(parts):
        return Agreement(logits, None)
    return Agreement(logits, _difference("gradients", *gradients))


def _logits_and_gradient(
    function: Callable[[Tensor], Tensor], x: Tensor, classes: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """f(x), (N, K), and the gradient of the logits of the classes (by default the predicted ones), (N, C, H, W)."""
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        logits = function(x)
        chosen = logits.argmax(1) if classes is None else classes
        of_classes = logits.gather(1, chosen[:, None]).sum()
        gradient = torch.autograd.grad(of_classes, x)[0] if logits.requires_grad else None
    return logits.detach(), gradient


def _difference(what: str, found: list[Tensor], true: list[Tensor]) -> float:
    """max |Δ| / max(1, max |true|) over all the parts.

    Raises:
        UserError: if it is above the tolerance or not finite.
    """
    largest = max(1.0, *(part.abs().max().item() for part in true))
    off = torch.cat([(a - b).abs().flatten() for a, b in zip(found, true, strict=True)]).max().item() / largest
    if not off <= TOLERANCE:  # NaN is above, too
        raise UserError(f"its {what} after reading it back are off by {off:.2g}, allowed is {TOLERANCE:g}")
    return off

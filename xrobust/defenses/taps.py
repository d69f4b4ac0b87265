"""TAPS and STAPS: interval arithmetic, then adversarial training in the latent box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xrobust.attacks import Attack
from xrobust.certification import Bounds, Box, Network, interval_lower_bound
from xrobust.defenses.adversarial import check_share
from xrobust.defenses.certified import Batch, CertifiedTraining, Robust, certified_share, worst_case_loss
from xrobust.defenses.sabr import small_box
from xrobust.errors import UserError, at_least
from xrobust.randomness import uniform_like

Tail = Callable[[Tensor], Tensor]


class TAPS(CertifiedTraining):
    """R = G_w(CE°(m̂)) · CE°(m) (Mao et al. 2023): m by interval arithmetic, m̂ by latent adversarial examples.

    The network is cut in two. Interval arithmetic bounds the first block's values; in their box, an attack of its own
    for each class j ≠ y looks for the point with the least margin m̂_j = z_y − z_j of the second block. m̂ ≥ m, so
    CE°(m̂) is no bound. G_w leaves a value as it is and multiplies its gradient by w. Factors are multiplied sample by
    sample. Below the full radius R = CE°(m).

    Gradients go from a latent point ẑ to the box [l, u] by the rectified linear link: with t = (ẑ − l) / (u − l),
    ∂ẑ/∂l = max(0, 1 − t/c) and ∂ẑ/∂u = max(0, 1 − (1 − t)/c).

    Args:
        classifier_relus: the nonlinear operations in the second block.
        steps: of the latent attack, from a uniform point.
        step_size: of its steps, in half widths of the box, > 0.
        gradient_scale: w ≥ 0.
        link: c in (0, 0.5].
        certified: as in `CertifiedTraining`.
    """

    def __init__(
        self,
        *,
        classifier_relus: int = 1,
        steps: int = 10,
        step_size: float = 0.25,
        gradient_scale: float = 4.0,
        link: float = 0.5,
        **certified: Any,
    ):
        super().__init__(**certified)
        at_least("defense", 1, steps=steps)
        at_least("defense", 0, classifier_relus=classifier_relus)
        at_least("defense", 0.0, step_size=step_size, gradient_scale=gradient_scale)
        if not 0 < link <= 0.5:
            raise UserError(f"defense.link must lie in (0, 0.5], got {link}")
        self.classifier_relus = classifier_relus
        self.steps = steps
        self.step_size = step_size
        self.gradient_scale = gradient_scale
        self.link = link

    def images(self, batch: Batch) -> Box:
        """The box of images that is propagated."""
        return batch.box

    def robust(self, batch: Batch) -> Robust:
        bounds = batch.bounds(self.images(batch))
        lower = interval_lower_bound(bounds, batch.forms)
        losses, terms = worst_case_loss(lower), self.certificate(lower)
        if self.share == 1:
            latent = worst_case_loss(self._latent_margins(bounds, batch.forms))
            terms |= {"latent_loss": latent.mean()}
            losses = scaled_gradient(latent, self.gradient_scale) * losses
        return Robust(losses, bounds, terms)

    def certificate(self, lower: Tensor) -> dict[str, Tensor]:
        """What the lower bounds of the margins are worth."""
        return certified_share(lower)

    def _latent_margins(self, bounds: Bounds, forms: Tensor) -> Tensor:
        """m̂, (N, K − 1), with gradients to the box and to the second block."""
        node = cut(bounds.network, self.classifier_relus)
        tail, box = tail_of(bounds.network, node), bounds.boxes[node]
        lower, upper = (corner.unsqueeze(1) for corner in (box.lower, box.upper))
        points = self._attacked(tail, lower.detach(), upper.detach(), forms)
        return _margins_at(tail, linked(points, lower, upper, self.link), forms)

    def _attacked(self, tail: Tail, lower: Tensor, upper: Tensor, forms: Tensor) -> Tensor:
        """For each margin, the point of the box (N, 1, ...) that an attack found: (N, K − 1, ...)."""
        start = lower.expand(-1, forms.shape[1], *lower.shape[2:])
        points = start + (upper - lower) * uniform_like(start, self.generator).to(lower.dtype)
        step = self.step_size * (upper - lower) / 2
        for _ in range(self.steps):
            points.requires_grad_()
            (gradient,) = torch.autograd.grad(_margins_at(tail, points, forms).sum(), points)
            points = (points.detach() - step * gradient.sign()).clamp(lower, upper)
        return points


class STAPS(TAPS):
    """TAPS on the small box of SABR (Mao et al. 2023).

    Args:
        attack, tau: as in `SABR`.
        taps: as in `TAPS`.
    """

    def __init__(self, *, attack: Attack, tau: float = 0.4, **taps: Any):
        super().__init__(attack=attack, **taps)
        self.tau = check_share("tau", tau)

    def images(self, batch: Batch) -> Box:
        return small_box(batch, self.tau)

    def certificate(self, lower: Tensor) -> dict[str, Tensor]:
        return {}  # the small box is not the ball


def cut(network: Network, nonlinear: int) -> int:
    """The node after which so many nonlinear operations are left, and which all of the network passes through.

    Raises:
        UserError: if there is none.
    """
    nodes = [0, *(n for n in range(1, network.output + 1) if not network.operation(n).affine)]
    if nonlinear < len(nodes):
        node = nodes[-1 - nonlinear]
        if all(source >= node for later in range(node + 1, network.output + 1) for source in network.inputs(later)):
            return node
    raise UserError(
        f"defense.classifier_relus={nonlinear}: the network has {len(nodes) - 1} nonlinear operations, and must be a "
        "single path where it is cut"
    )


def tail_of(network: Network, node: int) -> Tail:
    """The network from a node to the logits: (M, *shape) → (M, K)."""

    def tail(z: Tensor) -> Tensor:
        values = {node: z}
        for later in range(node + 1, network.output + 1):
            values[later] = network.operation(later).apply(*(values[source] for source in network.inputs(later)))
        return values[network.output]

    return tail


def linked(points: Tensor, lower: Tensor, upper: Tensor, link: float) -> Tensor:
    """The points, with the gradients of the rectified linear link to the corners of their box."""
    width = (upper - lower).detach()
    share = ((points - lower.detach()) / width.where(width > 0, 1)).where(width > 0, 0.5)
    to_lower, to_upper = ((1 - side / link).clamp(min=0) for side in (share, 1 - share))
    return points + to_lower * (lower - lower.detach()) + to_upper * (upper - upper.detach())


def scaled_gradient(value: Tensor, scale: float) -> Tensor:
    """The value, whose gradient is `scale` times as large."""
    return value.detach() + scale * (value - value.detach())


def _margins_at(tail: Tail, points: Tensor, forms: Tensor) -> Tensor:
    """The j-th margin at the j-th point: (N, K − 1, ...) → (N, K − 1)."""
    logits = tail(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    return (forms * logits).sum(2)

"""Attacks on explanations: the map changes, the prediction does not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack
from xrobust.attacks.losses import margin
from xrobust.attacks.softplus import smoothed
from xrobust.attacks.standing import choose, require_at_least
from xrobust.attacks.step_size import StepSize, check_step_size, pixel_step
from xrobust.errors import UserError, one_of
from xrobust.frame import logits_of
from xrobust.randomness import Generator, SampleStreams, subset, uniform_like


class Explanation(Protocol):
    """What is attacked: a method of `xrobust.attributions`, or anything that is called like one."""

    differentiable: ClassVar[bool]

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        create_graph: bool = False,
        generator: Generator | None = None,
    ) -> Tensor: ...


Measure = Callable[[Tensor, Tensor], Tensor]
"""(maps (N, C, H, W), logits (N, K)) → (N,); the attack wants it low."""


class Goal(NamedTuple):
    """What an attack on the maps of a batch is after.

    Attributes:
        loss: differentiable; the steps descend it.
        score: what counts; the point of lowest score wins.
    """

    loss: Measure
    score: Measure


@dataclass(frozen=True, kw_only=True)
class AttributionAttack(Attack):
    """z ← Π(z − α·ascent(∇_z ℓ(a(z)))) from a random point of the ball; subclasses say ℓ (Ghorbani et al. 2019).

    The prediction argmax f(x) is kept: a point that changes it is never returned, and a step from such a point
    descends the margin of the class that won instead. Of all other points of all runs, the one whose map of the
    real network scores lowest is returned; x itself where none beats it. Zero maps, which nothing can be compared
    with, do not count. Labels only say which logit is explained.

    The steps follow a softplus network (see `softplus.smoothed`): without it, `softplus=None`, ReLU networks give
    no direction, and the attack is no better than noise. Smooth networks are attacked as they are either way.

    Args:
        attribution: a, the attacked method, differentiable. One that draws random numbers gets the same ones at
            each point, so that maps differ by the points only.
        steps: iterations of a run, ≥ 1.
        step_size: α in pixel units; none means 2.5 · ε / steps.
        restarts: runs from different random points, ≥ 1, side by side.
        softplus: (first, last) β of the surrogate, growing geometrically in a run; none for the network as it is.
        batch_size: points attacked at once (images times restarts), ≥ 1. Memory grows with it times the passes of the
            attribution, all of which are in one graph.
    """

    attribution: Explanation
    steps: int = 10
    step_size: StepSize = None
    restarts: int = 1
    softplus: Sequence[float] | None = (5.0, 50.0)
    batch_size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        require_at_least(self, steps=1, restarts=1, batch_size=1)
        if self.mode != "eval":
            raise one_of(f"{name}.mode", self.mode, ["eval"])
        check_step_size(name, self.step_size)
        if self.softplus is not None:
            if len(self.softplus) != 2 or not min(self.softplus) > 0:
                raise UserError(f"{name}.softplus must be two numbers above 0 or none, got {self.softplus!r}")
            object.__setattr__(self, "softplus", tuple(map(float, self.softplus)))
        if not self.attribution.differentiable:
            raise UserError(f"{name}.attribution must be differentiable, got {type(self.attribution).__name__}")

    @property
    def misleads(self) -> bool:
        return False  # it keeps the prediction

    @abstractmethod
    def goal(self, maps: Tensor, logits: Tensor) -> Goal:
        """The goal of an attack on these maps, (N, C, H, W), of images with these logits, (N, K)."""

    @property
    def alpha(self) -> float:
        """The step size α in pixel units."""
        return pixel_step(self.step_size, self.threat, self.steps)

    def beta(self, step: int) -> float | None:
        """β of the surrogate in a step of a run."""
        if self.softplus is None:
            return None
        first, last = self.softplus
        return first * (last / first) ** (step / max(1, self.steps - 1))

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        size = max(1, self.batch_size // self.restarts)
        parts = [slice(start, start + size) for start in range(0, max(1, len(x)), size)]
        return torch.cat([self._attack(model, x[part], y[part], subset(generator, part)) for part in parts])

    def _attack(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """The runs of a part of the batch, side by side: (restarts · N, ...) points, then the best for each sample."""
        seeds = (uniform_like(x.flatten(1)[:, 0], generator) * 2**24).long().tolist()
        point = torch.cat([self.threat.random_start(x, generator) for _ in range(self.restarts)])
        x, y, seeds = x.repeat(self.restarts, 1, 1, 1), y.repeat(self.restarts), seeds * self.restarts

        def maps(points: Tensor, create_graph: bool = False) -> Tensor:
            same_draws = SampleStreams(0, seeds)
            return self.attribution(model, points, y, create_graph=create_graph, generator=same_draws)

        clean_maps, clean_logits = maps(x), logits_of(model, x).detach()
        prediction = clean_logits.argmax(1)
        goal = self.goal(clean_maps, clean_logits)
        best, lowest = x, goal.score(clean_maps, clean_logits)
        for step in range(self.steps + 1):
            point = point.detach().requires_grad_()
            logits = logits_of(model, point)
            kept = logits.argmax(1) == prediction
            found = maps(point)
            score = goal.score(found, logits.detach())
            better = kept & found.flatten(1).any(1) & (score < lowest)  # a zero map is no explanation to compare
            best, lowest = choose(better, point.detach(), best), torch.where(better, score, lowest)
            if step < self.steps:
                with smoothed(model, self.beta(step)):
                    loss = goal.loss(maps(point, create_graph=True), logits)
                if not kept.all():
                    loss = torch.where(kept, loss, margin(logits, prediction))
                # The map of a linear model does not depend on the point; 0 · z gives it the gradient zero.
                (gradient,) = torch.autograd.grad(loss.sum() + 0 * point.sum(), point)
                point = self.threat.project(point - self.alpha * self.threat.ascent(gradient), x)
        winner = lowest.view(self.restarts, -1).argmin(0)
        return best.unflatten(0, (self.restarts, -1))[winner, torch.arange(len(winner), device=x.device)]


def relevance_shares(maps: Tensor) -> Tensor:
    """m / Σm with m = Σ_c |a_c|, the pixels' shares of the relevance; zero for a zero map: (N, C, H, W) → (N, H·W)."""
    relevance = maps.abs().sum(1).flatten(1)
    total = relevance.sum(1, keepdim=True)
    return relevance / total.where(total > 0, 1)


def require_attack_on_maps(attack: Attack | None, place: str) -> None:
    """Refuse an attack that is none on maps.

    Raises:
        UserError: naming the place and the attack.
    """
    if not isinstance(attack, AttributionAttack | None):
        raise UserError(f"{place} must be an attack on maps, such as attribution_topk, got {attack}")

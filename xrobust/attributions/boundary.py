"""The decision boundary near an image, and what attributions that explain it share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score, slices
from xrobust.errors import at_least
from xrobust.frame import logits_of, untouched
from xrobust.randomness import Generator, SampleStreams, subset
from xrobust.threat import per_sample


class Attack(Protocol):
    """(model, x, y) → x_adv, where y are the classes to get away from: those in `xrobust.attacks`, for example.

    One that also has `minimum_perturbation(model, x, y, generator=…) → (x_adv, distance)` is asked for that: the
    nearest example that it finds, in no ball.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Boundary:
    """A point on the decision boundary near each image.

    Args:
        points: (N, C, H, W), NaN where none was found.
        found: (N,) bool.
    """

    points: Tensor
    found: Tensor

    @property
    def success_rate(self) -> float:
        """The share of images for which a point was found; NaN for no images."""
        return self.found.double().mean().item()


def nearest_boundary(
    model: nn.Module,
    x: Tensor,
    attack: Attack,
    *,
    bisections: int = 20,
    batch_size: int = 256,
    generator: Generator | None = None,
) -> Boundary:
    """Where the prediction changes between each image and its adversarial example, by bisection.

    The attack is to get away from the *prediction*, so wrong predictions have a boundary, too. The segment from x
    to x_adv is halved `bisections` times around a change of the prediction; the point is the far end of what is
    left, at most 2^−bisections · ‖x_adv − x‖ from the change. It is as near to x as the attack is good.

    Args:
        model: images → logits (N, K), asked in eval mode.
        x: (N, C, H, W).
        attack: finds x_adv. Where the prediction there is still that at x, no point is found.
        bisections: ≥ 0; one forward pass each.
        batch_size: how many images at most go through the model at once.
        generator: the source of the attack's draws; none means streams keyed by the position in the batch.

    Returns:
        The points, at which the prediction differs from that at x, and where they were found.
    """
    at_least("nearest_boundary", 0, bisections=bisections)
    at_least("nearest_boundary", 1, batch_size=batch_size)
    generator = SampleStreams(0, range(len(x))) if generator is None else generator
    with untouched(model, x):
        parts = [
            _boundary_of_batch(model, x[rows].detach(), attack, bisections, subset(generator, rows))
            for rows in slices(len(x), batch_size)
        ]
    return Boundary(torch.cat([part.points for part in parts]), torch.cat([part.found for part in parts]))


def _boundary_of_batch(model: nn.Module, x: Tensor, attack: Attack, bisections: int, generator: Generator) -> Boundary:
    y = _predictions(model, x)
    search = getattr(attack, "minimum_perturbation", None)
    x_adv = attack(model, x, y, generator=generator) if search is None else search(model, x, y, generator=generator)[0]
    found = _predictions(model, x_adv) != y
    near, far = x, x_adv
    for _ in range(bisections):
        middle = (near + far) / 2
        beyond = per_sample(_predictions(model, middle) != y, x)
        near, far = near.where(beyond, middle), middle.where(beyond, far)
    return Boundary(far.where(per_sample(found, x), torch.nan), found)


def _predictions(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return logits_of(model, x).argmax(1)


@dataclass(frozen=True, kw_only=True)
class BoundaryAttribution(Attribution):
    """The base of methods that explain the decision boundary next to an image.

    The map is NaN for an image next to which no boundary was found, so that metrics count it as undefined. It
    cannot be differentiated: the search for the boundary has no derivative.

    Args:
        attack: finds the boundary, see `nearest_boundary`; a minimum-norm attack is meant.
        bisections: ≥ 0.
        seed: of the attack's draws, when the call gives no generator.
    """

    differentiable: ClassVar[bool] = False
    demands: ClassVar[str] = "a gradient, and an attack that finds the boundary"

    attack: Attack
    bisections: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 0, bisections=self.bisections)

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        boundary = nearest_boundary(
            model, x, self.attack, bisections=self.bisections, batch_size=self.batch_size, generator=generator
        )
        found = per_sample(boundary.found, x)
        return self.explain(model, x, boundary.points.where(found, x), score).where(found, torch.nan)

    @abstractmethod
    def explain(self, model: nn.Module, x: Tensor, points: Tensor, score: Score) -> Tensor:
        """The map of each image, given its boundary point: x's shape."""

    def default_generator(self, count: int) -> Generator:
        return SampleStreams(self.seed, range(count))

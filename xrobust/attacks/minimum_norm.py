"""Attacks that look for the nearest adversarial example instead of the worst one in a ball."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack
from xrobust.attacks.losses import margin
from xrobust.attacks.standing import choose, fresh_logits
from xrobust.errors import one_of
from xrobust.frame import logits_of, predictions, untouched
from xrobust.randomness import Generator, default_generator
from xrobust.threat import ThreatModel


class Nearest:
    """For each sample, the nearest adversarial example offered so far and its distance (inf: none)."""

    def __init__(self, threat: ThreatModel, x: Tensor):
        self.threat, self.x, self.x_adv = threat, x, x.clone()
        self.distance = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)

    def offer(self, rows: Tensor, points: Tensor, adversarial: Tensor) -> None:
        """Consider a point for each of the samples `rows`, where it is adversarial (n,)."""
        distance = self.threat.distance(points, self.x[rows])
        least = self.distance[rows]
        nearer = adversarial & (distance < least)
        self.x_adv[rows] = choose(nearer, points, self.x_adv[rows])
        self.distance[rows] = torch.where(nearer, distance, least)

    def beyond(self, radius: float) -> Tensor:
        """The positions of the samples without an adversarial example within the radius."""
        return (self.distance > radius).nonzero().flatten()


@dataclass(frozen=True, kw_only=True)
class MinimumNorm(Attack):
    """argmin ‖x_adv − x‖_p over the adversarial examples in the pixel box.

    Called as an attack, it is done with a sample once it has an example inside the ball, and projects the
    nearest one found if that lies outside. `minimum_perturbation` searches to the end and knows no ball.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threat.norm not in self.norms:
            raise one_of(f"{type(self).__name__}.threat.norm", self.threat.norm, self.norms)

    @abstractmethod
    def search(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator, enough: float) -> Nearest:
        """The nearest adversarial examples; a sample is done once it has one within the distance `enough`."""

    def is_adversarial(self, logits: Tensor, y: Tensor) -> Tensor:
        """Whether the prediction is what the attack wants: (N, K), (N,) → (N,) bool."""
        return predictions(logits) != y

    def start(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Nearest, Tensor]:
        """Where a search begins, samples that are adversarial already at distance 0; and the logits there."""
        nearest = Nearest(self.threat, x)
        with torch.no_grad():
            logits = logits_of(model, x)
        nearest.offer(torch.arange(len(x), device=x.device), x, self.is_adversarial(logits, y))
        return nearest, logits

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        return self.search(model, x, y, generator, self.threat.radius).x_adv

    def minimum_perturbation(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The nearest adversarial examples found in the whole pixel box, and how far away they are.

        Returns:
            x_min of x's shape, and ‖x_min − x‖_p as (N,) in float64: 0 where x itself is adversarial, inf
            where none was found, that is, where x_min does not fool the model when it is asked once more.
        """
        with untouched(model, x, train_mode=self.mode == "train", autocast=self.autocast, many_passes=True):
            x = x.detach().clone() if x.dtype == torch.float64 else x.detach().float().clone()
            generator = default_generator(x.device) if generator is None else generator
            nearest = self.search(model, x, y.clone(), generator, enough=0.0)
        adversarial = self.is_adversarial(fresh_logits(model, nearest.x_adv), y)
        return nearest.x_adv, nearest.distance.where(adversarial, torch.inf)


@dataclass(frozen=True, kw_only=True)
class TargetableMinimumNorm(MinimumNorm):
    """A minimum-norm attack that can also reach for a class.

    Args:
        targeted: y holds the classes to reach instead of those to get away from.
    """

    targeted: bool = False

    def is_adversarial(self, logits: Tensor, y: Tensor) -> Tensor:
        return (predictions(logits) == y) == self.targeted

    def progress(self, logits: Tensor, y: Tensor) -> Tensor:
        """max_{k≠y} z_k − z_y, or its negative when targeted: positive on the adversarial side, (N,)."""
        return -margin(logits, y) if self.targeted else margin(logits, y)

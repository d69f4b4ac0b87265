"""Several attacks, and for each sample the worst of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack, require_misleading
from xrobust.attacks.losses import margin
from xrobust.attacks.standing import Worst, fresh_logits
from xrobust.attacks.wrapper import require_same_threat
from xrobust.errors import UserError
from xrobust.frame import predictions
from xrobust.randomness import Generator, default_generator, subset


class Stage(NamedTuple):
    """Where `WorstOf` is after one of its attacks.

    Attributes:
        name: the attack's name, or "clean" before the first.
        x_adv: the worst examples so far, (N, C, H, W).
        standing: the samples that the model still gets right, (N,) bool.
    """

    name: str
    x_adv: Tensor
    standing: Tensor


@dataclass(frozen=True, kw_only=True)
class WorstOf(Attack):
    """One attack after the other, each on the samples still standing (Croce & Hein 2020, AutoAttack).

    A sample is broken when the model, asked once more, gets the returned example wrong; for the others, the
    example of largest margin loss is returned. Members keep their own mode and autocast.

    Args:
        attacks: named untargeted attacks, run in their order, on the same threat model as this one.
    """

    attacks: Mapping[str, Attack]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.attacks:
            raise UserError("WorstOf.attacks must hold at least one attack, got none")
        for name, attack in self.attacks.items():
            require_same_threat(self, attack, f"WorstOf.attacks.{name}")
            require_misleading(attack, f"WorstOf.attacks.{name}")

    def with_eps(self, eps: object) -> Self:
        attacks = {name: attack.with_eps(eps) for name, attack in self.attacks.items()}
        return replace(self, threat=self.threat.with_eps(eps), attacks=attacks)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"WorstOf ({self.threat}: {', '.join(self.attacks)})"

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        *_, last = self.stages(model, x, y, generator)
        return last.x_adv

    def stages(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator | None = None) -> Iterator[Stage]:
        """The attack, attack by attack: what fell to which is the difference between successive stages.

        The first stage, "clean", holds the unperturbed images; one stage for each attack follows.
        """
        generator = default_generator(x.device) if generator is None else generator
        x = x.detach() if x.dtype == torch.float64 else x.detach().float()
        worst = Worst(x)

        def judged(name: str, rows: Tensor, points: Tensor) -> Stage:
            if len(rows):
                logits = fresh_logits(model, points)
                worst.offer(rows, points, margin(logits, y[rows]), predictions(logits) != y[rows])
            return Stage(name, worst.x_adv.clone(), ~worst.broken)

        yield judged("clean", torch.arange(len(x), device=x.device), x)
        for name, attack in self.attacks.items():
            rows = worst.standing
            points = x[rows]
            if len(rows):
                points = attack(model, points, y[rows], generator=subset(generator, rows))
            yield judged(name, rows, points)

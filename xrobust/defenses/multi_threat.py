"""Training against several threat models at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attacks import Attack
from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.base import Loss, OptimizerFactory, Schedule
from xrobust.errors import UserError, one_of
from xrobust.frame import logits_of, untouched
from xrobust.threat import per_sample

COMBINATIONS = ("max", "average", "random")


class MultiThreatTraining(AdversarialTraining):
    """min_θ E max_i CE(f(x*_i), y), or the mean over i, x*_i the example of attack i (Tramèr & Boneh 2019).

    Args:
        attacks: by name, each with a threat model of its own. An ε schedule moves the radius of the first one, and the
            others follow in proportion.
        combine: "max" trains each sample on the example of largest loss, "average" on all of them, "random" on those
            of one attack that is drawn for each batch.
        batch_norm, label_smoothing: as in `AdversarialTraining`.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        seed: int = 0,
        attacks: Mapping[str, Attack],
        combine: str = "max",
        batch_norm: str = "adversarial",
        label_smoothing: float = 0.0,
    ):
        if not attacks:
            raise UserError("defense.attacks must hold at least one attack, got none")
        if combine not in COMBINATIONS:
            raise one_of("defense.combine", combine, COMBINATIONS)
        first, *others = attacks.values()
        super().__init__(
            model=model,
            optimizer=optimizer,
            schedule=schedule,
            seed=seed,
            attack=first,
            batch_norm=batch_norm,
            label_smoothing=label_smoothing,
        )
        self.names = list(attacks)
        self.others = others
        self.combine = combine
        self._full = first.threat.fraction

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, C, H, W), or with "average" the examples of all attacks, one after the other."""
        attacks = self._attacks()
        if self.combine == "random":
            device = self.generator.device
            drawn = torch.randint(len(attacks), (), generator=self.generator, device=device)
            attacks = [attacks[int(drawn)]]
        found = [attack(self.model, x, y, generator=self.generator) for attack in attacks]
        return self._worst(found, y) if self.combine == "max" else torch.cat(found)

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        logits = self.adversarial_logits(x, x_adv)
        parts = logits.split(len(x))
        value = self.cross_entropy(logits, torch.cat([y] * len(parts)))
        names = [f"adversarial_{name}" for name in self.names] if self.combine == "average" else ["adversarial"]
        return Loss(value, dict(zip(names, parts, strict=True)))

    def _attacks(self) -> list[Attack]:
        share = self.attack.threat.fraction / self._full if self._full else 1
        return [self.attack, *(attack.with_eps(attack.threat.fraction * share) for attack in self.others)]

    def _worst(self, found: list[Tensor], y: Tensor) -> Tensor:
        """For each sample the example of largest cross entropy: k × (N, ...) → (N, ...)."""
        worst, largest = found[0], torch.full((len(y),), -torch.inf, device=y.device)
        with untouched(self.model, worst, autocast=self.attack.autocast), torch.no_grad():
            for x_adv in found:
                loss = F.cross_entropy(logits_of(self.model, x_adv).float(), y, reduction="none")
                worst = torch.where(per_sample(loss > largest, x_adv), x_adv, worst)
                largest = torch.maximum(loss, largest)
        return worst

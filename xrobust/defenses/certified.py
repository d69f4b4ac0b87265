"""What methods of certified training share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from xrobust.attacks import FGSM, Attack
from xrobust.certification import (
    Bounds,
    Box,
    Network,
    batch_statistics,
    input_box,
    interval_bounds,
    margins,
)
from xrobust.defenses.adversarial import check_share
from xrobust.defenses.base import Loss, RobustClassifier, mean_cross_entropy
from xrobust.defenses.ibp_weights import imbalance, initialise, relu_preactivations, tightness
from xrobust.defenses.interval_network import for_training
from xrobust.defenses.traced_graph import TracedGraph
from xrobust.errors import UserError, at_least, one_of
from xrobust.randomness import mix
from xrobust.threat import ThreatModel

INITIALISATIONS = ("ibp", "none")
SELECTED_BY = ("val/certified_accuracy", "val/robust_accuracy")


@dataclass(frozen=True, eq=False)
class Batch:
    """A training batch with the network that all terms of its loss are of.

    Attributes:
        x, y: images (N, C, H, W) and labels (N,).
        x_adv: what the training attack made of the images, if the method has one.
        threat: the ball at its present radius.
        logits: of the clean images, (N, K).
        network: with batch norm as it normalised the clean images.
    """

    x: Tensor
    y: Tensor
    x_adv: Tensor | None
    threat: ThreatModel
    logits: Tensor
    network: Network

    @cached_property
    def box(self) -> Box:
        """The images of the threat model."""
        return input_box(self.threat, self.x)

    @cached_property
    def forms(self) -> Tensor:
        """z_y − z_j for all j ≠ y, (N, K − 1, K)."""
        return margins(self.y, self.logits.shape[1], self.logits.dtype)

    def bounds(self, box: Box) -> Bounds:
        """Intervals of all nodes that bounds of the margins need."""
        return interval_bounds(self.network, box, all_nodes=False)

    def logits_at(self, x: Tensor) -> Tensor:
        """Of other images, with the same batch norm: (N, C, H, W) → (N, K)."""
        return self.network.values(x)[-1]


@dataclass(frozen=True, eq=False)
class Robust:
    """What a method computes for a batch.

    Attributes:
        losses: (N,), to be minimised in the mean.
        bounds: the intervals behind them, which the regularisers keep tight.
        terms: further scalars to log.
        logits: by name, further logits whose accuracy is logged.
    """

    losses: Tensor
    bounds: Bounds
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    logits: Mapping[str, Tensor] = field(default_factory=dict)


class CertifiedTraining(RobustClassifier):
    """min_θ E [κ · CE(f(x), y) + (1 − κ) · R(x, y)] + λ (1 − ε/ε_max) (R_tight + R_balance) in an Linf ball.

    R bounds, or estimates, the worst loss in the ball: a method is a subclass that writes `robust`. All terms are of
    one network, with the batch statistics of the clean pass, which alone moves the running statistics; gradients go
    through the statistics. Bounds and logits are computed in the precision of the weights, with autocast off; the
    attack keeps it if it is told so. Where ε is 0 the loss is CE(f(x), y).

    The radius is that of the training attack, so `callbacks.EpsilonSchedule` moves it; κ and λ follow its share of
    ε_max. `val/selection`, by which the best epoch is chosen, is certified accuracy where it is measured, otherwise
    robust accuracy. It is below 0, and rises, in epochs that end before the full radius, so that none of them is kept
    if there are others.

    Args:
        threat: the ball, of norm "linf".
        attack: the training attack, for methods that have one; it attacks in this ball.
        train_eps: ε_max, if it is not that of the threat model; a number or a fraction ("8/255").
        kappa_start, kappa: κ at ε = 0 and at ε_max; linear in ε between them.
        initialisation: "ibp" draws the weights of Shi et al. 2021 when training starts, except where they come from a
            checkpoint; "none" leaves the model as it is.
        shi_weight: λ ≥ 0 of the regularisers of Shi et al. 2021, `tightness` and `imbalance`.
        shi_tolerance: their τ in (0, 1].
    """

    selection = "val/selection"
    attack: Attack

    def __init__(
        self,
        *,
        threat: ThreatModel,
        attack: Attack | None = None,
        train_eps: float | str | None = None,
        kappa_start: float = 0.0,
        kappa: float = 0.0,
        initialisation: str = "ibp",
        shi_weight: float = 0.5,
        shi_tolerance: float = 0.5,
        **base: Any,
    ):
        super().__init__(**base)
        if threat.norm != "linf":
            raise one_of("defense.threat.norm", threat.norm, ["linf"])
        if initialisation not in INITIALISATIONS:
            raise one_of("defense.initialisation", initialisation, INITIALISATIONS)
        at_least("defense", 0.0, shi_weight=shi_weight)
        if not 0 < shi_tolerance <= 1:
            raise UserError(f"defense.shi_tolerance must lie in (0, 1], got {shi_tolerance}")
        threat = threat if train_eps is None else threat.with_eps(train_eps, "defense.train_eps")
        self.attacks_images = attack is not None
        # Without an attack, something must still carry the ball that an ε schedule moves.
        self.attack = FGSM(threat=threat) if attack is None else replace(attack, threat=threat)
        self._full = threat.fraction
        self.kappa_start = check_share("kappa_start", kappa_start)
        self.kappa = check_share("kappa", kappa)
        self.initialisation = initialisation
        self.shi_weight = shi_weight
        self.shi_tolerance = shi_tolerance
        self._weights_are_set = initialisation == "none"
        self._graph = TracedGraph()
        self._seen: Tensor | None = None  # the measurement that `val/selection` looked at last
        self._selected_by: str | None = None  # of SELECTED_BY, the first that was ever measured

    @abstractmethod
    def robust(self, batch: Batch) -> Robust:
        """The losses of the method at the present radius."""

    @property
    def share(self) -> float:
        """ε / ε_max in [0, 1]."""
        return float(self.attack.threat.fraction / self._full) if self._full else 0.0

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        if y.is_floating_point():
            raise ValueError("a margin's bound needs one label for each image")
        x_adv = None
        if self.attacks_images:
            radius = self.attack.threat.fraction
            x_adv = self.attack(self.model, x, y, generator=self.generator) if radius else x.clone()
        with torch.autocast(x.device.type, enabled=False):
            return replace(self._loss(x, x_adv, y), x_adv=x_adv)

    def _loss(self, x: Tensor, x_adv: Tensor | None, y: Tensor) -> Loss:
        if not self.attack.threat.fraction:
            logits = self.model(x)
            natural = mean_cross_entropy(logits, y)
            return Loss(natural, {"clean": logits}, {"natural_loss": natural})
        kappa = self.between(self.kappa_start, self.kappa)
        batch = self._batch(x, x_adv, y, clean_gradient=kappa > 0)
        robust = self.robust(batch)
        natural, worst = mean_cross_entropy(batch.logits, y), robust.losses.mean()
        penalty = self._penalty(robust.bounds)
        terms = {
            "natural_loss": natural,
            "robust_loss": worst,
            "shi_penalty": penalty,
            "kappa": worst.new_tensor(kappa),
        }
        value = kappa * natural + (1 - kappa) * worst + penalty
        return Loss(value, {"clean": batch.logits, **robust.logits}, {**terms, **robust.terms})

    def between(self, start: float, end: float) -> float:
        """start + (end − start) · ε/ε_max."""
        return start + (end - start) * self.share

    def _batch(self, x: Tensor, x_adv: Tensor | None, y: Tensor, clean_gradient: bool) -> Batch:
        # Without batch norm and with κ = 0, nothing depends on the clean pass.
        needed = clean_gradient or any(isinstance(module, _BatchNorm) for module in self.model.modules())
        with batch_statistics(self.model) as statistics, torch.set_grad_enabled(needed):
            logits = self.model(x)
        network = for_training(self._graph(self.model, x).network(statistics))
        return Batch(x, y, x_adv, self.attack.threat, logits, network)

    def _penalty(self, bounds: Bounds) -> Tensor:
        """λ (1 − ε/ε_max) (R_tight + R_balance)."""
        weight, preactivations = self.shi_weight * (1 - self.share), relu_preactivations(bounds)
        if not weight or not preactivations:
            return bounds.boxes[0].lower.new_zeros(())
        image, tolerance = bounds.boxes[0], self.shi_tolerance
        return weight * (tightness(image, preactivations, tolerance) + imbalance(preactivations, tolerance))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["selected_by"] = self._selected_by

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._weights_are_set = True
        self._selected_by = checkpoint["selected_by"]

    def on_fit_start(self) -> None:
        if not self._weights_are_set:
            initialise(self.model, torch.Generator().manual_seed(mix(self._seed)))
            self._weights_are_set = True

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        measured = self.trainer.callback_metrics
        by = self._selected_by
        # A run that goes on may not have measured it again yet: another quantity must not take its place.
        names = SELECTED_BY[: 1 + SELECTED_BY.index(by)] if by else SELECTED_BY
        by = self._selected_by = next((name for name in names if name in measured), by)
        value = None if by is None else measured.get(by)
        fresh = value is not self._seen  # Lightning keeps the values of earlier epochs; a fresh value is a new tensor
        self._seen = value
        if by is None or self.share < 1:
            self.log(self.selection, -1 / (1 + self.current_epoch))
        elif fresh and value is not None:
            self.log(self.selection, value)


def worst_case_loss(lower: Tensor) -> Tensor:
    """CE at lower bounds of the margins, log(1 + Σ_j exp(−lower_j)): (N, K − 1) → (N,).

    It bounds CE(f(x'), y) from above for all x' that the bounds are of.
    """
    return torch.cat([lower.new_zeros(len(lower), 1), -lower], 1).logsumexp(1)


def certified_share(lower: Tensor) -> dict[str, Tensor]:
    """The share of samples whose margins are all above 0, strictly, as a term to log."""
    return {"certified_accuracy": (lower > 0).all(1).to(lower.dtype).mean()}

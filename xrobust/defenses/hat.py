"""Helper-based adversarial training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xrobust.defenses.base import Loss
from xrobust.defenses.batch_norm import frozen_statistics
from xrobust.defenses.trades import TRADES
from xrobust.errors import UserError, at_least
from xrobust.export.loading import load
from xrobust.frame import logits_of


class HAT(TRADES):
    """TRADES + γ · CE(f(x + h (x* − x)), argmax f_std(x*)) (Rade & Moosavi-Dezfooli 2022).

    Adversarial training pushes the boundary too far along adversarial directions. A helper example goes h times as
    far and gets the label that a standard model gives to x*, which pulls the boundary back. Helper examples may leave
    the pixel box, as published.

    Args:
        helper: f_std: the path of a bundle or checkpoint, or a module from images to logits; it is not trained and not
            part of checkpoints.
        beta: β ≥ 0, the weight of KL.
        gamma: γ ≥ 0, the weight of the helper examples.
        stretch: h ≥ 0.
        attack, label_smoothing: as in `TRADES`.
        batch_norm: as in `TRADES`; helper examples update the statistics with "both", as published, and else do not.
    """

    def __init__(
        self,
        *,
        helper: str | Path | nn.Module,
        beta: float = 2.5,
        gamma: float = 0.5,
        stretch: float = 2.0,
        **adversarial: Any,
    ):
        super().__init__(beta=beta, **adversarial)
        at_least("defense", 0.0, gamma=gamma, stretch=stretch)
        self.gamma, self.stretch = gamma, stretch
        # In a tuple, so that it is no submodule and no part of checkpoints.
        self._helper = (_loaded(helper).eval().requires_grad_(False),)

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        trades = super().loss_on(x, x_adv, y)
        with frozen_statistics(self.model, frozen=self.batch_norm != "both"):
            logits = self.model(x + self.stretch * (x_adv - x))
        entropy = self.cross_entropy(logits, self._labels(x_adv, logits.shape[1]))
        terms = {**trades.terms, "helper_cross_entropy": entropy}
        return Loss(trades.value + self.gamma * entropy, trades.logits, terms)

    @torch.no_grad()
    def _labels(self, x_adv: Tensor, classes: int) -> Tensor:
        said = logits_of(self._helper[0].to(x_adv.device), x_adv)
        if said.shape[1] != classes:
            raise UserError(f"defense.helper must tell {classes} classes apart, as the model does, got {said.shape[1]}")
        return said.argmax(1)


def _loaded(helper: str | Path | nn.Module) -> nn.Module:
    if isinstance(helper, nn.Module):
        return copy.deepcopy(helper)
    try:
        return load(helper)
    except UserError as error:
        raise UserError(f"defense.helper={error}") from error

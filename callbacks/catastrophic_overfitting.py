"""A watch for catastrophic overfitting."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from callbacks.fixed_images import fixed_accuracy
from xrobust.attacks import Attack
from xrobust.defenses import RobustClassifier
from xrobust.errors import UserError, at_least, at_most, one_of

ACTIONS = ("warn", "stop", "switch")
PLACE = "catastrophic_overfitting"


class CatastrophicOverfitting(pl.Callback):
    """Robust accuracy under a single-step and a multi-step attack, on held-out images after each epoch.

    A network that is trained against one large step may learn to break that step alone: within an epoch, accuracy under
    several small steps falls to nothing (Wong et al. 2020). Logs `val/single_step_accuracy`, `val/multi_step_accuracy`
    and their difference `val/single_step_gap`, of the weights in training (not of an average), at the training
    attack's present radius. Overfitting is seen when the gap exceeds `max_gap`, or multi-step accuracy falls below
    `min_kept` of its best value at this radius.

    Args:
        single_step: the attack of one step.
        multi_step: the attack of several steps.
        action: what happens when it is seen: "warn" (one line), "stop" (and training ends after the epoch), or
            "switch" (and `switch_to` is the training attack from then on).
        switch_to: the training attack to switch to.
        max_gap: in [0, 1].
        min_kept: in [0, 1].
        images: how many validation images, fixed and class-balanced.
        seed: of the attacks' random streams.
    """

    def __init__(
        self,
        single_step: Attack,
        multi_step: Attack,
        action: str = "warn",
        switch_to: Attack | None = None,
        max_gap: float = 0.3,
        min_kept: float = 0.5,
        images: int = 500,
        seed: int = 0,
    ):
        if action not in ACTIONS:
            raise one_of(f"{PLACE}.action", action, ACTIONS)
        if action == "switch" and switch_to is None:
            raise UserError(f"{PLACE}.switch_to must be an attack, since {PLACE}.action is 'switch'")
        at_least(PLACE, 0.0, max_gap=max_gap, min_kept=min_kept)
        at_most(PLACE, 1, max_gap=max_gap, min_kept=min_kept)
        at_least(PLACE, 1, images=images)
        self.single_step = single_step
        self.multi_step = multi_step
        self.action = action
        self.switch_to = switch_to
        self.max_gap = max_gap
        self.min_kept = min_kept
        self.images = images
        self.seed = seed
        self._seen = False  # in the last epoch
        self._switched = False
        self._best: dict[str, float] = {}  # the radius of the last epoch → the best multi-step accuracy there

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._seen, "switched": self._switched, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seen, self._switched, self._best = (state_dict[name] for name in ("seen", "switched", "best"))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        if self.action == "switch" and not (pl_module.attack and pl_module.attacks_images):
            raise UserError(f"{PLACE}.action='switch', but {type(pl_module).__name__} trains with no attack of its own")
        if self._switched:
            self._switch(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        single, multi = (self._accuracy(trainer, pl_module, attack) for attack in (self.single_step, self.multi_step))
        pl_module.log("val/single_step_accuracy", single)
        pl_module.log("val/multi_step_accuracy", multi)
        pl_module.log("val/single_step_gap", single - multi)
        before, self._seen = self._seen, self._overfits(self._radius(pl_module), single, multi)
        if self._seen and not before:
            what_next = {"warn": "", "stop": "; training stops", "switch": f"; training goes on with {self.switch_to}"}
            rank_zero_warn(
                f"catastrophic overfitting in epoch {trainer.current_epoch}: accuracy is {single:.1%} under one step "
                f"but {multi:.1%} under several{what_next[self.action]}"
            )
            trainer.should_stop = trainer.should_stop or self.action == "stop"
            if self.action == "switch":
                self._switched = True
                self._switch(pl_module)

    def _accuracy(self, trainer: pl.Trainer, pl_module: RobustClassifier, attack: Attack) -> float:
        attack = attack.with_eps(self._radius(pl_module))
        return fixed_accuracy(trainer, pl_module, attack, self.images, split="validation", seed=self.seed).item()

    def _radius(self, pl_module: RobustClassifier) -> Fraction:
        return (pl_module.attack or self.multi_step).threat.fraction

    def _overfits(self, radius: Fraction, single: float, multi: float) -> bool:
        best = max(multi, self._best.get(str(radius), 0.0))
        self._best = {str(radius): best}
        return single - multi > self.max_gap or multi < self.min_kept * best

    def _switch(self, pl_module: RobustClassifier) -> None:
        assert self.switch_to is not None
        pl_module.attack = self.switch_to.with_eps(self._radius(pl_module))

"""How good the model's explanations are, epoch by epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from callbacks.validation_probe import check_explainable, validation_probe
from xrobust.attacks import Attack
from xrobust.attacks.attribution import require_attack_on_maps
from xrobust.attributions import Attribution
from xrobust.defenses import RobustClassifier
from xrobust.errors import UserError, at_least
from xrobust.explanation import check_needs, plan
from xrobust.files import replace_file
from xrobust.metrics import ExplanationMetric, Probe

COSTS = ("cheap", "moderate", "expensive")
FINAL = "final"
Cadence = int | str


class ExplanationQuality(pl.Callback):
    """Logs `explain/<group>/<metric>/<attribution>` after each epoch, and beside it the share of images for which
    the metric is defined, `…/valid`. Metrics of the model alone have no attribution in their key.

    The images are fixed, class-balanced and from the validation set; processes share them out. What it cost is
    `explain/seconds`; `explain/skipped` counts the metrics that were due but for which the epoch's budget was spent.
    Those come first in the next epoch. The first epoch measures everything but what is "final", the last everything;
    a run that stops early has no such last epoch, and warns of what it has not measured.

    Args:
        folder: the run folder; explanation_metrics.json there says which direction of each quantity is better.
        attributions: by name, the methods under test.
        metrics: by name, what is measured of each.
        attack: makes the adversarial examples.
        map_attack: attacks the maps, for metrics that compare with attacked ones; they are left out for attributions
            that cannot be differentiated.
        images: size of the probe set, or all validation images if there are fewer.
        every_n_epochs: how often; a number for all metrics, or by metric name (1 for those not named). "final" is
            after the last epoch only.
        budget: the share of the training time of the epochs so far that may be spent; none means no limit.
        seed: of everything random here.
        batch_size: how many images go through the model at once.
    """

    def __init__(
        self,
        folder: str,
        attributions: Mapping[str, Attribution],
        metrics: Mapping[str, ExplanationMetric],
        attack: Attack,
        map_attack: Attack | None = None,
        images: int = 128,
        every_n_epochs: Cadence | Mapping[str, Cadence] = 1,
        budget: float | None = 1.0,
        seed: int = 0,
        batch_size: int = 256,
    ):
        place = "explanation_quality"
        at_least(place, 1, images=images, batch_size=batch_size)
        require_attack_on_maps(map_attack, f"{place}.map_attack")
        if budget is not None:
            at_least(place, 0.0, budget=budget)
        per_metric = every_n_epochs if isinstance(every_n_epochs, Mapping) else dict.fromkeys(metrics, every_n_epochs)
        for name, every in per_metric.items():
            if name not in metrics or not (every == FINAL or (isinstance(every, int) and every >= 1)):
                raise UserError(
                    f"{place}.every_n_epochs needs at least 1, or final, for one of {', '.join(metrics)}, "
                    f"got {name}: {every}"
                )
        self.file = Path(folder) / "explanation_metrics.json"
        self.attributions = attributions
        self.metrics = metrics
        self.attack = attack
        self.map_attack = map_attack
        self.images = images
        self.every = {name: per_metric.get(name, 1) for name in metrics}
        self.budget = budget
        self.seed = seed
        self.batch_size = batch_size
        self._keys = {f"explain/{key}": pair for key, pair in plan(attributions, metrics).items()}
        self._measured = dict.fromkeys(self._keys, -1)  # the epoch in which each key was last measured
        self._allowance = 0.0

    def state_dict(self) -> dict[str, object]:
        return {"measured": self._measured, "allowance": self._allowance}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self._measured, self._allowance = state_dict["measured"], state_dict["allowance"]  # type: ignore[assignment]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_needs(self.metrics, self._probe(trainer, pl_module))
        check_explainable(trainer, pl_module, self.attributions)
        if trainer.is_global_zero:
            directions = {key: self.metrics[metric].higher_is_better for key, (metric, _) in self._keys.items()}
            replace_file(self.file, json.dumps(directions, indent=2) + "\n")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_began = time.monotonic()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.budget is not None and not trainer.sanity_checking and trainer.state.fn == "fit":
            self._allowance += self.budget * (time.monotonic() - self._epoch_began)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        if trainer.sanity_checking or not self._keys:
            return
        began = time.monotonic()
        epoch, last = trainer.current_epoch, (trainer.max_epochs or 0) - 1
        everything = epoch == 0 or epoch == last
        due = [key for key, (metric, _) in self._keys.items() if self._due(metric, epoch, last)]
        due.sort(key=lambda key: (self._measured[key], COSTS.index(self.metrics[self._keys[key][0]].cost)))
        probe = self._probe(trainer, pl_module)
        probes = {name: probe.using(method) for name, method in self.attributions.items()}
        skipped = 0
        for key in due:
            spent = time.monotonic() - began
            affordable = everything or self.budget is None or spent < self._allowance
            # One process decides for all, since computing a metric is a collective call.
            if trainer.strategy.broadcast(affordable):
                self._measure(key, probe, probes, pl_module)
                self._measured[key] = epoch
            else:
                skipped += 1
        seconds = time.monotonic() - began
        self._allowance = max(0.0, self._allowance - seconds)
        pl_module.log("explain/seconds", seconds)
        pl_module.log("explain/skipped", float(skipped))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        never = sorted({metric for key, (metric, _) in self._keys.items() if self._measured[key] < 0})
        if never and not trainer.interrupted:
            rank_zero_warn(
                f"training ended before the last of trainer.max_epochs={trainer.max_epochs}: explanation_quality "
                f"has not measured {', '.join(never)}"
            )

    def _probe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Probe:
        options = {"map_attack": self.map_attack, "seed": self.seed, "batch_size": self.batch_size}
        return validation_probe(trainer, pl_module, self.images, self.attack, share=True, **options)  # type: ignore[arg-type]

    def _due(self, metric: str, epoch: int, last: int) -> bool:
        every = self.every[metric]
        return epoch == last or (every != FINAL and (epoch == 0 or epoch % int(every) == 0))

    def _measure(self, key: str, probe: Probe, probes: Mapping[str, Probe], pl_module: RobustClassifier) -> None:
        metric_name, attribution = self._keys[key]
        metric = self.metrics[metric_name].to(pl_module.device)
        metric.reset()
        metric.update(probe if attribution is None else probes[attribution])
        pl_module.log(key, metric.compute())
        pl_module.log(f"{key}/valid", metric.valid_share())

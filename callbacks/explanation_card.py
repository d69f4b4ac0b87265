"""The explanation card of the best checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl

from callbacks.validation_probe import check_explainable, validation_probe
from xrobust.attacks import Attack
from xrobust.attacks.attribution import require_attack_on_maps
from xrobust.attributions import Attribution
from xrobust.defenses import RobustClassifier
from xrobust.errors import at_least
from xrobust.explanation import answer
from xrobust.export.explanation_table import card_markdown
from xrobust.files import replace_file
from xrobust.metrics import ExplanationMetric
from xrobust.report.progress import busy


class ExplanationCard(pl.Callback):
    """After the test, which has loaded the best checkpoint: twelve questions about its explanations, with numbers.

    Written to the run folder as explanation_card.json and .md; the bundle and the report show it, too. The images are
    fixed, class-balanced and from the validation set.

    Args:
        folder: the run folder.
        attributions: by name, the methods under test.
        metrics: by name, what is measured of each, also of the references; those that ask for what the data does not
            have (which pixels matter) are left out, and the card says so.
        attack: makes the adversarial examples.
        map_attack: attacks the maps.
        images: how many, or all validation images if there are fewer.
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
        images: int = 32,
        seed: int = 0,
        batch_size: int = 256,
    ):
        at_least("explanation_card", 1, images=images, batch_size=batch_size)
        require_attack_on_maps(map_attack, "explanation_card.map_attack")
        self.folder = Path(folder)
        self.attributions = attributions
        self.metrics = metrics
        self.attack = attack
        self.map_attack = map_attack
        self.images = images
        self.seed = seed
        self.batch_size = batch_size

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_explainable(trainer, pl_module, self.attributions)

    def on_test_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        if not trainer.is_global_zero or not self.attributions:
            return
        options = {"map_attack": self.map_attack, "seed": self.seed, "batch_size": self.batch_size}
        probe = validation_probe(trainer, pl_module, self.images, self.attack, **options)  # type: ignore[arg-type]
        results = [result.as_dict() for result in pl_module.results]
        with busy("filling in the explanation card") as status:
            _, card = answer(
                [probe],
                self.attributions,
                self.metrics,
                split="validation",
                data=trainer.datamodule.identity("validation"),  # type: ignore[attr-defined]
                results=results,
                watch=lambda key: status.update(f"explanation card: {key}"),
            )
        pl_module.explanation_card = card
        replace_file(self.folder / "explanation_card.json", json.dumps(card, indent=2) + "\n")
        replace_file(self.folder / "explanation_card.md", card_markdown(card))

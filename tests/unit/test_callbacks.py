"""What is measured while a model trains, on real digits."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from callbacks import (
    AttributionPanels,
    BestCheckpoint,
    EarlyStopping,
    EpsilonSchedule,
    ExplanationQuality,
    History,
    MovableCheckpoint,
    RobustAccuracy,
)
from callbacks.wandb_logger import RunLogger
from xrobust.attacks import PGD
from xrobust.attributions import Gradient, InputXGradient
from xrobust.data import Digits
from xrobust.defenses import PGDAdversarialTraining, StandardTraining
from xrobust.errors import UserError
from xrobust.metrics import GiniIndex, LinearisedRobustness, TopKIntersection
from xrobust.models import SmallCNN
from xrobust.report.history import read_history
from xrobust.schedules import Constant, Ramp
from xrobust.threat import ThreatModel

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
THREAT = ThreatModel("linf", "0.1")
WORST = PGD(threat=THREAT, steps=3, keep="worst")


def fitted(
    callbacks: list[pl.Callback],
    epochs: int = 1,
    adversarial: bool = False,
    checkpoint: str | None = None,
    **data: Any,
) -> pl.Trainer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallCNN(num_classes=10, in_channels=1, image_size=8)
    base = {"model": model, "optimizer": lambda p: torch.optim.Adam(p, 3e-3), "schedule": Constant()}
    attack = PGD(threat=THREAT, steps=2)
    module = PGDAdversarialTraining(attack=attack, **base) if adversarial else StandardTraining(**base)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    digits = Digits(num_classes=10, channels=1, image_size=8, **data)
    trainer.fit(module, datamodule=digits, ckpt_path=checkpoint, weights_only=True)
    return trainer


def test_robust_accuracy_does_not_depend_on_the_batch_size_and_never_exceeds_clean() -> None:
    values = []
    for batch in (7, 200):
        metrics = fitted([RobustAccuracy(WORST, WORST)], eval_batch_size=batch).callback_metrics
        values.append(float(metrics["val/robust_accuracy"]))
        assert values[-1] <= metrics["val/clean_accuracy"]
    assert values[0] == values[1]


def test_robust_accuracy_attacks_a_fixed_balanced_subset() -> None:
    callback = RobustAccuracy(WORST, WORST, val_images=30)
    fitted([callback], eval_batch_size=16)
    assert callback.robust.counts()[1] == 30
    data = Digits(num_classes=10, channels=1, image_size=8)
    labels = data.val_dataloader().labels
    assert labels[callback._chosen].bincount().tolist() == [3] * 10


def test_the_test_reports_counts_and_protocol_of_both_accuracies() -> None:
    trainer = fitted([RobustAccuracy(WORST, WORST)])
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
    clean, robust = trainer.lightning_module.results
    assert clean.total == robust.total == 359 and robust.correct <= clean.correct
    assert robust.protocol["attack"]["name"] == "PGD" and robust.protocol["split"] == "test"
    assert robust.interval[0] < robust.value < robust.interval[1]


def test_the_radius_grows_over_the_first_share_of_the_run() -> None:
    seen: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:  # type: ignore[override]
            seen.append(pl_module.attack.threat.radius)

    fitted([EpsilonSchedule(Ramp(end=0.5)), Watch()], adversarial=True, batch_size=100)
    steps = len(seen)
    assert seen[0] == 0 and seen[-1] == 0.1 and seen == sorted(seen)
    assert seen[steps // 4] == pytest.approx(0.1 * (steps // 4) / (0.5 * steps))


def test_the_radius_schedule_leaves_a_run_without_an_attack_alone() -> None:
    assert "train/eps" not in fitted([EpsilonSchedule(Ramp())]).callback_metrics


def quality(folder: Path, **options: Any) -> ExplanationQuality:
    methods = {"gradient": Gradient(), "input_x_gradient": InputXGradient()}
    metrics = {"gini": GiniIndex(), "rho": LinearisedRobustness(), "topk": TopKIntersection()}
    return ExplanationQuality(str(folder), methods, metrics, WORST, images=20, **options)


def test_explanations_are_measured_on_all_validation_images_if_there_are_few(tmp_path: Path) -> None:
    trainer = fitted([quality(tmp_path)], validation_fraction=0.01)
    assert trainer.datamodule.summary()["validation"] < 20  # type: ignore[attr-defined]
    assert trainer.callback_metrics["explain/complexity/gini/gradient/valid"] == 1


def test_each_metric_is_logged_for_each_attribution_with_its_valid_share(tmp_path: Path) -> None:
    metrics = fitted([quality(tmp_path)]).callback_metrics
    keys = {
        "explain/complexity/gini/gradient",
        "explain/complexity/gini/input_x_gradient",
        "explain/alignment/rho",  # of the model alone
        "explain/stability/topk/gradient",
        "explain/stability/topk/input_x_gradient",
    }
    extra = {"explain/seconds", "explain/skipped"}
    assert {key for key in metrics if key.startswith("explain/")} == keys | {f"{key}/valid" for key in keys} | extra
    directions = json.loads((tmp_path / "explanation_metrics.json").read_text())
    assert directions.keys() == keys and all(directions.values())


def test_a_spent_budget_makes_metrics_wait_and_take_turns(tmp_path: Path) -> None:
    callback = quality(tmp_path, budget=0.0)
    history = History(str(tmp_path))
    fitted([callback, history], epochs=4)
    rows = read_history(tmp_path / "metrics.csv")
    assert [row["explain/skipped"] for row in rows] == [0, 5, 5, 0]  # the first and the last epoch measure everything
    assert "explain/complexity/gini/gradient" in rows[0]
    assert "explain/complexity/gini/gradient" not in rows[1]  # an empty cell, not the old value


def test_the_cadence_is_per_metric(tmp_path: Path) -> None:
    callback = quality(tmp_path, budget=None, every_n_epochs={"topk": 2})
    fitted([callback, History(str(tmp_path))], epochs=5)
    rows = read_history(tmp_path / "metrics.csv")
    assert ["explain/stability/topk/gradient" in row for row in rows] == [True, False, True, False, True]
    assert all("explain/complexity/gini/gradient" in row for row in rows)


class Stop(pl.Callback):
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = True


def test_a_run_that_stops_early_says_what_only_its_last_epoch_would_have_measured(tmp_path: Path) -> None:
    final = {"every_n_epochs": {"topk": "final"}}
    assert "explain/stability/topk/gradient" in fitted([quality(tmp_path, **final)], epochs=2).callback_metrics
    with pytest.warns(UserWarning, match=r"max_epochs=3: explanation_quality has not measured topk$"):
        fitted([quality(tmp_path, **final), Stop()], epochs=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": 0}, "images must be an integer of at least 1"),
        ({"budget": -0.1}, "budget must be at least 0"),
        ({"every_n_epochs": {"gni": 2}}, "gni"),
        ({"every_n_epochs": 0}, "at least 1"),
    ],
)
def test_bad_values_are_refused_by_name(options: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        ExplanationQuality(str(tmp_path), {"gradient": Gradient()}, {"gini": GiniIndex()}, WORST, **options)


def test_panels_are_drawn_for_the_same_images_at_each_epoch(tmp_path: Path) -> None:
    import numpy as np

    panels = AttributionPanels(str(tmp_path), {"gradient": Gradient()}, WORST, images=4, every_n_epochs=2)
    fitted([panels], epochs=4)
    assert sorted(file.stem for file in tmp_path.glob("*.png")) == ["epoch_000", "epoch_002", "epoch_003"]
    with np.load(tmp_path / "epoch_000.npz") as first, np.load(tmp_path / "epoch_003.npz") as last:
        assert np.array_equal(first["images"], last["images"]) and len(first["images"]) == 4
        assert not np.array_equal(first["map/gradient"], last["map/gradient"])
        assert len(set(first["labels"].tolist())) == 4


def test_history_drops_the_epochs_that_a_resumed_run_repeats(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,val/clean_accuracy\n0,0.5\n1,0.6\n")
    fitted([History(str(tmp_path))])
    rows = read_history(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in rows] == [0] and "train/loss" in rows[0]


def test_the_best_epoch_is_chosen_by_the_quantity_of_the_defense(tmp_path: Path) -> None:
    chosen = {}
    for adversarial in (False, True):
        best = BestCheckpoint(str(tmp_path / str(adversarial)))
        fitted([RobustAccuracy(WORST, WORST), best], epochs=2, adversarial=adversarial)
        chosen[adversarial] = best.monitor
        assert (tmp_path / str(adversarial) / "best.ckpt").is_file()
    assert chosen == {False: "val/clean_accuracy", True: "val/robust_accuracy"}


class Scores(pl.Callback):
    """Logs these values of `val/score`, epoch by epoch, and ends the run before a given one."""

    def __init__(self, values: list[float | None], end: int | None = None):
        self.values, self.end = values, end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = self.values[trainer.current_epoch]
        if value is not None:
            pl_module.log("val/score", value)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.end


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
def test_a_moved_run_that_goes_on_keeps_its_best_epoch_though_it_is_not_measured_again_at_once(tmp_path: Path) -> None:
    def run(folder: Path, end: int | None, checkpoint: str | None) -> BestCheckpoint:
        best = BestCheckpoint(str(folder), monitor="val/score")
        stopping = EarlyStopping(monitor="val/score", mode="max", patience=5)
        callbacks = [Scores([0.9, 0.5, None, 0.3], end), best, stopping, MovableCheckpoint(folder, "last")]
        fitted(callbacks, epochs=4, checkpoint=checkpoint)
        return best

    run(tmp_path / "here", 2, None)
    (tmp_path / "here").rename(tmp_path / "there")
    before = (tmp_path / "there/best.ckpt").read_bytes()
    best = run(tmp_path / "there", None, str(tmp_path / "there/last.ckpt"))
    assert best.best_model_score == pytest.approx(0.9)
    assert best.best_model_path == str(tmp_path / "there/best.ckpt")
    assert (tmp_path / "there/best.ckpt").read_bytes() == before


def test_online_the_data_version_is_the_artifact_that_a_run_takes(tmp_path):
    logger = RunLogger(save_dir=str(tmp_path), mode="online")
    taken, noted = [], {}
    config = SimpleNamespace(update=lambda values, allow_val_change: noted.update(values))
    logger._experiment = SimpleNamespace(config=config, use_artifact=taken.append)
    data = {"name": "MNIST", "train": 54_000, "sha256": "0" * 64}
    logger.log_data(data)
    assert noted == {"data_version": data}
    assert [(one.name, one.type, one.metadata) for one in taken] == [("data-mnist", "dataset", data)]
    assert set(taken[0].manifest.entries) == {"version.json"}

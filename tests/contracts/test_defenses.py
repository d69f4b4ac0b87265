"""The contract of every training method in conf/defense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conf_walk import GIVEN, WITHOUT_METRICS, choices, composed
from torch import Tensor

import xrobust
from xrobust.config.build import build
from xrobust.defenses import Loss, RobustClassifier
from xrobust.errors import UserError
from xrobust.export.bundle import save_bundle
from xrobust.schedules import Constant

NAMES = choices("defense")
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated", "ignore:.*does not have many workers")


@pytest.fixture(scope="module")
def _folder_with_a_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bundle` in it holds the standard model that some methods ask for."""
    folder = tmp_path_factory.mktemp("helper")
    defense, config = built_defense("standard")
    save_bundle(folder / "bundle", defense.model, config["model"], class_names=list("0123456789"), training=config)
    return folder


@pytest.fixture(autouse=True)
def _beside_the_bundle(_folder_with_a_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_folder_with_a_bundle)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=3e-3)


def built_defense(name: str, optimizer=sgd) -> tuple[RobustClassifier, dict]:
    small = ["data=digits", "data.batch_size=32", "threat.eps=0.1", *WITHOUT_METRICS]
    config = composed(f"defense={name}", *small, *GIVEN.get(f"defense={name}", []))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(config["model"], "model")
    defense = build(config["defense"], "defense", model=model, optimizer=optimizer, schedule=Constant(), seed=0)
    defense.config = config
    return defense, config


def trained(
    defense: RobustClassifier, config: dict, epochs: int, checkpoint: Path | None = None, **options: Any
) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=2,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(defense, datamodule=build(config["data"], "data"), ckpt_path=checkpoint, weights_only=True)
    return trainer


def check_step_lowers_the_loss(defense: RobustClassifier, x: Tensor, y: Tensor) -> None:
    """A small gradient step lowers the method's own loss on the same batch, with the same random numbers.

    The step is tiny, and in float64, because a loss with input gradients in it jumps where an activation switches.
    """
    defense.train().double()
    x = x.double()

    def loss() -> Loss:
        defense.generator.manual_seed(0)
        return defense.training_loss(x, y)

    first = loss()
    first.value.backward()
    torch.optim.SGD(defense.model.parameters(), lr=1e-5).step()
    assert first.value.dim() == 0 and loss().value < first.value
    assert first.logits and all(logits.shape == (len(x), 10) for logits in first.logits.values())


@pytest.mark.parametrize("name", NAMES)
def test_one_step_lowers_the_loss(name: str, digits: tuple[Tensor, Tensor]) -> None:
    check_step_lowers_the_loss(built_defense(name)[0], digits[0][:64], digits[1][:64])


class Faulty(RobustClassifier):
    """Climbs instead of descending."""

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        logits = self.model(x)
        return Loss(
            torch.nn.functional.cross_entropy(logits, y) - 2 * torch.nn.functional.cross_entropy(logits, y).detach(),
            {},
        )


def test_the_check_sees_a_loss_that_reports_no_logits(digits: tuple[Tensor, Tensor]) -> None:
    model = built_defense("standard")[0].model
    with pytest.raises(AssertionError):
        check_step_lowers_the_loss(
            Faulty(model=model, optimizer=sgd, schedule=Constant()), digits[0][:64], digits[1][:64]
        )


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_load_as_tensors_only_and_give_the_model_back(name: str, tmp_path: Path, digits) -> None:
    defense, config = built_defense(name, adam)
    trained(defense, config, epochs=1).save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    loaded = xrobust.load(tmp_path / "a.ckpt")
    defense.eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(digits[0][:20]), defense.model(digits[0][:20]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole, config = built_defense(name, adam)
    trained(whole, config, epochs=2)
    first, _ = built_defense(name, adam)
    trained(first, config, epochs=1).save_checkpoint(tmp_path / "half.ckpt")
    second, _ = built_defense(name, adam)
    trained(second, config, epochs=2, checkpoint=tmp_path / "half.ckpt")
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


class WeightsAtTheStart(pl.Callback):
    """As the first batch finds them: a method may initialise them."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self.weights = flat(pl_module)


def flat(module: pl.LightningModule) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.model.parameters()])


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_clipping_and_accumulation_work_together_or_are_refused(name: str) -> None:
    defense, config = built_defense(name)
    start = WeightsAtTheStart()
    options = {"precision": "bf16-mixed", "gradient_clip_val": 1e-3, "callbacks": [start]}
    try:
        updates = trained(defense, config, epochs=1, accumulate_grad_batches=2, **options).global_step
    except UserError as error:
        assert "accumulate_grad_batches" in str(error)
        updates = trained(defense, config, epochs=1, **options).global_step * defense.replays
    moved = (flat(defense) - start.weights).norm().item()
    assert 0 < moved <= 1.01 * 0.01 * 1e-3 * updates  # the learning rate, the bound on a gradient


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_argument_is_refused(name: str) -> None:
    defense, _ = built_defense(name)
    with pytest.raises(TypeError):
        type(defense)(model=defense.model, optimizer=sgd, schedule=Constant(), no_such_argument=1)

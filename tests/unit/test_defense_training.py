"""The special methods under a Trainer: replays, accumulation, clipping, bfloat16, resuming, compiling, weight decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conf_walk import built, choices
from torch import Tensor, nn

from xrobust.attacks import FGSM, PGD
from xrobust.attacks.near_start_pgd import NearStartPGD
from xrobust.data.loader import TrainingLoader
from xrobust.defenses import (
    HAT,
    MART,
    NFGSM,
    TRADES,
    FreeAdversarialTraining,
    GradAlign,
    MultiThreatTraining,
    Optimization,
    PGDAdversarialTraining,
    RobustClassifier,
    StandardTraining,
)
from xrobust.errors import UserError
from xrobust.schedules import Constant, Cyclic, Ramp
from xrobust.threat import ThreatModel

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated", "ignore:.*have no `val_dataloader`")

LINF = ThreatModel("linf", "0.1")
ATTACK = PGD(threat=LINF, steps=2, autocast=True)
KL = NearStartPGD(threat=LINF, steps=2, loss="kl")
LR, BATCH, BATCHES = 0.1, 20, 4
Digits = tuple[Tensor, Tensor]


def network(norm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = [nn.BatchNorm2d(1)] if norm else []
        return nn.Sequential(*first, nn.Flatten(), nn.Linear(64, 12), nn.Softplus(), nn.Linear(12, 10))


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=LR)


def defense(kind: type, model: nn.Module | None = None, optimizer: Any = sgd, schedule: Any = None, **arguments: Any):
    model = network() if model is None else model
    return kind(model=model, optimizer=optimizer, schedule=schedule or Constant(), **arguments)


METHODS = {
    "free_at": (FreeAdversarialTraining, {"threat": LINF, "replays": 3}),
    "grad_align": (GradAlign, {"attack": FGSM(threat=LINF, autocast=True)}),
    "n_fgsm": (NFGSM, {"attack": FGSM(threat=LINF, autocast=True, mode="train")}),
    "trades": (TRADES, {"attack": KL}),
    "mart": (MART, {"attack": ATTACK}),
    "hat": (HAT, {"attack": KL, "helper": network()}),
    "multi_threat": (MultiThreatTraining, {"attacks": {"linf": ATTACK, "l2": ATTACK}, "combine": "average"}),
}


def loader(digits: Digits, **options: Any) -> TrainingLoader:
    images = (digits[0][: BATCH * BATCHES] * 255).to(torch.uint8)
    return TrainingLoader(images, digits[1][: BATCH * BATCHES], batch_size=BATCH, **options)


def fitted(method: RobustClassifier, digits: Digits, epochs: int = 1, **options: Any) -> pl.Trainer:
    checkpoint = options.pop("checkpoint", None)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(method, loader(digits), ckpt_path=checkpoint, weights_only=True)
    return trainer


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# Free.


def free_by_hand(model: nn.Module, digits: Digits, replays: int) -> None:
    """Free-m with SGD, written as a plain loop."""
    optimizer, delta = sgd(model.parameters()), torch.zeros(BATCH, 1, 8, 8)
    for x, y in loader(digits):
        for _ in range(replays):
            x_in = (x + delta).clamp(0, 1).requires_grad_()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x_in), y).backward()
            assert x_in.grad is not None
            delta = (delta + 0.1 * x_in.grad.sign()).clamp(-0.1, 0.1)
            optimizer.step()


@pytest.mark.parametrize("replays", [1, 3])
def test_free_is_the_plain_loop_whatever_the_number_of_replays(replays: int, digits: Digits) -> None:
    by_hand = network()
    free_by_hand(by_hand, digits, replays)
    method = defense(FreeAdversarialTraining, threat=LINF, replays=replays)
    trainer = fitted(method, digits)
    torch.testing.assert_close(weights(method.model), weights(by_hand), rtol=1e-5, atol=1e-6)
    assert trainer.global_step == BATCHES  # schedules count batches
    assert (weights(by_hand) - weights(network())).norm() > 0.01


def test_free_starts_each_epoch_without_a_perturbation(digits: Digits) -> None:
    method = defense(FreeAdversarialTraining, threat=LINF)
    fitted(method, digits)
    x = digits[0][:BATCH]
    assert (method.perturb(x, digits[1][:BATCH]) - x).abs().max() > 0.09
    method.on_train_epoch_start()
    assert torch.equal(method.perturb(x, digits[1][:BATCH]), x)


def test_free_follows_an_epsilon_schedule_and_stays_in_the_ball(digits: Digits) -> None:
    from callbacks import EpsilonSchedule

    method = defense(FreeAdversarialTraining, threat=LINF, replays=2)
    fitted(method, digits, callbacks=[EpsilonSchedule(Ramp(start=0.0, end=1.0))])
    assert float(method.attack.threat.fraction) == pytest.approx(0.1 * (BATCHES - 1) / BATCHES)
    x = digits[0][:BATCH]
    assert method.attack.threat.contains(method.perturb(x, digits[1][:BATCH]), x).all()


def test_free_refuses_accumulated_gradients_before_training(digits: Digits) -> None:
    method = defense(FreeAdversarialTraining, threat=LINF)
    with pytest.raises(UserError, match=r"trainer\.accumulate_grad_batches must be 1 for Free.*, got 2"):
        fitted(method, digits, accumulate_grad_batches=2)
    assert torch.equal(weights(method.model), weights(network()))


# Every special method under the trainer's options.


@pytest.mark.parametrize("name", [name for name in METHODS if name != "free_at"])
def test_accumulated_gradients_are_those_of_both_batches(name: str, digits: Digits) -> None:
    kind, arguments = METHODS[name]
    method = defense(kind, **arguments)
    trainer = fitted(method, digits, accumulate_grad_batches=2)
    assert trainer.global_step == BATCHES // 2
    by_hand = defense(kind, **arguments).train()
    by_hand.generator.set_state(fresh_generator(by_hand))
    optimizer = sgd(by_hand.model.parameters())
    for turn, (x, y) in enumerate(loader(digits)):
        (by_hand.training_loss(x, y).value / 2).backward()
        if turn % 2:
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(weights(method.model), weights(by_hand.model), rtol=1e-5, atol=1e-6)


def fresh_generator(method: RobustClassifier) -> Tensor:
    """The state of the generator with which epoch 0 begins."""
    from xrobust.randomness import mix

    return torch.Generator().manual_seed(mix(0, 0, 0)).get_state()


@pytest.mark.parametrize("name", METHODS)
def test_clipped_gradients_bound_every_update(name: str, digits: Digits) -> None:
    kind, arguments = METHODS[name]
    method = defense(kind, **arguments)
    fitted(method, digits, gradient_clip_val=1e-3)
    moved = (weights(method.model) - weights(network())).norm().item()
    updates = BATCHES * getattr(method, "replays", 1)
    assert 0.2 * LR * 1e-3 < moved <= 1.001 * LR * 1e-3 * updates


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_trains_nearly_as_float32(name: str, digits: Digits) -> None:
    kind, arguments = METHODS[name]
    moved = []
    for precision in ("32-true", "bf16-mixed"):
        method = defense(kind, **arguments)
        fitted(method, digits, precision=precision)
        moved.append(weights(method.model) - weights(network()))
    assert torch.cosine_similarity(*moved, dim=0) > 0.95 and not torch.equal(*moved)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_repeats_an_uninterrupted_one(name: str, digits: Digits, tmp_path: Path) -> None:
    kind, arguments = METHODS[name]
    optimizer = Optimization(
        optimizer=lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, weight_decay=0.1),
        schedule=Cyclic(),
        decay_norm_and_bias=False,
    )
    options = {"optimizer": optimizer, "schedule": Cyclic(), **arguments}
    whole = defense(kind, network(norm=True), **options)
    fitted(whole, digits, epochs=2)
    first = defense(kind, network(norm=True), **options)
    # The schedule counts on two epochs, so the first run has them, too, and is stopped after one.
    fitted(first, digits, epochs=2, callbacks=[StopAfterOneEpoch(tmp_path / "one.ckpt")])
    second = defense(kind, network(norm=True), **options)
    fitted(second, digits, epochs=2, checkpoint=tmp_path / "one.ckpt")
    for ours, theirs in zip(second.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(weights(first.model), weights(whole.model))


def test_dropout_draws_the_same_in_a_resumed_run(digits: Digits, tmp_path: Path) -> None:
    ends = []
    for epochs, options in (
        (2, {"callbacks": [StopAfterOneEpoch(tmp_path / "one.ckpt")]}),
        (2, {"checkpoint": tmp_path / "one.ckpt"}),
        (2, {}),
    ):
        torch.manual_seed(0)  # as at the start of every run
        model = nn.Sequential(*network(), nn.Dropout(0.5))
        fitted(defense(StandardTraining, model), digits, epochs=epochs, **options)
        ends.append(weights(model))
    assert torch.equal(ends[1], ends[2]) and not torch.equal(ends[0], ends[2])


class StopAfterOneEpoch(pl.Callback):
    """Saves the state as the first epoch ends, and ends the run."""

    def __init__(self, file: Path):
        self.file = file

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.file)


# Compiled models.


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile()
    return model


@pytest.mark.parametrize("compiled", [torch.compile, compiled_in_place])
def test_grad_align_refuses_a_compiled_model(compiled: Any) -> None:
    with pytest.raises(UserError, match=r"GradAlign differentiates a gradient, which torch\.compile cannot do"):
        defense(GradAlign, compiled(network()), attack=ATTACK)


def test_grad_align_refuses_to_be_compiled_itself(digits: Digits) -> None:
    method = defense(GradAlign, attack=ATTACK)
    with pytest.raises(UserError, match="GradAlign differentiates a gradient"):
        fitted(torch.compile(method), digits)  # type: ignore[arg-type]
    assert torch.equal(weights(method.model), weights(network()))


# Parameter groups.


@pytest.mark.parametrize("decayed", [True, False])
def test_weight_decay_spares_norms_and_biases_when_told_to(decayed: bool) -> None:
    model = network(norm=True)
    optimization = Optimization(
        optimizer=lambda p: torch.optim.SGD(p, lr=1.0, weight_decay=0.25),
        schedule=Constant(),
        decay_norm_and_bias=decayed,
    )
    optimizer = optimization(model.parameters())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        shrinks = decayed or p.dim() > 1
        torch.testing.assert_close(p.detach(), before[name] * (0.75 if shrinks else 1.0))


def test_the_schedule_moves_both_groups(digits: Digits) -> None:
    optimization = Optimization(optimizer=sgd, schedule=Constant(value=0.5), decay_norm_and_bias=False)
    method = defense(PGDAdversarialTraining, optimizer=optimization, schedule=optimization.schedule, attack=ATTACK)
    trainer = fitted(method, digits)
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.5 * LR] * 2


@pytest.mark.parametrize("name", choices("optim"))
def test_every_choice_of_optim_makes_an_optimiser_and_a_schedule(name: str) -> None:
    optimization, model = built("optim", name), network(norm=True)
    groups = optimization(model.parameters()).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert max(optimization.schedule(step / 100) for step in range(101)) == 1
    assert all(optimization.schedule(step / 100) >= 0 for step in range(101))


def test_cyclic_is_a_triangle() -> None:
    assert [Cyclic(peak=0.4)(t) for t in (0, 0.2, 0.4, 0.7, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert [Cyclic(peak=peak)(1.0) for peak in (0.0, 1.0)] == [0, 1] and Cyclic(peak=0.0)(0.0) == 1
    with pytest.raises(UserError, match=r"Cyclic\.peak must be a share of the run"):
        Cyclic(peak=1.5)

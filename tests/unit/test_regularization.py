"""Regularisers in training: what they add to any method's loss, what is logged, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks import AdversarialWeightPerturbation, EpsilonSchedule
from xrobust.attacks import PGD
from xrobust.defenses import (
    TRADES,
    FreeAdversarialTraining,
    GradientRegularized,
    Loss,
    MultiThreatTraining,
    PGDAdversarialTraining,
    StandardTraining,
)
from xrobust.defenses.regularization import Regularization
from xrobust.errors import UserError
from xrobust.regularizers import ART, GradAlign, IGSumNorm, InputGradient, PenaltyAscent, Regularizer
from xrobust.schedules import Constant, Ramp
from xrobust.threat import ThreatModel

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.* is deprecated", "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`"
)
LINF = ThreatModel("linf", "0.1")
ATTACK = PGD(threat=LINF, steps=2)
Digits = tuple[Tensor, Tensor]
ALIGN, NORM = GradAlign(threat=LINF, weight=0.5), InputGradient(weight=2.0)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Softplus(), nn.Linear(12, 10)).double()


def regularized(
    kind: type, regularizers: dict[str, Regularizer], model: nn.Module | None = None, **arguments: Any
) -> Any:
    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    defense = kind(model=model or network(), optimizer=sgd, schedule=Constant(), **arguments).train()
    defense.regularization = Regularization(defense, regularizers)
    return defense


def step(defense: Any, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The loss of a training step and its gradients, from the same random numbers each time."""
    defense.generator.manual_seed(0)
    value = defense.training_step((x, y), 0)
    return value.detach(), list(torch.autograd.grad(value, list(defense.model.parameters())))


@pytest.fixture
def batch(digits: Digits) -> Digits:
    return digits[0][:8].double(), digits[1][:8]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (StandardTraining, {}),
        (TRADES, {"attack": ATTACK}),
        (PGDAdversarialTraining, {"attack": ATTACK, "clean_share": 0.5}),
        (GradientRegularized, {"attack": ATTACK}),
        (GradientRegularized, {"attack": ATTACK, "images": "adversarial"}),
    ],
)
def test_the_loss_is_that_of_the_method_and_the_weighted_penalties(kind: type, arguments: Any, batch: Digits) -> None:
    x, y = batch
    defense = regularized(kind, {"align": ALIGN, "norm": NORM}, **arguments)
    value, gradients = step(defense, x, y)
    defense.generator.manual_seed(0)
    total = defense.training_loss(x, y).value
    penalties = [r(defense.model, x, y, generator=defense.generator).mean() for r in (ALIGN, NORM)]
    total = total + 0.5 * penalties[0] + 2.0 * penalties[1]
    expected = torch.autograd.grad(total, list(defense.model.parameters()))
    torch.testing.assert_close(value, total.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients, list(expected))


def test_penalties_may_be_taken_at_the_adversarial_images(batch: Digits) -> None:
    x, y = batch
    there = replace(NORM, images="adversarial")
    defense = regularized(PGDAdversarialTraining, {"norm": there}, attack=ATTACK)
    value, _ = step(defense, x, y)
    defense.generator.manual_seed(0)
    loss = defense.training_loss(x, y)
    assert loss.x_adv is not None and not torch.equal(loss.x_adv, x)
    expected = loss.value + 2.0 * NORM(defense.model, loss.x_adv, y).mean()
    torch.testing.assert_close(value, expected.detach(), rtol=1e-6, atol=0)


def test_the_examples_of_several_attacks_keep_their_labels(batch: Digits) -> None:
    x, y = batch
    there = replace(NORM, images="adversarial")
    attacks = {"linf": ATTACK, "l2": PGD(threat=ThreatModel("l2", 1), steps=2)}
    defense = regularized(MultiThreatTraining, {"norm": there}, attacks=attacks, combine="average")
    value, _ = step(defense, x, y)
    defense.generator.manual_seed(0)
    loss = defense.training_loss(x, y)
    assert loss.x_adv is not None and len(loss.x_adv) == 2 * len(x)
    parts = [NORM(defense.model, part, y).mean() for part in loss.x_adv.split(len(x))]
    torch.testing.assert_close(value, (loss.value + 2.0 * sum(parts) / 2).detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("kind", "arguments"), [(StandardTraining, {}), (GradientRegularized, {"attack": ATTACK})])
def test_adversarial_images_are_asked_of_methods_that_make_some(kind: type, arguments: Any, batch: Digits) -> None:
    defense = regularized(kind, {"norm": replace(NORM, images="adversarial")}, **arguments)
    with pytest.raises(UserError, match="images=adversarial needs a training method that attacks"):
        step(defense, *batch)


def test_ig_sum_norm_on_clean_images_is_the_published_loss(batch: Digits) -> None:
    x, y = batch
    penalty = IGSumNorm(threat=LINF, steps=2)
    defense = regularized(GradientRegularized, {"ig_sum_norm": penalty}, attack=ATTACK)
    value, _ = step(defense, x, y)
    defense.generator.manual_seed(0)
    expected = F.cross_entropy(defense.model(x), y) + penalty(defense.model, x, y, generator=defense.generator).mean()
    torch.testing.assert_close(value, expected.detach(), rtol=1e-6, atol=0)


def test_art_trains_on_the_images_that_its_own_penalty_finds(batch: Digits) -> None:
    x, y = batch
    art = ART(images="adversarial", weight=0.5)
    attack = PenaltyAscent(threat=LINF, regularizer=ART())
    defense = regularized(GradientRegularized, {"art": art}, attack=attack, images="adversarial")
    value, _ = step(defense, x, y)
    defense.generator.manual_seed(0)
    x_adv = attack(defense.model, x, y, generator=defense.generator)
    expected = F.cross_entropy(defense.model(x_adv), y) + 0.5 * art(defense.model, x_adv, y).mean()
    torch.testing.assert_close(value, expected.detach(), rtol=1e-6, atol=0)


def test_penalties_and_their_shares_of_the_gradient_are_logged(batch: Digits) -> None:
    x, y = batch
    defense = regularized(StandardTraining, {"align": ALIGN, "norm": NORM})
    loss = F.cross_entropy(defense.model(x), y)
    weights = list(defense.model.parameters())
    norms = [torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]).norm()]
    for regularizer in (ALIGN, NORM):
        defense.generator.manual_seed(0)
        mean = regularizer.mean(defense.model, x, y, generator=defense.generator)
        norms.append(regularizer.weight * torch.cat([g.flatten() for g in mean.gradients]).norm())
    step(defense, x, y)
    logged = {name: metric.compute().item() for name, metric in defense.train_metrics.items()}
    for i, name in enumerate(["align", "norm"]):
        assert logged[f"gradient_share/{name}"] == pytest.approx((norms[i + 1] / sum(norms)).item(), rel=1e-5)
    assert logged["penalty/norm"] == pytest.approx(NORM(defense.model, x, y).mean().item(), rel=1e-5)


def test_gradients_are_compared_once_an_epoch(batch: Digits) -> None:
    defense = regularized(StandardTraining, {"norm": NORM})
    counts = []
    for _ in range(2):
        step(defense, *batch)
        counts.append(defense.train_metrics["gradient_share/norm"].weight.item())
    assert counts == [8.0, 8.0]  # one batch of 8 images


def trainer(**options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = dict.fromkeys(
        ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False
    )
    return pl.Trainer(accelerator="cpu", **quiet, **options)


def loader(digits: Digits, count: int = 64) -> DataLoader:
    return DataLoader(TensorDataset(digits[0][:count].double(), digits[1][:count]), batch_size=16)


class Recorder(Regularizer):
    """Notes the weight and the radius of each step."""

    def __init__(self) -> None:
        super().__init__(weight=1.0, schedule=Ramp(start=0.0, end=0.5))
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "shares", [])

    def weight_at(self, progress: float) -> float:
        self.seen.append(super().weight_at(progress))  # type: ignore[attr-defined]
        return self.seen[-1]  # type: ignore[attr-defined]

    def at_share_of_eps(self, share: Any) -> Recorder:
        self.shares.append(float(share))  # type: ignore[attr-defined]
        return self

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Any) -> Tensor:
        return model(x).square().sum(1)


def test_weights_and_radii_follow_their_schedules_through_the_run(digits: Digits) -> None:
    recorder = Recorder()
    defense = regularized(GradientRegularized, {"recorder": recorder}, attack=ATTACK)
    ramp = EpsilonSchedule(Ramp(start=0.0, end=1.0))
    trainer(max_epochs=2, callbacks=[ramp]).fit(defense, loader(digits))
    assert recorder.seen == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])  # type: ignore[attr-defined]
    assert recorder.shares == pytest.approx([k / 8 for k in range(8)])  # type: ignore[attr-defined]


def test_a_ball_shrinks_with_the_share_and_keeps_its_exact_radius() -> None:
    assert ALIGN.at_share_of_eps(Fraction(1, 3)).threat.fraction == Fraction(1, 30)
    assert NORM.at_share_of_eps(Fraction(1, 3)) is NORM


@pytest.mark.parametrize("kind", [StandardTraining, TRADES, FreeAdversarialTraining])
def test_training_makes_the_penalty_smaller_than_without(kind: type, digits: Digits) -> None:
    arguments: dict[type, dict[str, Any]] = {
        TRADES: {"attack": ATTACK},
        FreeAdversarialTraining: {"threat": LINF, "replays": 2},
    }
    sizes = []
    for regularizers in ({}, {"norm": InputGradient(weight=5.0)}):
        defense = regularized(kind, regularizers, **arguments.get(kind, {}))
        trainer(max_epochs=4).fit(defense, loader(digits))
        sizes.append(NORM(defense.model, digits[0][:64].double(), digits[1][:64]).mean().item())
    assert sizes[1] < 0.7 * sizes[0]


def test_penalties_are_taken_at_the_perturbed_weights_and_the_weights_come_back(batch: Digits) -> None:
    x, y = batch
    defense = regularized(TRADES, {"norm": NORM}, attack=ATTACK)
    before = [w.detach().clone() for w in defense.model.parameters()]
    awp = AdversarialWeightPerturbation(gamma=0.1)
    fake = trainer(max_epochs=1)
    awp.on_train_epoch_start(fake, defense)
    step(defense, x, y)
    logged = defense.train_metrics["penalty/norm"].compute().item()
    assert logged == pytest.approx(NORM(defense.model, x, y).mean().item(), rel=1e-5)
    awp.on_after_backward(fake, defense)
    assert all(torch.equal(a, b) for a, b in zip(before, defense.model.parameters(), strict=True))
    assert logged != pytest.approx(NORM(defense.model, x, y).mean().item(), rel=1e-3)


def test_an_interrupted_run_goes_on_bit_for_bit(digits: Digits, tmp_path: Any) -> None:
    def fresh() -> Any:
        return regularized(GradientRegularized, {"align": ALIGN}, attack=ATTACK)

    whole, first, second = fresh(), fresh(), fresh()
    trainer(max_epochs=2).fit(whole, loader(digits))
    half = trainer(max_epochs=1)
    half.fit(first, loader(digits))
    half.save_checkpoint(tmp_path / "half.ckpt")
    trainer(max_epochs=2).fit(second, loader(digits), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True))


def test_mixed_precision_keeps_penalties_in_full_precision(batch: Digits) -> None:
    x, y = batch[0].float(), batch[1]
    defense = regularized(StandardTraining, {"align": ALIGN, "norm": NORM}, network().float())
    with torch.autocast("cpu", torch.bfloat16):
        _, gradients = step(defense, x, y)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert defense.train_metrics["penalty/norm"].compute().item() == pytest.approx(
        NORM(defense.model, x, y).mean().item(), rel=1e-5
    )


def compiled_module(model: nn.Module) -> nn.Module:
    return torch.compile(model)  # type: ignore[return-value]


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile()
    return model


@pytest.mark.parametrize("compiled", [compiled_module, compiled_in_place])
def test_a_compiled_model_is_refused_by_name(compiled: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(
        UserError, match=r"regularizers=\[norm\] differentiates a gradient, which torch\.compile cannot"
    ):
        regularized(StandardTraining, {"norm": NORM}, compiled(network()))
    regularized(StandardTraining, {}, compiled(network()))  # without regularisers it may be


def test_a_model_compiled_later_is_refused_at_the_first_step(batch: Digits) -> None:
    defense = regularized(StandardTraining, {"norm": NORM})
    defense.model.compile()
    with pytest.raises(UserError, match="differentiates a gradient"):
        defense.regularization(*batch, defense_loss(defense, *batch))


def defense_loss(defense: Any, x: Tensor, y: Tensor) -> Any:
    """The loss without a forward pass of the compiled model."""
    return Loss(sum(w.square().sum() for w in defense.model.parameters()), {})


def test_the_images_of_the_loss_are_clean_or_adversarial() -> None:
    with pytest.raises(UserError, match=r"defense\.images must be one of 'clean', 'adversarial', got 'both'"):
        regularized(GradientRegularized, {}, attack=ATTACK, images="both")

"""Batch-norm policies and the training generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.defenses import PGDAdversarialTraining
from xrobust.errors import UserError
from xrobust.schedules import Constant
from xrobust.threat import ThreatModel


def module(policy: str) -> PGDAdversarialTraining:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    attack = PGD(threat=ThreatModel("linf", "0.2"), steps=2)
    return PGDAdversarialTraining(
        model=model, optimizer=torch.optim.SGD, schedule=Constant(), attack=attack, batch_norm=policy
    ).train()


def mean_after_one_loss(policy: str, x: Tensor, y: Tensor) -> tuple[float, int]:
    defense = module(policy)
    defense.training_loss(x, y)
    norm = defense.model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    return float(norm.running_mean), int(norm.num_batches_tracked)


def test_each_policy_updates_the_statistics_from_the_images_it_names(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits[0][:50], digits[1][:50]
    fresh = module("adversarial")
    x_adv = fresh.attack(fresh.model, x, y, generator=torch.Generator().manual_seed(0))
    clean, adversarial = float(x.mean()), float(x_adv.mean())
    assert mean_after_one_loss("adversarial", x, y) == (pytest.approx(0.1 * adversarial), 1)
    assert mean_after_one_loss("clean", x, y) == (pytest.approx(0.1 * clean), 1)
    assert mean_after_one_loss("both", x, y) == (pytest.approx(0.09 * clean + 0.1 * adversarial), 2)


def test_the_loss_is_the_same_under_every_policy(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits[0][:50], digits[1][:50]
    losses = [module(policy).training_loss(x, y).value.item() for policy in ("adversarial", "clean", "both")]
    assert losses[0] == pytest.approx(losses[1])  # "both" attacks after its statistics moved: not comparable
    assert all(torch.isfinite(torch.tensor(losses)))


def test_statistics_are_tracked_again_after_the_loss(digits: tuple[Tensor, Tensor]) -> None:
    defense = module("clean")
    defense.training_loss(digits[0][:50], digits[1][:50])
    assert defense.model[0].track_running_stats


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UserError, match=r"defense\.batch_norm must be one of .* got 'none'"):
        module("none")

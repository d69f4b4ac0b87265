"""Checks for gradient masking: each sees a planted fault and leaves a sound model alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import APGD, Attack, WorstOf
from xrobust.errors import UserError
from xrobust.evaluation.masking import (
    BlackBoxWins,
    Check,
    LossDoesNotRise,
    MoreStepsWin,
    NoiseWins,
    ProbabilityOutputs,
    RandomOutputs,
    SingleStepWins,
    Subject,
    TrainingMode,
    TransferWins,
    UnboundedAttackFails,
    UnusableGradients,
    run_checks,
    spread,
    warnings_of,
)
from xrobust.threat import ThreatModel

COUNT = 60
CHECKS: dict[str, Check] = {  # the thresholds of conf/check, cheaper budgets
    "probability_outputs": ProbabilityOutputs(threshold=0.5),
    "random_outputs": RandomOutputs(threshold=0.0),
    "training_mode": TrainingMode(threshold=0.0),
    "unusable_gradients": UnusableGradients(threshold=0.01),
    "loss_does_not_rise": LossDoesNotRise(threshold=0.05),
    "unbounded_attack_fails": UnboundedAttackFails(threshold=0.0),
    "single_step_wins": SingleStepWins(threshold=0.02),
    "noise_wins": NoiseWins(threshold=0.02, draws=30),
    "black_box_wins": BlackBoxWins(threshold=0.02, queries=100),
    "transfer_wins": TransferWins(threshold=0.02),
    "more_steps_win": MoreStepsWin(threshold=0.02, steps=50, restarts=1),
}


def white_box(norm: str = "linf", eps: float = 0.1) -> Attack:
    threat = ThreatModel(norm, eps)
    losses = ("cross_entropy", "margin")
    return WorstOf(threat=threat, attacks={loss: APGD(threat=threat, steps=20, loss=loss) for loss in losses})


class Quantised(nn.Module):
    """Pixels rounded to four levels: no gradient at all."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.round(3 * x) / 3)


class Saturated(Quantised):
    """Logits so large that the cross entropy is exactly 0 and flat."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.inner(x)


class Noisy(Quantised):
    """Random numbers in every forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.05 * torch.randn_like(x))


class Infinite(Quantised):
    """√0, whose derivative is infinite, times 0."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + torch.sqrt(0 * x))


class Detached(Quantised):
    """No path for a gradient, as behind a preprocessing step outside of autograd."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.detach())


class OnlyAtImages(Quantised):
    """A gradient at the digits themselves, whose pixels are sixteenths, and none beside them."""

    def forward(self, x: Tensor) -> Tensor:
        at_image = (torch.remainder(16 * x, 1) == 0).flatten(1).all(1).view(-1, 1, 1, 1)
        return self.inner(torch.where(at_image, x, x.detach()))


def probabilities(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.Softmax(1)).eval()


def in_training_mode(model: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Dropout(0.1), model).train()


def without_running_statistics(model: nn.Module) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), model).eval()


def subject(
    model: nn.Module, digits: tuple[Tensor, Tensor], norm: str = "linf", eps: float = 0.1, **options
) -> Subject:
    return Subject.of(model, digits[0][:200], digits[1][:200], white_box(norm, eps), count=COUNT, **options)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5), ("l1", 2)])
def test_no_check_warns_of_a_sound_model(norm: str, eps: float, digits_model: nn.Module, digits) -> None:
    looked_at = subject(digits_model, digits, norm, eps, surrogate=digits_model)
    assert 0.1 < looked_at.broken.double().mean() < 0.95, "the threat must matter"
    findings = run_checks(CHECKS, looked_at)
    assert [finding.check for finding in findings] == list(CHECKS)
    assert not warnings_of(findings), warnings_of(findings)


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("probability_outputs", probabilities),
        ("random_outputs", Noisy),
        ("training_mode", in_training_mode),
        ("training_mode", without_running_statistics),
        ("unusable_gradients", Quantised),
        ("unusable_gradients", Saturated),
        ("unusable_gradients", Infinite),
        ("unusable_gradients", Detached),
        ("unusable_gradients", OnlyAtImages),
        ("loss_does_not_rise", Quantised),
        ("unbounded_attack_fails", Quantised),
        ("single_step_wins", OnlyAtImages),
        ("noise_wins", Quantised),
        ("black_box_wins", Quantised),
        ("transfer_wins", Quantised),
    ],
)
def test_each_check_sees_its_planted_fault(
    name: str, plant: Callable[[nn.Module], nn.Module], digits_model: nn.Module, digits
) -> None:
    model = plant(digits_model)
    if plant is not in_training_mode:
        model.eval()
    found = CHECKS[name](subject(model, digits, eps=0.2, surrogate=digits_model), name)
    assert found.warns and found.check == name
    assert found.value > found.threshold and found.measured and found.advice and found.reference


def test_an_evaluation_that_has_not_converged_is_seen(digits_model: nn.Module, digits) -> None:
    sound = subject(digits_model, digits)
    weak = Subject(sound.model, sound.x, sound.y, sound.index, sound.white_box, standing=torch.ones(COUNT) > 0)
    check = CHECKS["more_steps_win"]
    assert not check(sound).warns
    assert check(weak).warns and check(weak).value == pytest.approx(sound.broken.double().mean().item(), abs=0.02)


def test_without_a_surrogate_the_transfer_check_is_not_made(digits_model: nn.Module, digits) -> None:
    findings = run_checks(CHECKS, subject(digits_model, digits))
    assert {"transfer_wins"} == CHECKS.keys() - {finding.check for finding in findings}


def test_an_attack_that_cannot_run_is_a_warning(digits_model: nn.Module, digits) -> None:
    findings = run_checks({"noise": NoiseWins(threshold=0.02)}, subject(Detached(digits_model).eval(), digits))
    assert [finding.warns for finding in findings] == [True]
    assert "could not be measured" in findings[0].measured


def test_nothing_is_found_where_no_sample_is_right(digits_model: nn.Module, digits) -> None:
    wrong = Subject.of(digits_model, digits[0][:20], (digits[1][:20] + 1) % 10, white_box())
    assert run_checks(CHECKS, wrong) == []


def test_equal_findings_warn_once(digits_model: nn.Module, digits) -> None:
    findings = [CHECKS["probability_outputs"](subject(probabilities(digits_model), digits)) for _ in range(2)]
    assert len(warnings_of(findings)) == 1


def test_checks_leave_model_and_random_state_alone(digits_model: nn.Module, digits) -> None:
    model = in_training_mode(Noisy(digits_model))
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    for name in ("random_outputs", "training_mode", "unusable_gradients"):
        CHECKS[name](Subject(model, digits[0][:8], digits[1][:8], torch.arange(8), white_box()))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_threshold_is_a_share() -> None:
    with pytest.raises(UserError, match=r"RandomOutputs.threshold .* \[0, 1\], got 2"):
        RandomOutputs(threshold=2)


def test_the_samples_of_a_subject_are_right_and_spread_over_the_set(digits_model: nn.Module, digits) -> None:
    chosen = subject(digits_model, digits)
    assert len(chosen.x) == COUNT and torch.equal(chosen.x, digits[0][chosen.index])
    assert (digits_model(chosen.x).argmax(1) == chosen.y).all()
    assert chosen.index[-1] > 190 and (chosen.index.diff() > 0).all()
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4] and spread(0, 10).tolist() == []

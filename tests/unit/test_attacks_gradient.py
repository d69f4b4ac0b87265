"""FGSM and PGD: closed forms on linear models, strength on a real one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import FGSM, PGD
from xrobust.attacks.losses import cross_entropy, kl, margin
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel


def linear_model() -> nn.Module:
    """Two classes, f_1 − f_0 = ⟨w, x⟩ with both signs in w."""
    layer = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        w = torch.linspace(-1, 1, 16)
        layer.weight.copy_(torch.stack([-w / 2, w / 2]))
    return nn.Sequential(nn.Flatten(), layer)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


@pytest.mark.parametrize("attack", [FGSM, lambda threat: PGD(threat=threat, steps=20)])
def test_linf_attacks_reach_the_optimum_of_a_linear_model(attack) -> None:
    model, threat = linear_model(), ThreatModel("linf", "0.05")
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 1])
    x_adv = attack(threat=threat)(model, x, y)
    sign = torch.where(y == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    expected = x + sign * 0.05 * torch.linspace(-1, 1, 16).sign().view(1, 1, 4, 4)
    torch.testing.assert_close(x_adv, expected)


def test_l2_pgd_reaches_the_optimum_of_a_linear_model() -> None:
    model, threat = linear_model(), ThreatModel("l2", "0.2")
    x, y = torch.full((1, 1, 4, 4), 0.5), torch.tensor([0])
    x_adv = PGD(threat=threat, steps=50, step_size="0.1")(model, x, y)
    w = torch.linspace(-1, 1, 16)
    torch.testing.assert_close((x_adv - x).flatten(), 0.2 * w / w.norm(), atol=2e-3, rtol=0)


def test_losses_equal_their_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, clean = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 4, 0])
    p, q = clean.softmax(1), logits.softmax(1)
    torch.testing.assert_close(cross_entropy(logits, y), -q[range(6), y].log())
    torch.testing.assert_close(kl(logits, y, clean), (p * (p / q).log()).sum(1))
    others = torch.stack([torch.cat([row[:k], row[k + 1 :]]).max() for row, k in zip(logits, y, strict=True)])
    torch.testing.assert_close(margin(logits, y), others - logits[range(6), y])


@pytest.mark.parametrize(("norm", "eps"), [("linf", "0.15"), ("l2", "1"), ("l1", "4")])
def test_more_search_is_never_weaker(
    norm: str, eps: str, digits_model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y, threat = digits[0][:300], digits[1][:300], ThreatModel(norm, eps)
    clean = accuracy(digits_model, x, y)
    last = accuracy(digits_model, PGD(threat=threat, steps=20)(digits_model, x, y), y)
    worst = accuracy(digits_model, PGD(threat=threat, steps=20, keep="worst")(digits_model, x, y), y)
    restarts = PGD(threat=threat, steps=20, keep="worst", restarts=3)
    restarted = accuracy(digits_model, restarts(digits_model, x, y), y)
    assert clean > 0.95 > last >= worst >= restarted
    assert restarted < 0.6


def test_worst_keeps_the_largest_loss_of_samples_that_stand(
    digits_model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y, threat = digits[0][:100], digits[1][:100], ThreatModel("linf", "0.03")
    # A step of 2ε jumps between corners: the last iterate is not the worst.
    arguments = {"threat": threat, "steps": 5, "step_size": "0.06", "random_start": False}
    last = PGD(**arguments)(digits_model, x, y)
    worst = PGD(**arguments, keep="worst")(digits_model, x, y)
    with torch.no_grad():
        loss_last, loss_worst = cross_entropy(digits_model(last), y), cross_entropy(digits_model(worst), y)
        stands = digits_model(worst).argmax(1) == y
    assert stands.any() and (loss_worst[stands] >= loss_last[stands] - 1e-6).all()
    assert (loss_worst[stands] > loss_last[stands] + 1e-6).any()


def test_targeted_pgd_reaches_its_targets(digits_model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, target = digits[0][:100], (digits[1][:100] + 1) % 10
    attack = PGD(threat=ThreatModel("linf", "0.5"), steps=40, targeted=True, keep="worst")
    reached = accuracy(digits_model, attack(digits_model, x, target), target)
    assert reached > 0.9 > accuracy(digits_model, x, target)


@pytest.mark.parametrize(
    "options", [{"keep": "worst", "restarts": 2}, {"momentum": 0.9}, {"loss": "kl"}, {"loss": "margin"}]
)
def test_results_with_sample_streams_do_not_depend_on_the_batch(
    options: dict, digits_model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = digits[0][:30], digits[1][:30]
    attack = PGD(threat=ThreatModel("linf", "0.05"), steps=4, **options)
    whole = attack(digits_model, x, y, generator=SampleStreams(0, range(30)))
    parts = [
        attack(digits_model, x[i : i + 7], y[i : i + 7], generator=SampleStreams(0, range(30)[i : i + 7]))
        for i in range(0, 30, 7)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


def test_momentum_changes_the_path(digits_model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits[0][:20], digits[1][:20]
    arguments = {"threat": ThreatModel("l2", "0.5"), "steps": 5, "random_start": False}
    plain = PGD(**arguments)(digits_model, x, y)
    assert not torch.equal(plain, PGD(**arguments, momentum=1.0)(digits_model, x, y))


def test_pgd_of_one_full_step_without_a_start_is_fgsm(digits_model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y, threat = digits[0][:50], digits[1][:50], ThreatModel("linf", "0.1")
    one = PGD(threat=threat, steps=1, step_size="0.1", random_start=False)
    torch.testing.assert_close(one(digits_model, x, y), FGSM(threat=threat)(digits_model, x, y))


def test_the_step_size_follows_the_radius_unless_given() -> None:
    attack = PGD(threat=ThreatModel("linf", "0.2"), steps=10)
    assert attack.alpha == pytest.approx(0.05)
    assert attack.with_eps("0.1").alpha == pytest.approx(0.025)
    assert PGD(threat=ThreatModel("linf", "8/255"), step_size="2/255").alpha == 2 / 255


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "PGD.steps must be an integer of at least 1, got 0"),
        ({"restarts": 2, "keep": "worst", "random_start": False}, "needs random_start=true"),
        ({"restarts": 2}, "needs keep=worst"),
        ({"keep": "first"}, "PGD.keep must be 'last' or 'worst', got 'first'"),
        ({"loss": "hinge"}, "PGD.loss must be one of 'cross_entropy', .*, got 'hinge'"),
        ({"step_size": "-1/255"}, "PGD.step_size must be above 0"),
        ({"momentum": -1}, "PGD.momentum must be at least 0"),
    ],
)
def test_bad_values_are_refused_by_name(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        PGD(threat=ThreatModel("linf", "0.1"), **options)

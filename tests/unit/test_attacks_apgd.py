"""Auto-PGD and its losses: closed forms on linear models, strength and cost on a real one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import APGD, PGD, APGDTargeted, Attack
from xrobust.attacks.apgd_rules import HalvingRule, Walk, checkpoints
from xrobust.attacks.losses import dlr, targeted_dlr
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel

THREATS = [ThreatModel("linf", "0.1"), ThreatModel("l2", "0.5"), ThreatModel("l1", "1.5")]


def broken_by(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x_adv = attack(model, x, y)
    assert attack.threat.contains(x_adv, x).all()
    with torch.no_grad():
        return model(x_adv).argmax(1) != y


class Counting(nn.Module):
    """Counts the images that pass through a model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.images = model, []

    def forward(self, x: Tensor) -> Tensor:
        self.images.append(len(x))
        return self.model(x)


def test_checkpoints_are_those_of_the_paper() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]
    assert checkpoints(1) == [1]


def test_dlr_equals_its_formula_and_ignores_shift_and_scale() -> None:
    logits = torch.tensor([[4.0, 1.0, 3.0, -2.0, 0.0], [1.0, 5.0, 2.0, 4.0, 0.0]])
    y = torch.tensor([0, 2])
    torch.testing.assert_close(dlr(logits, y), torch.tensor([(3 - 4) / (4 - 1), (5 - 2) / (5 - 2)]))
    torch.testing.assert_close(dlr(7 * logits + 3, y), dlr(logits, y))
    target = torch.tensor([4, 3])
    expected = torch.tensor([(0 - 4) / (4 - (1 + 0) / 2), (4 - 2) / (5 - (2 + 1) / 2)])
    torch.testing.assert_close(targeted_dlr(logits, y, target), expected)
    three = logits[:, :3]
    torch.testing.assert_close(targeted_dlr(three, y, torch.tensor([1, 0]))[0], torch.tensor((1 - 4.0) / (4 - 1)))


def test_dlr_refuses_two_classes() -> None:
    with pytest.raises(UserError, match="at least 3 classes, got 2"):
        dlr(torch.zeros(1, 2), torch.tensor([0]))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_apgd_reaches_the_optimum_of_a_linear_model(norm: str) -> None:
    weights = torch.linspace(-1, 1, 16) + torch.tensor([0.01, 0.02] * 8)
    layer = nn.Linear(16, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-weights, weights]))
        layer.bias.copy_(torch.tensor([50.0, -50.0]))  # so far from the boundary that nothing is broken
    model, x = nn.Sequential(nn.Flatten(), layer), torch.full((2, 1, 4, 4), 0.5)
    threat = ThreatModel(norm, {"linf": "0.1", "l2": "0.3", "l1": "0.4"}[norm])
    x_adv = APGD(threat=threat, steps=50, loss="margin")(model, x, torch.tensor([0, 0]))
    dual = {"linf": weights.abs().sum(), "l2": weights.norm(), "l1": weights.abs().max()}[norm]
    gained = ((x_adv - x).flatten(1) * weights).sum(1)
    torch.testing.assert_close(gained, (threat.radius * dual).expand(2), rtol=2e-3, atol=0)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_apgd_breaks_at_least_what_pgd_breaks(threat, digits, digits_model) -> None:
    x, y = digits[0][:100], digits[1][:100]
    pgd = broken_by(PGD(threat=threat, steps=20, keep="worst"), digits_model, x, y)
    apgd = broken_by(APGD(threat=threat, steps=20), digits_model, x, y)
    targeted = broken_by(APGDTargeted(threat=threat, steps=20, targets=3), digits_model, x, y)
    assert 10 < pgd.sum() <= apgd.sum() <= targeted.sum() + 2 < 102


def test_restarts_and_steps_never_lose_a_broken_sample(digits, digits_model) -> None:
    x, y = digits[0][:60], digits[1][:60]
    once = broken_by(APGD(threat=THREATS[0], steps=5), digits_model, x, y)
    again = broken_by(APGD(threat=THREATS[0], steps=5, restarts=4), digits_model, x, y)
    assert (again | ~once).all() and again.sum() > once.sum()


def test_a_shrinking_radius_ends_in_the_ball_and_keeps_its_strength(digits, digits_model) -> None:
    x, y = digits[0][:60], digits[1][:60]
    plain = broken_by(APGD(threat=THREATS[2], steps=30), digits_model, x, y)
    shrinking = broken_by(APGD(threat=THREATS[2], steps=30, shrinking_radius=True), digits_model, x, y)
    assert shrinking.sum() >= plain.sum() - 4 > 20


def test_a_step_costs_one_pass_and_broken_samples_cost_nothing(digits, digits_model) -> None:
    x, y = digits[0][:40], digits[1][:40]
    model = Counting(digits_model)
    x_adv = APGD(threat=THREATS[0], steps=25)(model, x, y)
    assert len(model.images) <= 1 + 26 and model.images == sorted(model.images, reverse=True)
    with torch.no_grad():
        standing = (digits_model(x_adv).argmax(1) == y).sum()
    assert model.images[-1] == standing < model.images[1]


def test_wrong_images_are_returned_as_they_are(digits, digits_model) -> None:
    x = digits[0][:20]
    with torch.no_grad():
        wrong = (digits_model(x).argmax(1) + 1) % 10
    for attack in (APGD(threat=THREATS[0], steps=3), APGDTargeted(threat=THREATS[0], steps=3)):
        assert torch.equal(attack(digits_model, x, wrong), x)


def test_more_targets_than_classes_means_all_other_classes(digits, digits_model) -> None:
    x, y = digits[0][:10], digits[1][:10]
    results = [APGDTargeted(threat=THREATS[0], steps=3, targets=k)(digits_model, x, y) for k in (9, 50)]
    assert torch.equal(*results)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_sample_does_not_depend_on_its_batch(threat, digits, digits_model) -> None:
    x, y, model = digits[0][:8].double(), digits[1][:8], digits_model.double()
    attack = APGDTargeted(threat=threat, steps=6, restarts=2, targets=2)
    whole = attack(model, x, y, generator=SampleStreams(0, range(8)))
    alone = [attack(model, x[i : i + 1], y[i : i + 1], generator=SampleStreams(0, [i])) for i in range(8)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=0, atol=1e-9)


def test_a_stalled_step_halves_and_returns_to_the_best_point() -> None:
    threat, x = ThreatModel("linf", "0.1"), torch.full((2, 1, 2, 2), 0.5)
    walk, rule = Walk(x, torch.zeros(2), None, x), HalvingRule(threat, x, steps=10, rho=0.75)
    for step, falling in enumerate([0.0, -1.0, -2.0, -3.0]):  # the second sample rises at every step
        walk.observe(torch.tensor([falling, float(step)]), torch.ones_like(x))
        if step:
            rule.adapt(walk, step)
        walk.move_to(x + 0.01 * (step + 1))
    torch.testing.assert_close(rule.size, torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(walk.x_before[0], x[0])  # where the falling sample went on from
    torch.testing.assert_close(walk.x_before[1], x[1] + 0.03)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "APGD.steps must be an integer of at least 1, got 0"),
        ({"steps": 2, "shrinking_radius": True}, "APGD.steps must be an integer of at least 3, got 2"),
        ({"restarts": 0}, "APGD.restarts must be an integer of at least 1"),
        ({"rho": 1.0}, "APGD.rho must lie between 0 and 1"),
        ({"loss": "kl"}, "APGD.loss must be one of 'cross_entropy', 'margin', 'dlr'"),
    ],
)
def test_wrong_values_are_refused(fields, message) -> None:
    with pytest.raises(UserError, match=message):
        APGD(threat=THREATS[0], **fields)

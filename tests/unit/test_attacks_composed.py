"""Attacks made from others, and the baselines: worst of several, expectation, transfer, noise, R+FGSM."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import (
    APGD,
    EOT,
    FAB,
    FGSM,
    PGD,
    RFGSM,
    GaussianNoise,
    Square,
    Transfer,
    UniformNoise,
    WorstOf,
)
from xrobust.attacks.eot import AveragedModel
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel

LINF = ThreatModel("linf", "0.1")
THREATS = [LINF, ThreatModel("l2", "0.5"), ThreatModel("l1", "1.5")]


def streams(n: int) -> SampleStreams:
    return SampleStreams(0, range(n))


def predictions(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


class Jittery(nn.Module):
    """A model behind noise from the global generator."""

    def __init__(self, model: nn.Module, std: float = 0.3):
        super().__init__()
        self.model, self.std = model, std

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + self.std * torch.randn_like(x))


def worst_of(threat: ThreatModel) -> WorstOf:
    members = {
        "noise": UniformNoise(threat=threat),
        "apgd": APGD(threat=threat, steps=8),
        "fab": FAB(threat=threat, steps=8, targets=2),
        "square": Square(threat=threat, queries=40),
    }
    return WorstOf(threat=threat, attacks=members)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_worst_of_several_breaks_what_any_of_them_breaks(threat, digits, digits_model) -> None:
    x, y = digits[0][:40], digits[1][:40]
    attack = worst_of(threat)
    broken = predictions(digits_model, attack(digits_model, x, y, generator=streams(40))) != y
    assert 5 < broken.sum() < 40
    for member in attack.attacks.values():
        alone = predictions(digits_model, member(digits_model, x, y, generator=streams(40))) != y
        assert (broken & alone).sum() >= alone.sum() - 1  # a member draws on where the one before it stopped


def test_stages_tell_which_attack_broke_which_sample(digits, digits_model) -> None:
    x, y = digits[0][:40], digits[1][:40]
    attack = worst_of(LINF)
    stages = list(attack.stages(digits_model, x, y, streams(40)))
    assert [stage.name for stage in stages] == ["clean", "noise", "apgd", "fab", "square"]
    assert torch.equal(stages[0].x_adv, x)
    for before, after in pairwise(stages):
        assert (before.standing | ~after.standing).all()
        assert torch.equal(before.x_adv[~before.standing], after.x_adv[~before.standing])
    for stage in stages:
        assert torch.equal(predictions(digits_model, stage.x_adv) == y, stage.standing)
    assert torch.equal(stages[-1].x_adv, attack(digits_model, x, y, generator=streams(40)))


def test_stages_leave_no_trace_and_need_no_frame(digits, digits_model) -> None:
    x, y = digits[0][:6], digits[1][:6]
    digits_model.train()
    for _ in worst_of(LINF).stages(digits_model, x, y):
        assert digits_model.training and all(p.requires_grad for p in digits_model.parameters())
        assert torch.is_grad_enabled()
    assert all(p.grad is None for p in digits_model.parameters())


def test_the_protocol_of_a_composition_names_its_members() -> None:
    described = worst_of(LINF).describe()
    assert described["summary"] == "WorstOf (linf ε=0.1: noise, apgd, fab, square)"
    assert described["attacks"]["apgd"]["name"] == "APGD" and described["attacks"]["apgd"]["steps"] == 8


def test_an_unbroken_sample_keeps_its_worst_example(digits, digits_model) -> None:
    x, y = digits[0][:30], digits[1][:30]
    threat = ThreatModel("linf", "0.03")
    weak, strong = UniformNoise(threat=threat), PGD(threat=threat, steps=10, keep="worst")
    forwards = WorstOf(threat=threat, attacks={"a": weak, "b": strong})(digits_model, x, y)
    backwards = WorstOf(threat=threat, attacks={"a": strong, "b": weak})(digits_model, x, y)
    clean, *attacked = (
        nn.functional.cross_entropy(digits_model(z), y, reduction="none") for z in (x, forwards, backwards)
    )
    assert all((loss > clean).sum() > 25 for loss in attacked)


def test_compositions_do_not_depend_on_the_batch(digits, digits_model) -> None:
    x, y, model = digits[0][:8].double(), digits[1][:8], digits_model.double()
    attack = worst_of(LINF)
    whole = attack(model, x, y, generator=streams(8))
    alone = [attack(model, x[i : i + 1], y[i : i + 1], generator=SampleStreams(0, [i])) for i in range(8)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=0, atol=1e-9)


def test_the_radius_of_a_composition_reaches_its_members() -> None:
    inner = PGD(threat=LINF)
    larger = [
        WorstOf(threat=LINF, attacks={"pgd": inner}).with_eps("0.2").attacks["pgd"],
        EOT(threat=LINF, attack=inner).with_eps("0.2").attack,
        Transfer(threat=LINF, attack=inner, surrogate="bundle").with_eps("0.2").attack,
    ]
    assert [attack.threat for attack in larger] == [ThreatModel("linf", "0.2")] * 3


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: WorstOf(threat=LINF, attacks={"pgd": inner}),
        lambda inner: EOT(threat=LINF, attack=inner),
        lambda inner: Transfer(threat=LINF, attack=inner, surrogate="bundle"),
    ],
)
def test_members_on_another_ball_are_refused(make) -> None:
    with pytest.raises(UserError, match=r"threat must be linf ε=0.1, as around it, got linf ε=0.2"):
        make(PGD(threat=ThreatModel("linf", "0.2")))


def test_expectation_beats_a_single_draw_on_a_jittery_model(digits, digits_model) -> None:
    # The gain is two points; over these images and predictions, the single draw varies by half a point with its seed.
    x, y = digits[0][:500], digits[1][:500]
    model = Jittery(digits_model)

    def accuracy(attack) -> float:
        x_adv = attack(model, x, y)
        torch.manual_seed(0)
        return torch.stack([predictions(model, x_adv) == y for _ in range(30)]).float().mean().item()

    single = accuracy(PGD(threat=LINF, steps=10))
    for average in ("logits", "probabilities"):
        assert accuracy(EOT(threat=LINF, attack=PGD(threat=LINF, steps=10), average=average)) < single - 0.005


def test_expectation_is_deterministic_and_leaves_the_global_generator_alone(digits, digits_model) -> None:
    x, y = digits[0][:6], digits[1][:6]
    attack = EOT(threat=LINF, attack=PGD(threat=LINF, steps=3), draws=3)
    state = torch.get_rng_state()
    first = attack(Jittery(digits_model), x, y, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(first, attack(Jittery(digits_model), x, y, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(first, attack(Jittery(digits_model), x, y, generator=torch.Generator().manual_seed(2)))


def test_the_averages_equal_their_formulas(digits, digits_model) -> None:
    x = digits[0][:3]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        drawn = torch.stack([Jittery(digits_model)(x) for _ in range(4)])
        torch.manual_seed(0)
        torch.testing.assert_close(AveragedModel(Jittery(digits_model), 4)(x), drawn.mean(0))
        torch.manual_seed(0)
        log_mean = AveragedModel(Jittery(digits_model), 4, "probabilities")(x)
    torch.testing.assert_close(log_mean.softmax(1), drawn.softmax(2).mean(0))


def test_transfer_asks_the_surrogate_alone(digits, digits_model) -> None:
    class Untouchable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("the attacked model was asked")

    x, y = digits[0][:20], digits[1][:20]
    inner = PGD(threat=LINF, steps=5)
    surrogate = copy.deepcopy(digits_model)
    moved = Transfer(threat=LINF, attack=inner, surrogate=surrogate)(Untouchable(), x, y)
    assert torch.equal(moved, inner(digits_model, x, y))


def test_transfer_loads_a_bundle_once_and_late(digits, digits_model, monkeypatch) -> None:
    loads = []
    monkeypatch.setattr("xrobust.load", lambda path: loads.append(path) or digits_model, raising=False)
    attack = Transfer(threat=LINF, attack=FGSM(threat=LINF), surrogate="some/bundle")
    assert loads == []
    x, y = digits[0][:4], digits[1][:4]
    for _ in range(2):
        assert torch.equal(attack(digits_model, x, y), FGSM(threat=LINF)(digits_model, x, y))
    assert loads == ["some/bundle"]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_noise_fills_the_ball_and_more_draws_break_more(threat, digits, digits_model) -> None:
    x, y = digits[0][:60], digits[1][:60]
    inside = torch.full((4, 1, 8, 8), 0.5)  # the box does not cut what is drawn here
    gauss = GaussianNoise(threat=threat.with_eps("0.2"))(digits_model, inside, y[:4])
    assert (threat.distance(gauss, inside) - 0.2).abs().max() < 1e-5
    for noise in (UniformNoise, GaussianNoise):
        once, often = (noise(threat=threat, draws=draws)(digits_model, x, y) for draws in (1, 30))
        assert threat.contains(once, x).all() and not torch.equal(once, x)
        losses = [nn.functional.cross_entropy(digits_model(points), y) for points in (once, often)]
        assert losses[1] > losses[0]


def test_rfgsm_is_fgsm_without_its_random_share(digits, digits_model) -> None:
    x, y = digits[0][:10], digits[1][:10]
    for threat in THREATS:
        plain = FGSM(threat=threat)(digits_model, x, y)
        assert torch.equal(RFGSM(threat=threat, random_share=0.0)(digits_model, x, y), plain)
    half = RFGSM(threat=LINF)(digits_model, x, y)
    steps = ((half - x) / 0.05).round().unique()
    assert torch.equal(steps, torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]))  # ±ε/2 ± ε/2, cut by the box


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RFGSM(threat=LINF, random_share=1.5), "RFGSM.random_share must lie in"),
        (lambda: UniformNoise(threat=LINF, draws=0), "UniformNoise.draws must be an integer of at least 1"),
        (lambda: EOT(threat=LINF, attack=FGSM(threat=LINF), draws=0), "EOT.draws must be an integer of at least 1"),
        (lambda: EOT(threat=LINF, attack=FGSM(threat=LINF), average="loss"), "EOT.average must be one of"),
        (lambda: WorstOf(threat=LINF, attacks={}), "WorstOf.attacks must hold at least one attack"),
    ],
)
def test_wrong_values_are_refused(make, message) -> None:
    with pytest.raises(UserError, match=message):
        make()

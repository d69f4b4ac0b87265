"""Minimum-norm attacks: exact distances on linear models, agreement with the ball on a real one."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from xrobust.attacks import DDN, FAB, FMN, CarliniWagnerL2, DeepFool, MinimumNorm
from xrobust.attacks.fmn import within
from xrobust.attacks.hyperplane import dual_norm, step_to_hyperplane
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel

EPS = {"linf": "0.1", "l2": "0.5", "l1": "1.5"}
ATTACKS = {  # name → (attack on a norm, norms, how far from the exact distance on a linear model)
    "fab": (lambda t: FAB(threat=t, steps=20), ("linf", "l2", "l1"), 0.01),
    "fab_targeted": (lambda t: FAB(threat=t, steps=20, targets=3), ("linf", "l2", "l1"), 0.01),
    "deepfool": (lambda t: DeepFool(threat=t), ("linf", "l2"), 0.03),
    "fmn": (lambda t: FMN(threat=t, steps=100), ("linf", "l2", "l1"), 0.01),
    "ddn": (lambda t: DDN(threat=t, steps=100, initial_norm=0.3), ("l2",), 0.01),
    "cw": (lambda t: CarliniWagnerL2(threat=t, steps=100, search_steps=6, initial_c=0.1), ("l2",), 0.05),
}
CASES = [(name, norm) for name, (_, norms, _) in ATTACKS.items() for norm in norms]
TARGETABLE = {name: ATTACKS[name][0] for name in ("fmn", "ddn", "cw")}


def made(name: str, norm: str) -> MinimumNorm:
    return ATTACKS[name][0](ThreatModel(norm, EPS[norm]))


@pytest.fixture(scope="module")
def linear() -> tuple[nn.Module, Tensor, Tensor]:
    """Four classes, linear logits, and images that no attack pushes to the edges of the box."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(64, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 64, generator=generator))
    model = nn.Sequential(nn.Flatten(), layer)
    x = 0.35 + 0.3 * torch.rand(30, 1, 8, 8, generator=generator)
    logits = model(x).detach()
    gap = logits.topk(2, dim=1).values.diff(dim=1)[:, 0].abs()
    sure = gap > 1  # distances of some 0.1 in L2
    return model, x[sure], logits.argmax(1)[sure]


def exact_distances(model: nn.Module, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """min_k |z_k − z_y| / ‖w_k − w_y‖_q."""
    weight, logits = model[1].weight.detach(), model(x).detach()
    gaps = logits.gather(1, y[:, None]) - logits
    lengths = torch.stack([dual_norm(norm, w_k - weight[y]) for w_k in weight], 1)
    return (gaps / lengths).nan_to_num(torch.inf).amin(1)  # 0 / 0 where k is y


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_distance_to_a_linear_boundary_is_exact(name, norm, linear) -> None:
    model, x, y = linear
    x_min, distance = made(name, norm).minimum_perturbation(model, x, y)
    assert len(x) > 5 and (model(x_min).argmax(1) != y).all()
    ratio = distance / exact_distances(model, x, y, norm)
    assert (ratio > 1 - 1e-4).all() and ratio.max() < 1 + ATTACKS[name][2]


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_what_lies_within_the_ball_is_broken_and_nothing_else(name, norm, digits, digits_model) -> None:
    n = 12
    x, y = digits[0][:n], digits[1][:n]
    attack = made(name, norm)
    x_adv = attack(digits_model, x, y)
    x_min, distance = attack.minimum_perturbation(digits_model, x, y)
    assert attack.threat.contains(x_adv, x).all() and (x_min >= 0).all() and (x_min <= 1).all()
    with torch.no_grad():
        broken, fooled = digits_model(x_adv).argmax(1) != y, digits_model(x_min).argmax(1) != y
    assert torch.equal(fooled, distance.isfinite()) and fooled.sum() >= n - 1
    torch.testing.assert_close(attack.threat.distance(x_min, x)[fooled], distance[fooled])
    assert (distance < attack.threat.radius).sum() <= broken.sum() + 1  # the longer search may find more
    assert 0 < broken.sum() < n


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_wrong_images_have_distance_zero_and_stay_as_they_are(name, norm, digits, digits_model) -> None:
    x = digits[0][:6]
    with torch.no_grad():
        wrong = (digits_model(x).argmax(1) + 1) % 10
    x_min, distance = made(name, norm).minimum_perturbation(digits_model, x, wrong)
    assert torch.equal(x_min, x) and (distance == 0).all()


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_a_model_that_cannot_be_fooled_yields_no_example(name, norm) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0, 0.0]) + 0 * x.flatten(1)[:, :1]

    x, y = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0])
    attack = made(name, norm)
    x_min, distance = attack.minimum_perturbation(Constant(), x, y)
    assert torch.equal(x_min, x) and distance.isinf().all()


@pytest.mark.parametrize("name", TARGETABLE)
def test_targeted_attacks_reach_their_class(name, linear) -> None:
    model, x, y = linear
    target = (y + 1) % 4
    attack = TARGETABLE[name](ThreatModel("l2", EPS["l2"]))
    attack = type(attack)(**{**vars(attack), "targeted": True})
    x_min, distance = attack.minimum_perturbation(model, x, target)
    assert (model(x_min).argmax(1) == target).all() and distance.isfinite().all()
    _, untargeted = TARGETABLE[name](ThreatModel("l2", EPS["l2"])).minimum_perturbation(model, x, y)
    assert (distance > untargeted - 0.01).all()


def test_confidence_asks_for_a_margin(linear) -> None:
    model, x, y = linear
    attack = CarliniWagnerL2(threat=ThreatModel("l2", EPS["l2"]), steps=100, initial_c=0.1, confidence=0.5)
    x_min, _ = attack.minimum_perturbation(model, x, y)
    top = model(x_min).topk(2, dim=1)
    assert (top.indices[:, 0] != y).all() and (top.values.diff(dim=1).abs() >= 0.5).all()


def test_fab_restarts_only_add(digits, digits_model) -> None:
    x, y = digits[0][:20], digits[1][:20]
    attacks = [FAB(threat=ThreatModel("l2", "0.5"), steps=10, restarts=restarts) for restarts in (1, 3)]
    once, thrice = (attack.minimum_perturbation(digits_model, x, y)[1] for attack in attacks)
    assert (thrice <= once + 1e-6).all() and (thrice < once).any()


def test_minimum_perturbation_leaves_no_trace(digits, digits_model) -> None:
    x, y = digits[0][:4], digits[1][:4]
    digits_model.train()
    state = torch.get_rng_state()
    with torch.inference_mode():
        inside = FAB(threat=ThreatModel("linf", "0.1"), steps=3).minimum_perturbation(digits_model, x * 1, y * 1)
    outside = FAB(threat=ThreatModel("linf", "0.1"), steps=3).minimum_perturbation(digits_model, x, y)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))
    assert all(module.training for module in digits_model.modules())
    assert all(p.requires_grad and p.grad is None for p in digits_model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("attack", [FAB, FMN])
def test_a_sample_does_not_depend_on_its_batch(attack, digits, digits_model) -> None:
    x, y, model = digits[0][:8].double(), digits[1][:8], digits_model.double()
    attack = attack(threat=ThreatModel("l2", "0.5"), steps=8)
    if isinstance(attack, FAB):
        attack = FAB(threat=attack.threat, steps=4, restarts=3)
    whole = attack(model, x, y, generator=SampleStreams(0, range(8)))
    alone = [attack(model, x[i : i + 1], y[i : i + 1], generator=SampleStreams(0, [i])) for i in range(8)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("slope", [1.0, 1e-25])
def test_the_step_to_a_hyperplane_is_the_shortest_in_the_box(norm: str, slope: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.rand(2, 12, 8, generator=generator)
    w = w - 0.5
    w[:, 0] = 0
    residual = torch.randn(12, generator=generator)
    step = step_to_hyperplane(norm, x, slope * w, slope * residual, (0, 1)).double()
    assert (x + step >= -1e-6).all() and (x + step <= 1 + 1e-6).all()
    met = 0
    for xi, wi, ri, di in zip(x.double(), w.double(), residual.double(), step, strict=True):
        reach = torch.where(wi * ri < 0, 1 - xi, xi) @ wi.abs()
        if reach < ri.abs():  # the box ends before the hyperplane: its nearest corner
            torch.testing.assert_close(di @ wi.abs().mul(di.sign()), reach, rtol=0, atol=1e-5)
            continue
        met += 1
        torch.testing.assert_close(di @ wi, -ri, rtol=0, atol=1e-5)
        assert abs(_norm(di, norm) - _shortest(norm, xi, wi, ri)) < 1e-5
    assert 4 < met < 12


def _norm(delta: Tensor, norm: str) -> float:
    return float(delta.abs().max() if norm == "linf" else delta.abs().sum())


def _shortest(norm: str, x: Tensor, w: Tensor, residual: Tensor) -> float:
    """The least norm of a step in the box to the hyperplane, by linear programming over δ = up − down."""
    up_down = torch.cat([w, -w]).numpy()
    bounds = [(0, float(1 - v)) for v in x] + [(0, float(v)) for v in x]
    if norm == "l1":
        return linprog([1.0] * 16, A_eq=[up_down], b_eq=[-float(residual)], bounds=bounds).fun
    limits = torch.cat([torch.cat([torch.eye(8), torch.eye(8)], 1), -torch.ones(8, 1)], 1).numpy()  # up + down ≤ t
    equal = [[*up_down, 0.0]]
    return linprog([0.0] * 16 + [1.0], limits, [0.0] * 8, equal, [-float(residual)], [*bounds, (0, None)]).fun


def test_the_l2_step_to_a_hyperplane_meets_the_optimality_conditions() -> None:
    generator = torch.Generator().manual_seed(1)
    x, w = torch.rand(2, 30, 10, generator=generator, dtype=torch.float64)
    w = w - 0.5
    residual = 0.2 * torch.randn(30, generator=generator, dtype=torch.float64)
    step = step_to_hyperplane("l2", x, w, residual, (0, 1))
    torch.testing.assert_close((step * w).sum(1), -residual)
    at_edge = (x + step < 1e-9) | (x + step > 1 - 1e-9)
    multiplier = (step / w).masked_fill(at_edge, torch.nan)  # one number a row where the box is not active
    assert at_edge.any() and ((multiplier - multiplier.nanmean(1, keepdim=True)).abs().nan_to_num() < 1e-9).all()
    assert (step.abs() <= (multiplier.nanmean(1, keepdim=True) * w).abs() + 1e-9).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_each_sample_has_its_own_radius(norm: str) -> None:
    delta = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    radius = torch.tensor([0.01, 0.3, 1.0, 2.0, 100.0])
    for row, eps, projected in zip(delta, radius, within(norm, delta, radius), strict=True):
        alone = ThreatModel(norm, float(eps), clip=(-1e6, 1e6)).project(row[None], torch.zeros(1, 1, 4, 4))[0]
        torch.testing.assert_close(projected, alone)


@pytest.mark.parametrize(
    ("attack", "fields", "message"),
    [
        (DDN, {"threat": ThreatModel("linf", "0.1")}, "DDN.threat.norm must be one of 'l2', got 'linf'"),
        (
            CarliniWagnerL2,
            {"threat": ThreatModel("l1", 1)},
            "CarliniWagnerL2.threat.norm must be one of 'l2'",
        ),
        (DeepFool, {"threat": ThreatModel("l1", 1)}, "DeepFool.threat.norm must be one of 'linf', 'l2'"),
        (FAB, {"targets": 0}, "FAB.targets must be an integer of at least 1, got 0"),
        (FAB, {"eta": 0.9}, "FAB.eta must be at least 1, got 0.9"),
        (FAB, {"beta": 1.0}, "FAB.beta must lie between 0 and 1"),
        (FAB, {"alpha_max": 2.0}, "FAB.alpha_max must lie in"),
        (FMN, {"steps": 0}, "FMN.steps must be an integer of at least 1"),
        (FMN, {"step_size": 0.0}, "FMN.step_size must be above 0"),
        (FMN, {"gamma": 1.0}, "FMN.gamma must lie between"),
        (DDN, {"initial_norm": 0.0}, "DDN.initial_norm must be above 0"),
        (CarliniWagnerL2, {"learning_rate": 0.0}, "CarliniWagnerL2.learning_rate must be above 0"),
        (DeepFool, {"candidates": 0}, "DeepFool.candidates must be an integer of at least 1"),
    ],
)
def test_wrong_values_are_refused(attack, fields, message) -> None:
    with pytest.raises(UserError, match=message):
        attack(**{"threat": ThreatModel("l2", "0.5"), **fields})

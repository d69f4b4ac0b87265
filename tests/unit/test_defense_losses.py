"""Each method's loss against its formula, written out sample by sample in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import FGSM, PGD
from xrobust.attacks.fgsm_rs import FGSMRS
from xrobust.attacks.near_start_pgd import NearStartPGD
from xrobust.defenses import (
    ALP,
    HAT,
    MART,
    NFGSM,
    SCORE,
    TRADES,
    FreeAdversarialTraining,
    GradAlign,
    MultiThreatTraining,
    PGDAdversarialTraining,
    RobustClassifier,
)
from xrobust.errors import UserError
from xrobust.randomness import normal_like, uniform_like
from xrobust.regularizers.gradients import cosine
from xrobust.schedules import Constant
from xrobust.threat import ThreatModel

LINF = ThreatModel("linf", "0.1")
ATTACK = PGD(threat=LINF, steps=2)
KL = NearStartPGD(threat=LINF, steps=3, loss="kl")
Digits = tuple[Tensor, Tensor]


def network(seed: int = 0, scale: float = 1.0, norm: bool = False) -> nn.Sequential:
    """A smooth random network on 8 × 8 images; `scale` multiplies its logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = [nn.BatchNorm2d(1)] if norm else []
        model = nn.Sequential(*first, nn.Flatten(), nn.Linear(64, 12), nn.Softplus(), nn.Linear(12, 10))
    model[-1].weight.data.mul_(scale)
    return model


def defense(kind: type, model: nn.Module | None = None, **arguments: Any) -> Any:
    model = network().double() if model is None else model
    return kind(model=model, optimizer=torch.optim.SGD, schedule=Constant(), **arguments).train()


def batch(digits: Digits, count: int = 5) -> Digits:
    return digits[0][:count].double(), digits[1][:count]


def seeded(method: RobustClassifier) -> torch.Generator:
    method.generator.manual_seed(7)
    return method.generator


def check_equals(method: RobustClassifier, x: Tensor, y: Tensor, expected: Tensor) -> None:
    """The loss and the gradient of each parameter equal those of `expected`, to 1e-6 and better."""
    seeded(method)
    value = method.training_loss(x, y).value
    parameters = list(method.model.parameters())
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    ours = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    theirs = torch.autograd.grad(expected, parameters, retain_graph=True, materialize_grads=True)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-12)


# The formulas, one sample and one class at a time.


def probabilities(z: Tensor) -> list[Tensor]:
    return [z[k].exp() / z.exp().sum() for k in range(len(z))]


def entropy(z: Tensor, y: int, smoothing: float = 0.0) -> Tensor:
    p, classes = probabilities(z), len(z)
    targets = [smoothing / classes + (1 - smoothing) * (k == y) for k in range(classes)]
    return -sum(t * q.log() for t, q in zip(targets, p, strict=True))  # type: ignore[return-value]


def kl(z: Tensor, other: Tensor) -> Tensor:
    return sum(p * (p / q).log() for p, q in zip(probabilities(z), probabilities(other), strict=True))  # type: ignore[return-value]


def bce(z: Tensor, y: int) -> Tensor:
    p = probabilities(z)
    return -p[y].log() - (1 - max(p[k] for k in range(len(z)) if k != y)).log()


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def over(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, formula: Callable[..., Tensor]) -> Tensor:
    """The mean over the samples of formula(clean logits, adversarial logits, label), images passed one by one."""
    return mean([formula(model(a[None])[0], model(b[None])[0], int(t)) for a, b, t in zip(x, x_adv, y, strict=True)])


def squared_error(p: list[Tensor], q: list[Any]) -> Tensor:
    return sum((a - b) ** 2 for a, b in zip(p, q, strict=True))  # type: ignore[return-value]


def one_hot(y: int) -> list[float]:
    return [float(k == y) for k in range(10)]


CASES = {
    "pgd_at": (PGDAdversarialTraining, {"attack": ATTACK}, lambda z, a, y: entropy(a, y)),
    "pgd_at, smoothed": (
        PGDAdversarialTraining,
        {"attack": ATTACK, "label_smoothing": 0.3},
        lambda z, a, y: entropy(a, y, 0.3),
    ),
    "fgsm_rs": (PGDAdversarialTraining, {"attack": FGSMRS(threat=LINF)}, lambda z, a, y: entropy(a, y)),
    "n_fgsm": (NFGSM, {"attack": FGSM(threat=LINF)}, lambda z, a, y: entropy(a, y)),
    "free_at": (FreeAdversarialTraining, {"threat": LINF}, lambda z, a, y: entropy(a, y)),
    "trades": (
        TRADES,
        {"attack": KL, "beta": 2.5, "label_smoothing": 0.1},
        lambda z, a, y: entropy(z, y, 0.1) + 2.5 * kl(z, a),
    ),
    "mart": (
        MART,
        {"attack": ATTACK, "beta": 3.0},
        lambda z, a, y: bce(a, y) + 3 * kl(z, a) * (1 - probabilities(z)[y]),
    ),
    "alp": (
        ALP,
        {"attack": ATTACK, "weight": 0.7, "clean_weight": 0.25},
        lambda z, a, y: 0.75 * entropy(a, y) + 0.25 * entropy(z, y) + 0.7 * ((z - a) ** 2).sum(),
    ),
    "score": (
        SCORE,
        {"attack": PGD(threat=LINF, steps=2, loss="squared_error"), "beta": 4.0, "clip": 1e-4},
        lambda z, a, y: (
            squared_error(probabilities(z), one_hot(y))
            + 4 * torch.relu(squared_error(probabilities(a), probabilities(z)) - 1e-4)
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradients_are_those_of_its_formula(name: str, digits: Digits) -> None:
    kind, arguments, formula = CASES[name]
    method = defense(kind, **arguments)
    x, y = batch(digits)
    seeded(method)
    x_adv = method.perturb(x, y)
    check_equals(method, x, y, over(method.model, x, x_adv, y, formula))


def test_a_formula_that_is_a_little_wrong_is_seen(digits: Digits) -> None:
    method = defense(TRADES, attack=KL, beta=2.0)
    x, y = batch(digits)
    seeded(method)
    x_adv = method.perturb(x, y)
    for wrong in (
        lambda z, a, y: entropy(z, y) + 2 * kl(a, z),
        lambda z, a, y: entropy(z, y) + 0.2 * kl(z, a),
        lambda z, a, y: entropy(z, y) + 2 * kl(z.detach(), a),
    ):
        with pytest.raises(AssertionError):
            check_equals(method, x, y, over(method.model, x, x_adv, y, wrong))


def test_trades_at_beta_zero_is_clean_training(digits: Digits) -> None:
    method = defense(TRADES, attack=KL, beta=0.0)
    x, y = batch(digits)
    check_equals(method, x, y, nn.functional.cross_entropy(method.model(x), y))


def test_marts_boosted_entropy_is_twice_the_entropy_for_two_classes(digits: Digits) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    method = defense(MART, model, attack=ATTACK, beta=0.0)
    x, y = digits[0][:6].double(), digits[1][:6] % 2
    seeded(method)
    x_adv = method.perturb(x, y)
    check_equals(method, x, y, 2 * nn.functional.cross_entropy(model(x_adv), y))


def test_the_kl_attack_is_that_of_trades(digits: Digits) -> None:
    method = defense(TRADES, attack=KL)
    x, y = batch(digits)
    x_adv = x + 0.001 * normal_like(x, seeded(method)).double()
    x_adv = x_adv.clamp(0, 1)
    for _ in range(3):
        x_adv = x_adv.detach().requires_grad_()
        total = sum(kl(z, a) for z, a in zip(method.model(x), method.model(x_adv), strict=True))
        (gradient,) = torch.autograd.grad(total, x_adv)
        x_adv = x_adv.detach() + 2.5 * 0.1 / 3 * gradient.sign()
        x_adv = torch.min(torch.max(x_adv, x - 0.1), x + 0.1).clamp(0, 1)
    seeded(method)
    torch.testing.assert_close(method.perturb(x, y), x_adv, rtol=0, atol=1e-12)
    assert (x_adv - x).abs().max() > 0.09


@pytest.mark.parametrize("in_box", [False, True])
def test_fgsm_rs_steps_from_a_uniform_point(in_box: bool, digits: Digits) -> None:
    method = defense(PGDAdversarialTraining, attack=FGSMRS(threat=LINF, step=1.25, start_in_box=in_box))
    x, y = batch(digits)
    start = x + 0.1 * (2 * uniform_like(x, seeded(method)).double() - 1)
    start = (start.clamp(0, 1) if in_box else start).requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(method.model(start), y), start)
    expected = (start + 0.125 * gradient.sign() - x).clamp(-0.1, 0.1) + x
    seeded(method)
    torch.testing.assert_close(method.perturb(x, y), expected.clamp(0, 1).detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("in_box", [False, True])
def test_n_fgsm_steps_from_a_noisy_image(in_box: bool, digits: Digits) -> None:
    method = defense(NFGSM, attack=FGSM(threat=LINF), noise=2.0, start_in_box=in_box)
    x, y = batch(digits)
    noisy = x + 0.2 * (2 * uniform_like(x, seeded(method)).double() - 1)
    noisy = (noisy.clamp(0, 1) if in_box else noisy).requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(method.model(noisy), y), noisy)
    expected = (noisy + 0.1 * gradient.sign()).clamp(0, 1).detach()
    seeded(method)
    torch.testing.assert_close(method.perturb(x, y), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_n_fgsm_leaves_the_ball_and_stays_within_its_own_bound(noise: float, digits: Digits) -> None:
    method = defense(NFGSM, attack=FGSM(threat=LINF), noise=noise)
    x, y = batch(digits, 100)
    x_adv = method.perturb(x, y)
    farthest = (x_adv - x).abs().max().item()
    assert 0.1 * (noise + 0.9) < farthest <= 0.1 * (noise + 1) + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1


def test_n_fgsm_without_noise_is_fgsm(digits: Digits) -> None:
    method = defense(NFGSM, attack=FGSM(threat=LINF), noise=0.0)
    x, y = batch(digits)
    assert torch.equal(method.perturb(x, y), FGSM(threat=LINF)(method.model, x, y))


# Gradient alignment.


@pytest.mark.parametrize("detach_clean", [False, True])
def test_grad_align_and_its_gradients_are_those_of_its_formula(detach_clean: bool, digits: Digits) -> None:
    attack = FGSM(threat=LINF)
    method = defense(GradAlign, attack=attack, weight=0.8, detach_clean=detach_clean)
    x, y = batch(digits)
    noisy = LINF.random_start(x, seeded(method))
    cosines = []
    for a, b, label in zip(x, noisy, y, strict=True):
        first, second = (a[None].requires_grad_(), b[None].requires_grad_())
        here, there = (
            torch.autograd.grad(entropy(method.model(image)[0], int(label)), image, create_graph=True)[0].flatten()
            for image in (first, second)
        )
        here = here.detach() if detach_clean else here
        cosines.append(here @ there / ((here @ here).sqrt() * (there @ there).sqrt()))
    natural = over(method.model, x, attack(method.model, x, y), y, lambda z, a, y: entropy(a, y))
    check_equals(method, x, y, natural + 0.8 * (1 - mean(cosines)))


def test_the_double_backward_of_grad_align_is_that_of_finite_differences(digits: Digits) -> None:
    method = defense(GradAlign, attack=FGSM(threat=ThreatModel("linf", "0.3")), weight=1.0)
    x, y = batch(digits)

    def misalignment() -> Tensor:
        seeded(method)
        return method.training_loss(x, y).terms["misalignment"]

    weight = method.model[1].weight
    (gradient,) = torch.autograd.grad(misalignment(), weight)
    direction = normal_like(weight, torch.Generator().manual_seed(1)).double()
    step = 1e-6
    with torch.no_grad():
        weight.add_(step * direction)
    up = misalignment().item()
    with torch.no_grad():
        weight.sub_(2 * step * direction)
    slope = (up - misalignment().item()) / (2 * step)
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-6)
    assert abs(slope) > 1e-4


def test_a_vanishing_gradient_has_cosine_one_and_passes_nothing_on() -> None:
    a = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [3e-15, 4e-15], [1.0, 0.0]], requires_grad=True)
    b = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3e-15, 0.0], [0.0, 2.0]])
    found = cosine(a, b)
    assert found.tolist() == pytest.approx([1, 1, 0.6, 0])
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert torch.isfinite(gradient).all() and (gradient[:2] == 0).all() and (gradient[2:] != 0).any(1).all()


# HAT.


def test_hat_adds_helper_examples_that_the_standard_model_labels(digits: Digits) -> None:
    helper = network(seed=5)
    method = defense(HAT, attack=KL, helper=helper, beta=2.0, gamma=0.5, stretch=3.0)
    x, y = batch(digits)
    seeded(method)
    x_adv = method.perturb(x, y)
    labels = helper(x_adv.float()).argmax(1)
    trades = over(method.model, x, x_adv, y, lambda z, a, y: entropy(z, y) + 2 * kl(z, a))
    far = over(method.model, x, x + 3 * (x_adv - x), labels, lambda z, a, y: entropy(a, y))
    check_equals(method, x, y, trades + 0.5 * far)


def test_hats_helper_is_neither_trained_nor_stored_nor_changed() -> None:
    helper = network(seed=5).train()
    method = defense(HAT, attack=KL, helper=helper)
    assert len(list(method.parameters())) == len(list(method.model.parameters()))
    assert set(method.state_dict()) == set(defense(TRADES, attack=KL).state_dict())
    assert helper.training and all(p.requires_grad for p in helper.parameters())


def test_a_helper_with_other_classes_is_refused(digits: Digits) -> None:
    method = defense(HAT, attack=KL, helper=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    with pytest.raises(UserError, match=r"defense\.helper must tell 10 classes apart.* got 3"):
        method.training_loss(*batch(digits))


# Mixed batches and several threat models.


@pytest.mark.parametrize("kind", [PGDAdversarialTraining, NFGSM])
def test_the_clean_share_of_a_batch_stays_clean(kind: type, digits: Digits) -> None:
    x, y = batch(digits, 8)
    half = defense(kind, attack=ATTACK, clean_share=0.25)
    moved = (half.perturb(x, y) - x).flatten(1).abs().amax(1) > 0
    assert moved.tolist() == [False] * 2 + [True] * 6
    check_equals(
        defense(kind, half.model, attack=ATTACK, clean_share=1.0),
        x,
        y,
        nn.functional.cross_entropy(half.model(x), y),
    )


L2 = PGD(threat=ThreatModel("l2", "0.6"), steps=2)


@pytest.mark.parametrize("combine", ["max", "average"])
def test_several_threat_models_are_combined_as_named(combine: str, digits: Digits) -> None:
    method = defense(MultiThreatTraining, attacks={"linf": ATTACK, "l2": L2}, combine=combine)
    x, y = batch(digits, 12)
    generator = seeded(method)
    found = [attack(method.model, x, y, generator=generator) for attack in (ATTACK, L2)]
    losses = torch.stack([nn.functional.cross_entropy(method.model(a), y, reduction="none") for a in found])
    winner = losses.argmax(0)
    assert 0 < winner.sum() < len(winner)  # each attack is the worst for some images
    check_equals(method, x, y, losses.amax(0).mean() if combine == "max" else losses.mean())


def test_random_choice_draws_every_attack(digits: Digits) -> None:
    method = defense(MultiThreatTraining, attacks={"linf": ATTACK, "l2": L2}, combine="random")
    x, y = batch(digits)
    seeded(method)
    found = [method.perturb(x, y) for _ in range(12)]
    inside = [bool(LINF.contains(x_adv, x).all()) for x_adv in found]
    assert 0 < sum(inside) < len(inside)
    assert all(L2.threat.contains(x_adv, x).all() for x_adv, within in zip(found, inside, strict=True) if not within)


def test_all_radii_follow_a_schedule_of_the_first(digits: Digits) -> None:
    method = defense(MultiThreatTraining, attacks={"linf": ATTACK, "l2": L2}, combine="average")
    method.attack = method.attack.with_eps("0.05")
    x, y = batch(digits)
    linf, l2 = method.perturb(x, y).split(len(x))
    assert LINF.with_eps("0.05").contains(linf, x).all()
    assert L2.threat.with_eps("0.3").contains(l2, x).all() and L2.threat.distance(l2, x).max() > 0.25


# What every method must stand.

EVERY = {
    **{name: (kind, arguments) for name, (kind, arguments, _) in CASES.items()},
    "grad_align": (GradAlign, {"attack": FGSM(threat=LINF)}),
    "hat": (HAT, {"attack": KL, "helper": network(seed=5)}),
    "multi_threat": (MultiThreatTraining, {"attacks": {"linf": ATTACK, "l2": L2}}),
}


@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["ordinary", "saturated"])
@pytest.mark.parametrize("name", EVERY)
def test_one_image_and_a_saturated_softmax_give_finite_losses_and_gradients(
    name: str, scale: float, digits: Digits
) -> None:
    kind, arguments = EVERY[name]
    method = defense(kind, network(scale=scale), **arguments)
    x, y = digits[0][:1], digits[1][:1]
    for autocast in (False, True):
        method.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = method.training_loss(x, y)
        loss.value.backward()
        assert loss.value.dim() == 0 and loss.value.dtype == torch.float32 and torch.isfinite(loss.value)
        assert all(logits.shape == (1, 10) for logits in loss.logits.values())
        gradients = [p.grad for p in method.model.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


PASSES = {  # forward and backward passes of a batch, k = 2 steps (TRADES, HAT: 3), two attacks
    "pgd_at": (3, 3),
    "fgsm_rs": (2, 2),
    "n_fgsm": (2, 2),
    "free_at": (1, 1),  # a replay
    "trades": (6, 5),
    "mart": (4, 4),
    "alp": (4, 4),
    "score": (5, 4),
    "hat": (7, 6),
    "grad_align": (4, 6),
    "multi_threat": (7, 5),
}


@pytest.mark.parametrize("name", PASSES)
def test_a_step_makes_the_passes_that_the_method_needs(name: str, digits: Digits) -> None:
    kind, arguments = EVERY[name]
    method = defense(kind, network(), **arguments)
    passes = {"forward": 0, "backward": 0}

    def count(way: str) -> None:
        passes[way] += 1

    def forward(module: nn.Module, inputs: Any, logits: Tensor) -> None:
        count("forward")
        if logits.requires_grad:
            logits.register_hook(lambda gradient: count("backward"))

    method.model.register_forward_hook(forward)
    method.training_loss(digits[0][:4], digits[1][:4]).value.backward()
    assert (passes["forward"], passes["backward"]) == PASSES[name]


@pytest.mark.parametrize(
    ("policy", "moved"), [("adversarial", ["adversarial"]), ("clean", ["clean"]), ("both", ["clean", "adversarial"])]
)
@pytest.mark.parametrize("kind", [TRADES, MART, ALP, SCORE])
def test_batch_norm_follows_the_images_that_its_policy_names(
    kind: type, policy: str, moved: list[str], digits: Digits
) -> None:
    method = defense(kind, network(norm=True), attack=ATTACK, batch_norm=policy)
    x, y = digits[0][:50], digits[1][:50]
    seeded(method)
    means = {"clean": x.mean().item(), "adversarial": method.perturb(x, y).mean().item()}
    running = 0.0
    for images in moved:
        running = 0.9 * running + 0.1 * means[images]
    seeded(method)
    method.training_loss(x, y)
    assert float(method.model[0].running_mean) == pytest.approx(running)
    assert int(method.model[0].num_batches_tracked) == len(moved)


def test_the_passes_of_grad_align_for_its_cosine_leave_batch_norm_alone(digits: Digits) -> None:
    method = defense(GradAlign, network(norm=True), attack=FGSM(threat=LINF))
    method.training_loss(digits[0][:50], digits[1][:50])
    assert int(method.model[0].num_batches_tracked) == 1


@pytest.mark.parametrize("name", [name for name in EVERY if name != "mart"])
def test_one_hot_labels_are_labels(name: str, digits: Digits) -> None:
    kind, arguments = EVERY[name]
    method = defense(kind, **arguments)
    x, y = batch(digits)
    losses = []
    for labels in (y, nn.functional.one_hot(y, 10).double()):
        seeded(method)
        losses.append(method.training_loss(x, labels).value.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (TRADES, {"attack": KL, "beta": -1.0}, r"defense\.beta must be at least 0, got -1"),
        (MART, {"attack": ATTACK, "beta": math.nan}, r"defense\.beta must be at least 0, got nan"),
        (ALP, {"attack": ATTACK, "weight": -1.0}, r"defense\.weight must be at least 0"),
        (PGDAdversarialTraining, {"attack": ATTACK, "clean_share": 1.5}, r"defense\.clean_share must lie in \[0, 1\]"),
        (PGDAdversarialTraining, {"attack": ATTACK, "label_smoothing": -0.1}, r"defense\.label_smoothing must lie"),
        (FreeAdversarialTraining, {"threat": LINF, "replays": 0}, r"defense\.replays must be an integer of at least 1"),
        (MultiThreatTraining, {"attacks": {}}, r"defense\.attacks must hold at least one attack"),
        (
            MultiThreatTraining,
            {"attacks": {"linf": ATTACK}, "combine": "min"},
            r"defense\.combine must be one of 'max', 'average', 'random', got 'min'",
        ),
        (NFGSM, {"attack": ATTACK, "noise": -1.0}, r"defense\.noise must be at least 0"),
    ],
)
def test_values_outside_their_range_are_refused(kind: type, arguments: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        defense(kind, **arguments)

"""Certified training: losses against plain interval formulas, limits, gradients, warm-up, and what a run selects."""

from __future__ import annotations

import copy
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks import BestCheckpoint, EpsilonSchedule
from xrobust.attacks import FGSM, PGD
from xrobust.certification import (
    Box,
    Walk,
    batch_statistics,
    input_box,
    interval_bounds,
    interval_lower_bound,
    lower_bound,
    margins,
    trace,
)
from xrobust.certification.operation import PARALLEL
from xrobust.data.loader import TrainingLoader
from xrobust.defenses import (
    CCIBP,
    MTLIBP,
    SABR,
    STAPS,
    TAPS,
    CertifiedTraining,
    CROWNIBPTraining,
    ExpIBP,
    IBPTraining,
    WongKolter,
)
from xrobust.defenses.ibp_weights import imbalance, initialise, tightness
from xrobust.defenses.interval_network import for_training
from xrobust.defenses.soft_labels import check_soft_labels
from xrobust.defenses.taps import cut, linked, tail_of
from xrobust.errors import UserError
from xrobust.models import CNN7, FullyConnected, PreActResNet
from xrobust.schedules import Constant, Ramp
from xrobust.threat import ThreatModel

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated", "ignore:.*does not have many workers")

EPS = 0.05
THREAT = ThreatModel("linf", "0.05")
ATTACK = FGSM(threat=THREAT)
Digits = tuple[Tensor, Tensor]


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 14), nn.ReLU(), nn.Linear(14, 9), nn.ReLU(), nn.Linear(9, 10))


def normed() -> nn.Sequential:
    """Convolution and linear layer with batch norms of their own weights, of both signs."""
    hidden = [nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 9, bias=False)]
    model = nn.Sequential(*hidden, nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 10))
    for module in model:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, std=0.3)
    return model


NETWORKS = {"dense": dense, "normed": normed}
METHODS: dict[str, tuple[type[CertifiedTraining], dict[str, Any]]] = {
    "ibp": (IBPTraining, {}),
    "crown_ibp": (CROWNIBPTraining, {"beta": 0.7}),
    "crown_ibp, all forms": (CROWNIBPTraining, {"beta": 0.7, "loss_fusion": False}),
    "sabr": (SABR, {"attack": ATTACK, "tau": 0.4}),
    "mtl_ibp": (MTLIBP, {"attack": ATTACK, "alpha": 0.3}),
    "cc_ibp": (CCIBP, {"attack": ATTACK, "alpha": 0.3}),
    "exp_ibp": (ExpIBP, {"attack": ATTACK, "alpha": 0.3}),
    "wong_kolter": (WongKolter, {}),
    "taps": (TAPS, {}),
    "staps": (STAPS, {"attack": ATTACK}),
}
BOUNDS = ("ibp", "crown_ibp", "crown_ibp, all forms", "wong_kolter")  # losses that no image of the ball exceeds


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def made(kind: type[CertifiedTraining], model: nn.Module | None = None, **options: Any) -> CertifiedTraining:
    if model is None:
        torch.manual_seed(0)
        model = normed()
    method = kind(model=model, optimizer=sgd, schedule=Constant(), threat=THREAT, **options)
    return method.train().double()


def method_named(name: str, network: str = "normed", **options: Any) -> CertifiedTraining:
    kind, own = METHODS[name]
    torch.manual_seed(0)
    return made(kind, NETWORKS[network](), **{**own, **options})


def at_share(method: CertifiedTraining, share: float) -> CertifiedTraining:
    method.attack = method.attack.with_eps(THREAT.radius * share)
    return method


@pytest.fixture
def batch(digits: Digits) -> Digits:
    return digits[0][:12].double(), digits[1][:12]


def plain_margins(model: nn.Sequential, x: Tensor, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Lower bounds of z_y − z_j by intervals of positive and negative parts, batch norm with the statistics of x."""
    clean, last = x, model[-1]
    for layer in model[:-1]:
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            over = [0, 2, 3][: clean.dim() - 1]
            shape = (1, -1, *[1] * (clean.dim() - 2))
            scale = (layer.weight / (clean.var(over, unbiased=False) + layer.eps).sqrt()).view(shape)
            shift = layer.bias.view(shape) - clean.mean(over).view(shape) * scale
            corners = low * scale + shift, high * scale + shift
            low, high = torch.minimum(*corners), torch.maximum(*corners)
            clean = clean * scale + shift
            continue
        if isinstance(layer, nn.Conv2d | nn.Linear):
            positive, negative = copy.copy(layer), copy.copy(layer)
            positive._parameters = {"weight": layer.weight.clamp(min=0), "bias": layer.bias}
            negative._parameters = {"weight": layer.weight.clamp(max=0), "bias": None}
            low, high = positive(low) + negative(high), positive(high) + negative(low)
        else:
            low, high = layer(low), layer(high)
        clean = layer(clean)
    own, rest = last.weight[y].unsqueeze(1), last.weight.unsqueeze(0)
    weight, bias = own - rest, last.bias[y].unsqueeze(1) - last.bias
    lower = (weight.clamp(min=0) * low.unsqueeze(1) + weight.clamp(max=0) * high.unsqueeze(1)).sum(2) + bias
    others = torch.arange(10).expand(len(y), -1) != y.unsqueeze(1)
    return lower[others].view(len(y), 9)


def plain_losses(model: nn.Sequential, x: Tensor, y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    lower = plain_margins(model, x, low, high, y)
    return torch.log1p(torch.exp(-lower).sum(1))


def corners(x: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    return (x - eps).clamp(min=0), (x + eps).clamp(max=1)


def close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-10)


# Losses.


@pytest.mark.parametrize("network", NETWORKS)
def test_ibp_is_what_plain_formulas_give(network: str, batch: Digits) -> None:
    x, y = batch
    method = method_named("ibp", network, kappa_start=0.9, kappa=0.3)
    loss = method.training_loss(x, y)
    model = method.model
    assert isinstance(model, nn.Sequential)
    close(loss.logits["clean"], model(x))
    worst = plain_losses(model, x, y, *corners(x)).mean()
    close(loss.value, 0.3 * F.cross_entropy(model(x), y) + 0.7 * worst)
    close(loss.terms["robust_loss"], worst)
    right = (plain_margins(model, x, *corners(x), y) > 0).all(1).double().mean()
    close(loss.terms["certified_accuracy"], right)


def test_adversarial_terms_are_what_plain_formulas_give(batch: Digits) -> None:
    x, y = batch
    low, high = corners(x)
    for name in ("sabr", "mtl_ibp", "cc_ibp", "exp_ibp"):
        method = method_named(name)
        loss = method.training_loss(x, y)
        model, x_adv = method.model, loss.x_adv
        assert isinstance(model, nn.Sequential) and x_adv is not None and not torch.equal(x_adv, x)
        at = plain_losses(model, x, y, x_adv, x_adv)
        ibp = plain_losses(model, x, y, low, high)
        if name == "sabr":
            centre = x_adv.clamp(low + 0.4 * EPS, high - 0.4 * EPS)
            box = torch.maximum(centre - 0.4 * EPS, low), torch.minimum(centre + 0.4 * EPS, high)
            expected = plain_losses(model, x, y, *box)
        elif name == "mtl_ibp":
            expected = 0.7 * at + 0.3 * ibp
        elif name == "exp_ibp":
            expected = at**0.7 * ibp**0.3
        else:
            mixed = 0.7 * plain_margins(model, x, x_adv, x_adv, y) + 0.3 * plain_margins(model, x, low, high, y)
            expected = torch.log1p(torch.exp(-mixed).sum(1))
        close(loss.value, expected.mean())
        assert at.mean() < loss.value < ibp.mean()


@pytest.mark.parametrize("name", ["sabr", "mtl_ibp", "cc_ibp", "exp_ibp"])
def test_the_ends_are_adversarial_training_and_ibp(name: str, batch: Digits) -> None:
    x, y = batch
    option = "tau" if name == "sabr" else "alpha"
    ibp = method_named("ibp").training_loss(x, y).value
    close(method_named(name, **{option: 1.0}).training_loss(x, y).value, ibp)
    method = method_named(name, **{option: 0.0})
    loss = method.training_loss(x, y)
    close(loss.value, plain_losses(method.model, x, y, loss.x_adv, loss.x_adv).mean())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", METHODS)
def test_without_a_radius_the_loss_is_cross_entropy(name: str, batch: Digits) -> None:
    method = at_share(method_named(name, kappa=0.3), 0)
    loss = method.training_loss(*batch)
    close(loss.value, F.cross_entropy(method.model(batch[0]), batch[1]))


@pytest.mark.parametrize("name", [name for name in METHODS if "taps" not in name])
def test_a_vanishing_radius_leaves_cross_entropy(name: str, batch: Digits) -> None:
    method = method_named(name, train_eps="1e-9")
    loss = method.training_loss(*batch)
    torch.testing.assert_close(loss.value, F.cross_entropy(method.model(batch[0]), batch[1]), rtol=1e-5, atol=0)


def worst_found(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The mean of the largest losses that two attacks find."""
    attacks = PGD(threat=THREAT, steps=20), FGSM(threat=THREAT)
    found = torch.stack([F.cross_entropy(model(attack(model, x, y)), y, reduction="none") for attack in attacks])
    return found.amax(0).mean().detach()


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_above_the_loss_at_every_image_of_the_ball(name: str, batch: Digits) -> None:
    method = method_named(name, "dense")
    assert method.training_loss(*batch).value > worst_found(method.model, *batch)


def test_the_check_of_bounds_sees_a_loss_that_is_none(batch: Digits) -> None:
    method = at_share(method_named("ibp", "dense", shi_weight=0.0), 0.01)
    assert method.training_loss(*batch).value < worst_found(method.model, *batch)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_crown_ibp_mixes_the_margins_of_both_bounds(beta: float, batch: Digits) -> None:
    x, y = batch
    method = method_named("crown_ibp, all forms", "dense", beta=beta)
    bounds = interval_bounds(trace(method.model, x[0]).network(), input_box(THREAT, x))
    forms = margins(y, 10, x.dtype)
    mixed = beta * lower_bound(bounds, forms) + (1 - beta) * interval_lower_bound(bounds, forms)
    close(method.training_loss(x, y).value, torch.log1p(torch.exp(-mixed).sum(1)).mean())


def test_loss_fusion_is_exact_for_two_classes_without_relus_and_no_worse_for_ten(batch: Digits) -> None:
    x, y = batch
    for classes in (2, 10):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).double()
        fused, apart = (
            made(CROWNIBPTraining, model, beta=1.0, loss_fusion=fusion).training_loss(x, y % classes).value
            for fusion in (True, False)
        )
        worst = worst_found(model, x, y % classes)
        if classes == 2:
            close(fused, apart)
            close(fused, worst)
        assert worst <= fused + 1e-9 and fused <= apart + 1e-9


def test_the_fused_loss_of_ibp_alone_is_ibp_and_large_logits_stay_finite(batch: Digits) -> None:
    x, y = batch
    ibp = method_named("ibp").training_loss(x, y).value
    close(method_named("crown_ibp", beta=0.0).training_loss(x, y).value, ibp)
    close(method_named("crown_ibp", beta=1e-12).training_loss(x, y).value, ibp)
    method = method_named("crown_ibp", "dense").float()
    with torch.no_grad():
        method.model[-1].weight.mul_(1e4)
    loss = method.training_loss(x.float(), y).value
    loss.backward()
    assert loss > 100 and all(p.grad.isfinite().all() for p in method.model.parameters())


@pytest.mark.parametrize("name", [name for name in METHODS if "taps" not in name])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_gradients_are_those_of_finite_differences(name: str, share: float, batch: Digits) -> None:
    """Half way, with the regularisers; batch norm's statistics are differentiated, too."""
    method = at_share(method_named(name, kappa_start=0.2, kappa=0.4), share)
    method.model[1].momentum = method.model[5].momentum = 0.0  # the attack sees the same network each time
    parameters = list(method.model.parameters())
    directions = [torch.randn_like(p) for p in parameters]
    method.training_loss(*batch).value.backward()
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, directions, strict=True))
    values = []
    with torch.no_grad():
        for step in (1e-7, -2e-7):
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=step)
            values.append(method.training_loss(*batch).value)
    torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-7, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_one_image_is_a_batch_and_a_batch_is_its_images(name: str, batch: Digits) -> None:
    x, y = batch[0][:4], batch[1][:4]
    if "taps" in name:
        assert method_named(name, "dense").training_loss(x[:1], y[:1]).value.isfinite()
        return
    each = [method_named(name, "dense").training_loss(x[i : i + 1], y[i : i + 1]).value for i in range(4)]
    close(method_named(name, "dense").training_loss(x, y).value, torch.stack(each).mean())


# The network of a step.


def test_the_network_for_training_is_the_network(digits: Digits) -> None:
    x, y = digits[0][:6].double(), digits[1][:6]
    model = CNN7(num_classes=10, in_channels=1, image_size=8, width=0.05).double().train()
    graph = trace(model, x[0])
    found = []
    for change in (lambda network: network, for_training):
        with batch_statistics(model) as statistics:
            logits = model(x)
        network = change(graph.network(statistics))
        bounds, forms = interval_bounds(network, input_box(THREAT, x)), margins(y, 10, x.dtype)
        lower, crown = interval_lower_bound(bounds, forms), lower_bound(bounds, forms)
        parallel = lower_bound(bounds, forms, walk=Walk(PARALLEL))
        total = lower.square().sum() + crown.sum() + parallel.sum() + network.values(x)[-1].square().sum()
        close(network.values(x)[-1], logits)
        found.append([lower, crown, parallel, *torch.autograd.grad(total, list(model.parameters()))])
    scale = max(
        float(value.detach().abs().max()) for value in found[0]
    )  # a bias before batch norm has no gradient but rounding
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-11 * scale)
    kinds = [type(operation).__name__ for operation in for_training(graph.network(statistics)).operations]
    assert "Scaling" not in kinds and kinds.count("CentredReLU") == 6


@pytest.mark.parametrize("name", METHODS)
def test_only_the_clean_pass_moves_running_statistics(name: str, batch: Digits) -> None:
    method = method_named(name)
    conv, norm = method.model[0], method.model[1]
    for _ in range(2):
        method.training_loss(*batch)
    clean = conv(batch[0]).mean((0, 2, 3))
    close(norm.running_mean, 0.19 * clean)
    assert norm.num_batches_tracked == 2


def test_autocast_changes_nothing_but_the_attack(batch: Digits) -> None:
    method, reference = (method_named("ibp", kappa=0.5).float() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.training_loss(batch[0].float(), batch[1])
    close(loss.value, reference.training_loss(batch[0].float(), batch[1]).value)
    assert loss.value.dtype == torch.float32


def test_a_copy_is_bounded_by_its_own_weights(batch: Digits) -> None:
    method = method_named("ibp", "dense")
    method.training_loss(*batch)
    twin = copy.deepcopy(method)
    with torch.no_grad():
        twin.model[-1].weight.zero_()
        twin.model[-1].bias.zero_()
    close(twin.training_loss(*batch).value, torch.tensor(math.log(10), dtype=torch.float64))


# Warm-up: initial weights, regularisers, ramps.


def test_initial_weights_have_the_published_variance_and_the_rest_stays() -> None:
    model = FullyConnected(num_classes=10, in_channels=1, image_size=28, hidden=(400, 300))
    conv = nn.Conv2d(16, 64, 3, groups=2)
    both = nn.Sequential(conv, model)
    before = {name: value.clone() for name, value in both.named_parameters()}
    initialise(both, torch.Generator().manual_seed(1))
    layers = [module for module in both.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer, fan_in in zip(layers[:-1], (72, 784, 400), strict=True):
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 * math.pi) / fan_in, rel=0.05)
        assert float(layer.weight.detach().abs().mean()) * fan_in / 2 == pytest.approx(1, rel=0.05)
    changed = {name for name, value in both.named_parameters() if not torch.equal(value, before[name])}
    first = {f"{name}.weight" for name, m in both.named_modules() if any(m is layer for layer in layers[:-1])}
    assert changed == first


def box(*pairs: tuple[float, float]) -> Box:
    return Box(*torch.tensor(pairs, dtype=torch.float64).T.unsqueeze(1))


def test_tightness_counts_layers_that_are_wider_than_allowed() -> None:
    image = box((0.0, 0.2), (0.5, 0.7))  # mean radius 0.1
    assert float(tightness(image, [box((-0.2, 0.2)), box((0.0, 0.1))], 0.5)) == pytest.approx(0, abs=1e-12)
    assert float(tightness(image, [box((-0.4, 0.4)), box((0.0, 0.1))], 0.5)) == pytest.approx((0.5 - 0.25) / 0.5 / 2)
    assert float(tightness(image, [box((-1e9, 1e9))], 0.5)) == pytest.approx(1)


def test_imbalance_compares_active_and_inactive_units() -> None:
    assert imbalance([box((1.0, 2.0), (-2.0, -1.0), (-1.0, 1.0))], 0.5) == 0
    assert imbalance([box((1.0, 2.0), (-1.0, 3.0))], 0.5) == 0  # no inactive unit
    # Centres 1, −4, 0 (unstable): mean −1; α = 1/4, β = (1 + 1)² / (−4 + 1)² = 4/9.
    found = float(imbalance([box((0.5, 1.5), (-4.5, -3.5), (-1.0, 1.0))], 0.5))
    assert found == pytest.approx((0.25 + (0.5 - 4 / 9)) / 0.5)
    everything = imbalance([box((99.0, 101.0), (-0.2, -0.1))], 1.0)
    assert 0 < everything <= 2


def test_regularisers_count_during_the_ramp_alone_and_less_and_less(batch: Digits) -> None:
    def added(share: float) -> float:
        plain, regularised = (at_share(method_named("ibp", shi_weight=w), share).training_loss(*batch) for w in (0, 2))
        assert plain.terms["shi_penalty"] == 0
        close(regularised.value - plain.value, regularised.terms["shi_penalty"])
        return float(regularised.terms["shi_penalty"].detach())

    assert added(1) == 0
    for share in (0.25, 0.75):
        x = batch[0]
        method = at_share(method_named("ibp"), share)
        with batch_statistics(method.model) as statistics:
            method.model(x)
        network = trace(method.model, x[0]).network(statistics)
        bounds = interval_bounds(network, input_box(method.attack.threat, x))
        boxes = [bounds.boxes[node] for node in network.preactivations]
        assert len(boxes) == 2
        penalty = float((tightness(bounds.boxes[0], boxes, 0.5) + imbalance(boxes, 0.5)).detach())
        assert penalty > 0 and added(share) == pytest.approx(2 * (1 - share) * penalty)


def test_kappa_and_beta_follow_the_radius(batch: Digits) -> None:
    method = at_share(method_named("crown_ibp", beta=0.2, kappa_start=1.0, kappa=0.5), 0.25)
    terms = method.training_loss(*batch).terms
    assert float(terms["kappa"]) == pytest.approx(0.875) and float(terms["beta"]) == pytest.approx(0.8)


# TAPS.


def test_gradients_reach_the_corner_that_a_latent_point_is_near() -> None:
    lower, upper = torch.zeros(5, requires_grad=True), torch.full((5,), 2.0, requires_grad=True)
    points = torch.tensor([0.0, 0.25, 1.0, 1.5, 2.0])
    found = linked(points, lower, upper, 0.5)
    assert torch.equal(found, points)
    found.sum().backward()
    torch.testing.assert_close(lower.grad, torch.tensor([1.0, 0.75, 0, 0, 0]))
    torch.testing.assert_close(upper.grad, torch.tensor([0.0, 0, 0, 0.5, 1.0]))


def test_latent_margins_lie_between_interval_arithmetic_and_the_clean_margins(batch: Digits) -> None:
    x, y = batch
    method = method_named("taps", "dense", steps=20)
    assert isinstance(method, TAPS)
    forms = margins(y, 10, x.dtype)
    bounds = interval_bounds(trace(method.model, x[0]).network(), input_box(THREAT, x))
    latent = method._latent_margins(bounds, forms)
    clean = (forms * method.model(x).unsqueeze(1)).sum(2)
    lower = interval_lower_bound(bounds, forms)
    assert (latent >= lower - 1e-12).all() and (latent <= clean).double().mean() > 0.99
    assert (latent - lower).mean() > 1e-3
    # A linear second block: the attack finds its exact minimum, which is the bound of interval arithmetic.
    exact = method_named("taps", "dense", classifier_relus=0, steps=20)
    assert isinstance(exact, TAPS)
    close(exact._latent_margins(bounds, forms), lower)


def test_taps_multiplies_both_losses_and_scales_the_gradient_of_the_latent_one(batch: Digits) -> None:
    def loss_of(scale: float, share: float = 1.0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        method = at_share(method_named("taps", "dense", classifier_relus=0, gradient_scale=scale, steps=20), share)
        loss = method.training_loss(*batch)
        loss.value.backward()
        return loss.value, torch.cat([p.grad.flatten() for p in method.model.parameters()]), dict(loss.terms)

    ibp = method_named("ibp", "dense")
    model = ibp.model
    assert isinstance(model, nn.Sequential)
    losses = plain_losses(model, batch[0], batch[1], *corners(batch[0]))
    value, plain, terms = loss_of(1.0)
    close(value, losses.square().mean())  # the second block is linear: both factors are the same
    close(terms["latent_loss"], losses.mean())
    _, scaled, _ = loss_of(3.0)
    _, none, _ = loss_of(0.0)
    close(scaled - none, 3 * (plain - none))
    close(plain, 2 * none)
    close(loss_of(1.0, 0.5)[0], at_share(ibp, 0.5).training_loss(*batch).value)


def test_the_network_is_cut_after_the_right_operation(batch: Digits) -> None:
    x = batch[0]
    network = trace(dense().double(), x[0]).network()
    values = network.values(x)
    for relus, shape in ((0, 9), (1, 14), (2, None)):
        node = cut(network, relus)
        assert node == 0 if shape is None else network.shapes[node] == (shape,)
        close(tail_of(network, node)(values[node]), values[-1])
    with pytest.raises(UserError, match=r"defense\.classifier_relus=3"):
        cut(network, 3)
    residual = PreActResNet(num_classes=10, in_channels=1, image_size=8, blocks=(1,), widths=(4,), stem=4).double()
    with pytest.raises(UserError, match="single path"):
        cut(trace(residual, x[0]).network(), 2)


# Selection.


def test_a_resumed_run_does_not_select_by_another_quantity(monkeypatch: pytest.MonkeyPatch) -> None:
    def epoch(method: CertifiedTraining, **measured: float) -> dict[str, Any]:
        logged: dict[str, Any] = {}
        known = {f"val/{name}": torch.tensor(value) for name, value in measured.items()}
        monkeypatch.setattr(type(method), "trainer", SimpleNamespace(callback_metrics=known))
        monkeypatch.setattr(method, "log", lambda name, value, **_: logged.update({name: value}))
        method.on_train_epoch_end()
        return {name: float(value) for name, value in logged.items() if name == "val/selection"}

    before = made(IBPTraining)
    assert epoch(before, certified_accuracy=0.5, robust_accuracy=0.75) == {"val/selection": 0.5}
    checkpoint: dict[str, Any] = {}
    before.on_save_checkpoint(checkpoint)
    after = made(IBPTraining)
    after.on_load_checkpoint(checkpoint)
    assert epoch(after, robust_accuracy=0.75) == {}
    assert epoch(after, certified_accuracy=0.25, robust_accuracy=0.75) == {"val/selection": 0.25}


def test_where_the_radius_is_0_the_attacked_images_are_the_clean_ones(batch: tuple[Tensor, Tensor]) -> None:
    method = made(MTLIBP, attack=ATTACK)
    method.attack = method.attack.with_eps(0)
    loss = method.training_loss(*batch)
    assert loss.x_adv is not None and torch.equal(loss.x_adv, batch[0]), "for regularisers of attacked images"


# Options and runs.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: made(IBPTraining, kappa=1.5), r"defense\.kappa must lie in \[0, 1\]"),
        (lambda: made(IBPTraining, initialisation="he"), r"defense\.initialisation must be one of 'ibp', 'none'"),
        (lambda: made(IBPTraining, shi_weight=-1.0), r"defense\.shi_weight"),
        (lambda: made(IBPTraining, shi_tolerance=0.0), r"defense\.shi_tolerance"),
        (lambda: made(IBPTraining, train_eps="a/b"), r"defense\.train_eps must be a number or a fraction"),
        (lambda: made(IBPTraining, train_eps=-0.1), r"defense\.train_eps must be at least 0, got -0.1"),
        (lambda: made(SABR, attack=ATTACK, tau=2.0), r"defense\.tau"),
        (lambda: made(MTLIBP, attack=ATTACK, alpha=-0.1), r"defense\.alpha"),
        (lambda: made(CROWNIBPTraining, beta=2.0), r"defense\.beta"),
        (lambda: made(TAPS, link=0.6), r"defense\.link"),
        (lambda: made(TAPS, steps=0), r"defense\.steps"),
    ],
)
def test_values_outside_their_range_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()


def test_other_balls_and_mixed_labels_are_refused(batch: Digits) -> None:
    with pytest.raises(UserError, match=r"defense\.threat\.norm must be one of 'linf', got 'l2'"):
        IBPTraining(model=dense(), optimizer=sgd, schedule=Constant(), threat=ThreatModel("l2", 1))
    for share in (0, 1):
        with pytest.raises(UserError, match="soft labels"):
            check_soft_labels(at_share(method_named("ibp"), share), *batch[:1], classes=10)


def test_training_may_use_a_larger_ball_which_its_attack_follows(batch: Digits) -> None:
    method = method_named("sabr", train_eps="1/10")
    assert method.attack.threat.written_eps == "0.1" and method.share == 1
    x_adv = method.training_loss(*batch).x_adv
    assert x_adv is not None and THREAT.distance(x_adv, batch[0]).max() > 0.09


class Measured(pl.Callback):
    """Logs planted accuracies: one for each epoch, None where none is measured."""

    def __init__(self, **planted: list[float | None]):
        self.planted = planted

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, values in self.planted.items():
            value = values[trainer.current_epoch]
            if value is not None:
                pl_module.log(f"val/{name}", value)


def fitted(
    method: CertifiedTraining, digits: Digits, *callbacks: pl.Callback, epochs: int = 4, **given: Any
) -> pl.Trainer:
    images, labels = (digits[0][:40] * 255).to(torch.uint8), digits[1][:40]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(callback, BestCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=10,
        precision="bf16-mixed",
    )
    validation = DataLoader(TensorDataset(digits[0][:40], labels), batch_size=40)
    trainer.fit(
        method,
        TrainingLoader(images, labels, batch_size=20),
        validation,
        ckpt_path=given.get("checkpoint"),
        weights_only=True,
    )
    return trainer


@pytest.mark.parametrize(
    ("planted", "best"),
    [
        ({"robust_accuracy": [0.9, 0.8, 0.3, 0.5]}, 3),
        ({"robust_accuracy": [0.9, 0.8, 0.3, 0.5], "certified_accuracy": [0.1, 0.1, 0.2, 0.1]}, 2),
        ({"certified_accuracy": [0.9, 0.9, None, 0.1]}, 3),  # the second epoch's is not the third's
        ({"robust_accuracy": [0.0, 0.0, 0.0, 0.0]}, 2),
        ({}, 3),
    ],
)
def test_no_epoch_of_the_ramp_is_selected(
    planted: dict[str, list[float | None]], best: int, digits: Digits, tmp_path: Path
) -> None:
    method = method_named("ibp").float()
    checkpoint = BestCheckpoint(str(tmp_path))
    fitted(method, digits, EpsilonSchedule(Ramp(end=0.6)), Measured(**planted), checkpoint)
    epoch = torch.load(checkpoint.best_model_path, weights_only=True)["epoch"]
    assert epoch == best


def test_initial_weights_are_drawn_once_and_not_in_the_place_of_loaded_ones(digits: Digits, tmp_path: Path) -> None:
    def first_layer(method: CertifiedTraining) -> Tensor:
        return method.model[0].weight.detach().clone()

    frozen = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0), "schedule": Constant()}
    method = IBPTraining(model=normed(), threat=THREAT, **frozen)
    before = first_layer(method)
    fitted(method, digits, epochs=1)
    drawn = first_layer(method)
    assert not torch.equal(drawn, before)
    with torch.no_grad():
        method.model[0].weight.mul_(2)
    trainer = fitted(method, digits, epochs=1)
    assert torch.equal(first_layer(method), 2 * drawn)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = IBPTraining(model=normed(), threat=THREAT, **frozen)
    fitted(other, digits, epochs=2, checkpoint=tmp_path / "a.ckpt")
    assert torch.equal(first_layer(other), 2 * drawn)
    untouched = IBPTraining(model=normed(), threat=THREAT, initialisation="none", **frozen)
    before = first_layer(untouched)
    fitted(untouched, digits, epochs=1)
    assert torch.equal(first_layer(untouched), before)


def test_the_benchmark_compares_a_step_with_standard_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    given = ["--width", "0.02", "--batch", "3", "--rounds", "1", "--only", "crown_ibp", "--output", str(tmp_path)]
    importlib.import_module("certified_training").main(given)
    rows = json.loads((tmp_path / "certified_training.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["standard", "crown_ibp", "crown_ibp, β = 0.5"]
    assert rows[0]["multiple of standard"] == 1 and "| crown_ibp |" in capsys.readouterr().out

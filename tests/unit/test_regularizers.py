"""Each penalty against its formula: closed forms on linear models, autograd's Hessians on tiny networks, float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import pearsonr
from torch import Tensor, nn
from torch.func import jacrev

from xrobust.attributions import Gradient, IntegratedGradients, Lime
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams, uniform_like
from xrobust.regularizers import (
    ART,
    CURE,
    LLR,
    AttributionChange,
    GradAlign,
    GradientTarget,
    HessianNorm,
    IGNorm,
    IGSumNorm,
    InputGradient,
    JacobianNorm,
    PenaltyAscent,
    RightReasons,
    SmoothSurface,
    TeacherMap,
    TotalVariation,
    TowardsClass,
    towards_class_means,
)
from xrobust.regularizers.attribution_change import pearson
from xrobust.regularizers.ball import ascend
from xrobust.regularizers.gradients import l2_norm
from xrobust.schedules import Ramp
from xrobust.threat import ThreatModel

CLASSES, SIZE = 3, 4
LINF = ThreatModel("linf", "0.1")
L2 = ThreatModel("l2", "0.3")


def linear(classes: int = CLASSES, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, classes)).double()


def network(activation: Callable[[], nn.Module] = nn.Softplus, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(SIZE * SIZE, 8), activation(), nn.Linear(8, CLASSES)]
        model = nn.Sequential(*layers).double()
    model[1].weight.data.mul_(4)
    return model


@pytest.fixture
def x() -> Tensor:
    """Images away from the borders of the pixel range."""
    return 0.3 + 0.4 * torch.rand(5, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def y() -> Tensor:
    return torch.tensor([0, 1, 2, 0, 1])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def entropy(model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """CE of one image (C, H, W)."""
    return F.cross_entropy(model(image[None]), label[None])


def one_by_one(value: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([value(image, label) for image, label in zip(x, y, strict=True)])


def loss_gradient(model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    return jacrev(lambda z: entropy(model, z, label))(image)


def hessian(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return jacrev(jacrev(function))


def loss_hessian(model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """(d, d)."""
    d = image.numel()
    return hessian(lambda z: entropy(model, z, label))(image).reshape(d, d)


def close(found: Tensor, expected: Tensor, rtol: float = 1e-8) -> None:
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=rtol, atol=1e-10)


# Input gradients.


@pytest.mark.parametrize("norm", ["l1", "l2", "squared"])
@pytest.mark.parametrize("of", ["loss", "logit", "margin"])
def test_the_input_gradient_of_a_linear_model_is_in_its_weights(of: str, norm: str, x: Tensor, y: Tensor) -> None:
    model = linear()
    weight, logits = model[1].weight, model(x)
    rival = logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    gradient = {
        "loss": (logits.softmax(1) - F.one_hot(y, CLASSES)) @ weight,
        "logit": weight[y],
        "margin": weight[y] - weight[rival],
    }[of]
    norms = {"l1": gradient.abs().sum(1), "l2": gradient.norm(dim=1), "squared": gradient.square().sum(1)}
    close(InputGradient(of=of, norm=norm)(model, x, y), norms[norm])


@pytest.mark.parametrize("norm", ["l1", "l2", "squared"])
def test_the_finite_difference_tends_to_the_norm_and_so_does_its_weight_gradient(
    norm: str, x: Tensor, y: Tensor
) -> None:
    model = network()
    exact = InputGradient(norm=norm).mean(model, x, y)
    errors = []
    for h in (1e-2, 1e-4):
        found = InputGradient(norm=norm, finite_difference=h).mean(model, x, y)
        far = [abs(found.value - exact.value)]
        far += [(a - b).norm() for a, b in zip(found.gradients, exact.gradients, strict=True)]
        errors.append(torch.stack(far).max())
    assert errors[1] < 1e-3 and errors[1] < errors[0] / 30  # an error of order h


def test_the_finite_difference_is_not_differentiated_twice(
    x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, grad = [], torch.autograd.grad

    def recorded(*arguments: Any, **options: Any) -> Any:
        asked.append(options.get("create_graph", False))
        return grad(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", recorded)
    InputGradient(norm="l2", finite_difference=0.01).mean(network(), x, y)
    assert asked == [False, False]  # to the image, to the weights
    InputGradient(norm="l2").mean(network(), x, y)
    assert asked[2:] == [True, False]


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_the_norm_is_safe_at_zero_and_for_tiny_and_huge_entries(scale: float) -> None:
    v = (scale * torch.tensor([[3.0, 4.0]])).requires_grad_()
    length = l2_norm(v)
    (gradient,) = torch.autograd.grad(length.sum(), v)
    assert length.item() == pytest.approx(5 * scale)
    assert gradient.tolist()[0] == pytest.approx([0.6, 0.8] if scale else [0.0, 0.0])


# The Jacobian.


def test_the_exact_jacobian_norm_of_a_linear_model_is_half_that_of_its_weights(x: Tensor, y: Tensor) -> None:
    model = linear()
    close(JacobianNorm(projections=None)(model, x, y), (model[1].weight.square().sum() / 2).expand(5))


def test_random_projections_of_the_jacobian_are_right_on_average(x: Tensor, y: Tensor) -> None:
    model = network()
    exact = JacobianNorm(projections=None)(model, x, y)
    jacobians = torch.stack([jacrev(lambda z: model(z[None])[0])(image).flatten(1) for image in x])
    close(exact, jacobians.square().sum((1, 2)) / 2)
    estimate = JacobianNorm(projections=1500)(model, x, y, generator=seeded())
    torch.testing.assert_close(estimate, exact, rtol=0.1, atol=0)
    assert (JacobianNorm()(model, x, y, generator=seeded()) - exact).abs().max() > 0.1 * exact.min()


# Curvature.


@pytest.mark.parametrize("squared", [False, True])
def test_cure_is_the_change_of_the_gradient_along_its_sign(squared: bool, x: Tensor, y: Tensor) -> None:
    model, h = network(), 0.7

    def value(image: Tensor, label: Tensor) -> Tensor:
        here = loss_gradient(model, image, label)
        change = loss_gradient(model, image + h * here.sign() / math.sqrt(SIZE * SIZE), label) - here
        return change.norm() ** (2 if squared else 1)

    close(CURE(h=h, squared=squared)(model, x, y), one_by_one(value, x, y))


def test_cure_of_a_short_step_is_a_product_with_the_hessian(x: Tensor, y: Tensor) -> None:
    model, h = network(), 1e-5

    def value(image: Tensor, label: Tensor) -> Tensor:
        z = loss_gradient(model, image, label).sign().flatten() / math.sqrt(SIZE * SIZE)
        return (loss_hessian(model, image, label) @ z).norm()

    close(CURE(h=h)(model, x, y) / h, one_by_one(value, x, y), rtol=1e-4)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Identity])
def test_ssr_is_the_largest_eigenvalue_of_the_hessian_of_a_piecewise_linear_network(
    activation: Callable[[], nn.Module], x: Tensor, y: Tensor
) -> None:
    model = network(activation)
    found = SmoothSurface().mean(model, x, y)
    weights = list(model.parameters())

    def largest(image: Tensor, label: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(loss_hessian(model, image, label))[-1]

    close(found.value, one_by_one(largest, x, y).mean())
    # The derivative, through the eigenvalue of the closed form with everything in the graph.
    total = torch.zeros((), dtype=torch.float64)
    for image in x:
        p = model(image[None])[0].softmax(0)
        jacobian = jacrev(lambda z: model(z[None])[0])(image).flatten(1)
        matrix = jacobian.mT @ (torch.diag(p) - p[:, None] * p) @ jacobian
        total = total + torch.linalg.eigvalsh(matrix)[-1] / len(x)
    expected = torch.autograd.grad(total, weights, materialize_grads=True, allow_unused=True)
    for a, b in zip(found.gradients, expected, strict=True):
        close(a, b, rtol=1e-6)


def test_the_hessian_norm_is_right_on_average(x: Tensor, y: Tensor) -> None:
    model = network()

    def frobenius(image: Tensor, label: Tensor) -> Tensor:
        return hessian(lambda z: model(z[None])[0, label])(image).square().sum()

    exact = one_by_one(frobenius, x, y)
    estimate = HessianNorm(probes=1500)(model, x, y, generator=seeded())
    torch.testing.assert_close(estimate, exact, rtol=0.15, atol=0)


def test_the_hessian_norm_of_a_relu_network_is_that_of_the_softplus_network(x: Tensor, y: Tensor) -> None:
    relu, smooth = network(nn.ReLU), network(lambda: nn.Softplus(beta=7))
    close(
        HessianNorm(softplus=7.0)(relu, x, y, generator=seeded()),
        HessianNorm(softplus=None)(smooth, x, y, generator=seeded()),
    )
    assert not HessianNorm(softplus=None)(relu, x, y).any()


# The ball.


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_grad_align_is_the_cosine_of_two_loss_gradients(threat: ThreatModel, x: Tensor, y: Tensor) -> None:
    model = network()
    noisy = threat.random_start(x, seeded())
    expected = []
    for a, b, label in zip(x, noisy, y, strict=True):
        g, h = loss_gradient(model, a, label).flatten(), loss_gradient(model, b, label).flatten()
        expected.append(1 - g @ h / (g.norm() * h.norm()))
    close(GradAlign(threat=threat)(model, x, y, generator=seeded()), torch.stack(expected), rtol=1e-7)


def test_llr_is_its_formula_at_the_point_that_is_found(x: Tensor, y: Tensor) -> None:
    model = network()
    method = LLR(threat=LINF, steps=3, linearity=4.0, slope=3.0)

    def gap(image: Tensor, other: Tensor, label: Tensor) -> Tensor:
        slope = (loss_gradient(model, image, label) * (other - image)).sum()
        return (entropy(model, other, label) - entropy(model, image, label) - slope).abs()

    def all_gaps(points: Tensor) -> Tensor:
        return torch.stack([gap(*row) for row in zip(x, points, y, strict=True)])

    point = LINF.random_start(x, seeded())
    start = all_gaps(point)
    for _ in range(3):
        slope = jacrev(lambda points: all_gaps(points).sum())(point.detach())
        point = LINF.project(point + 2.5 * 0.1 / 3 * slope.sign(), x)
    assert (all_gaps(point) > start).all()
    slopes = torch.stack([(loss_gradient(model, a, k) * (b - a)).sum() for a, b, k in zip(x, point, y, strict=True)])
    close(method(model, x, y, generator=seeded()), 4 * all_gaps(point) + 3 * slopes.abs())


def test_a_linear_loss_is_locally_linear(x: Tensor, y: Tensor) -> None:
    """Two classes and huge margins on the wrong side: the cross entropy is the margin."""
    model = linear(2)
    model[1].bias.data[:] = torch.tensor([-1000.0, 1000.0])
    label = torch.zeros(5, dtype=torch.int64)
    assert LLR(threat=LINF, slope=0.0)(model, x, label).abs().max() < 1e-9
    assert CURE()(model, x, label).abs().max() < 1e-9
    assert GradAlign(threat=LINF)(model, x, label).abs().max() < 1e-9


def test_a_search_finds_more_than_where_it_starts(x: Tensor, y: Tensor) -> None:
    model = network()
    short, long = (
        IGNorm(threat=LINF, steps=10, step_size=step)(model, x, y, generator=seeded()) for step in (1e-6, 0.03)
    )
    assert (long > short).all()


# Integrated gradients.


@pytest.mark.parametrize("points", [3, 50])
def test_ig_sum_norm_of_a_linear_model_is_the_rise_of_its_loss(points: int, x: Tensor, y: Tensor) -> None:
    """At the worst corner the entries of the attribution have one sign, so ‖IG‖₁ is the rise (Chen et al. 2019)."""
    model, label = linear(2), y % 2
    weight = model[1].weight
    worst = x + 0.1 * (weight[1 - label] - weight[label]).sign().view_as(x)
    before, after = (F.cross_entropy(model(images), label, reduction="none") for images in (x, worst))
    settings: dict[str, Any] = {"threat": LINF, "steps": 10, "points": points}
    close(IGSumNorm(beta=0.3, **settings)(model, x, label), 1.3 * (after - before), rtol=1e-5)
    # Without the rise in the objective, a random start may lead to a corner where entries have both signs.
    found = IGNorm(**settings)(model, x, label)
    assert (found < (after - before) * (1 + 1e-5)).all() and (found > 0.8 * (after - before)).all()


def test_few_gauss_points_are_as_good_as_fifty_of_the_mean(x: Tensor, y: Tensor) -> None:
    model = network()

    def norm(points: int, rule: str) -> Tensor:
        return IGNorm(threat=LINF, points=points, rule=rule, attack_points=3, steps=3)(model, x, y, generator=seeded())

    many = IGNorm(threat=LINF, points=64, attack_points=3, steps=3)(model, x, y, generator=seeded())
    few, mean_of_fifty = (
        norm(4, "gauss_legendre"),
        IGNorm(threat=LINF, points=50, rule="riemann_midpoint", attack_points=3, steps=3)(
            model, x, y, generator=seeded()
        ),
    )
    torch.testing.assert_close(mean_of_fifty, many, rtol=2e-2, atol=0)
    torch.testing.assert_close(few, many, rtol=1e-3, atol=0)


def test_ig_sum_norm_with_the_clean_entropy_is_the_published_loss(x: Tensor, y: Tensor) -> None:
    model = network()
    method = IGSumNorm(threat=LINF, steps=2, points=5, attack_points=5, beta=0.1)
    found = ascend(lambda z: method._value(model, x, z, y, 5), x, LINF, 2, None, seeded())
    published = []
    for a, b, k in zip(x, found, y, strict=True):
        nodes, weights = torch.linspace(0, 1, 401, dtype=torch.float64)[:-1] + 1 / 800, 1 / 400
        gradients = torch.stack([loss_gradient(model, a + t * (b - a), k) for t in nodes]).sum(0) * weights
        published.append(entropy(model, b, k) + 0.1 * ((b - a) * gradients).abs().sum())
    total = F.cross_entropy(model(x), y, reduction="none") + method(model, x, y, generator=seeded())
    close(total, torch.stack(published), rtol=1e-4)


# Attributions.


def test_art_is_the_triplet_of_the_image_and_two_gradients(x: Tensor, y: Tensor) -> None:
    model = network()
    expected = []
    for image, label in zip(x, y, strict=True):
        rows = jacrev(lambda z: model(z[None])[0])(image).flatten(1)
        logits = model(image[None])[0].detach().clone()
        logits[label] = -torch.inf
        away = [1 - F.cosine_similarity(image.flatten(), rows[k], dim=0) for k in (label, logits.argmax())]
        expected.append(torch.log1p(torch.exp(-(away[1] - away[0]))))
    close(ART()(model, x, y), torch.stack(expected))


def test_penalty_ascent_raises_the_penalty_within_the_ball(x: Tensor, y: Tensor) -> None:
    model = network()
    x_adv = PenaltyAscent(threat=LINF, regularizer=ART(), steps=5)(model, x, y)
    assert LINF.contains(x_adv, x).all()
    assert (ART()(model, x_adv, y, model(x)) > ART()(model, x, y)).all()


@pytest.mark.parametrize("similarity", ["pearson", "cosine"])
def test_the_change_of_an_attribution_is_that_of_scipy(similarity: str, x: Tensor, y: Tensor) -> None:
    model, attribution = network(), IntegratedGradients(steps=4)
    method = AttributionChange(threat=LINF, attribution=attribution, similarity=similarity, steps=2)
    values = method(model, x, y, generator=seeded())
    drawn = seeded()
    uniform_like(x[:, 0, 0, 0], drawn)

    def alike(a: Tensor, b: Tensor) -> Tensor:
        a, b = a.flatten(1), b.flatten(1)
        if similarity == "pearson":
            a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return F.cosine_similarity(a, b)

    here = attribution(model, x, y)
    found = ascend(lambda z: -alike(here, attribution(model, z, y, create_graph=True)), x, LINF, 2, None, drawn)
    there = attribution(model, found, y)
    close(values, 1 - alike(here, there), rtol=1e-6)
    if similarity == "pearson":
        pairs = zip(here.flatten(1).numpy(), there.flatten(1).numpy(), strict=True)
        expected = [1 - pearsonr(a, b).statistic for a, b in pairs]
        assert values.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("value", [0.1, 0.7, 7.7, -0.1])
def test_a_constant_map_is_like_any_other(value: float) -> None:
    """The mean of many equal numbers is rounded; what is left of them must not be taken for a map."""
    constant = torch.full((3, 1, 28, 28), value, requires_grad=True)
    for other in (torch.randn(3, 1, 28, 28), torch.full_like(constant, 0.7)):
        similarity = pearson(constant, other)
        assert (similarity == 1).all() and not torch.autograd.grad(similarity.sum(), constant)[0].any()


def test_the_gradient_of_a_linear_model_never_changes(x: Tensor, y: Tensor) -> None:
    values = AttributionChange(threat=LINF, attribution=Gradient(), similarity="cosine")(linear(), x, y)
    assert values.abs().max() < 1e-12


def test_softplus_gives_the_search_a_direction_on_relu_networks(x: Tensor, y: Tensor) -> None:
    model = network(nn.ReLU)
    settings: dict[str, Any] = {"threat": ThreatModel("linf", "0.3"), "attribution": Gradient(), "steps": 10}
    blind, led = (
        AttributionChange(softplus=beta, **settings)(model, x, y, generator=seeded()).mean() for beta in (None, 5.0)
    )
    assert led > blind


def test_right_reasons_counts_gradients_outside_the_mask(x: Tensor, y: Tensor) -> None:
    model = linear()
    weight = model[1].weight
    gradient = (weight.sum(0) - CLASSES * model(x).softmax(1) @ weight).view_as(x)
    mask = x[:, 0] > 0.5
    expected = (gradient.square() * ~mask[:, None]).sum((1, 2, 3))
    close(RightReasons(mask=lambda images: images[:, 0] > 0.5)(model, x, y), expected)
    assert not RightReasons(mask=lambda images: images[:, 0] > -1)(model, x, y).any()


def test_gradient_targets_are_compared_by_the_cosine(x: Tensor, y: Tensor) -> None:
    model = linear()
    images = torch.rand(CLASSES, 1, SIZE, SIZE, generator=seeded(3), dtype=torch.float64)

    def away(k: int) -> Tensor:
        return 1 - F.cosine_similarity(model[1].weight[k][None], (images[k] - x).flatten(1))

    by_class = torch.stack([away(k) for k in range(CLASSES)], 1)
    close(GradientTarget(target=TowardsClass(images), classes="all")(model, x, y), by_class.mean(1))
    close(GradientTarget(target=TowardsClass(images))(model, x, y), by_class.gather(1, y[:, None])[:, 0])


def test_a_network_is_its_own_best_pupil(x: Tensor, y: Tensor) -> None:
    teacher, other = network(seed=1), network(seed=2)
    method = GradientTarget(target=TeacherMap(teacher))
    assert method(teacher, x, y).abs().max() < 1e-12 and method(other, x, y).min() > 0.01


def test_class_means_are_those_of_the_training_images() -> None:
    class Data:
        def setup(self) -> None:
            pass

        def train_dataloader(self) -> Any:
            self.images = torch.tensor([0, 255, 255, 51], dtype=torch.uint8).view(4, 1, 1, 1)
            self.labels = torch.tensor([1, 0, 1, 0])
            return self

    assert towards_class_means(Data()).images.flatten().tolist() == pytest.approx([0.6, 0.5])


def test_total_variation_counts_steps_relative_to_the_sum() -> None:
    model = linear()
    with torch.no_grad():
        model[1].weight[0] = 1.0
        model[1].weight[1] = torch.eye(SIZE)[1].outer(torch.eye(SIZE)[2]).flatten()  # a pixel off the border
        model[1].weight[2] = torch.tensor([[1.0, -1.0] * 2, [-1.0, 1.0] * 2] * 2).flatten()
    x = torch.zeros(3, 1, SIZE, SIZE, dtype=torch.float64)
    assert TotalVariation()(model, x, torch.arange(3)).tolist() == [0, 4, 0]  # signs do not count


# Values and mistakes.


def test_the_weight_follows_its_schedule() -> None:
    method = InputGradient(weight=3.0, schedule=Ramp(start=0.0, end=0.5))
    assert [method.weight_at(t) for t in (0.0, 0.25, 1.0)] == [0.0, 1.5, 3.0]
    assert InputGradient(weight=3.0).weight_at(0.1) == 3.0


def test_no_more_images_than_the_internal_batch_are_in_the_network(x: Tensor, y: Tensor) -> None:
    model, sizes = network(), []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    InputGradient(batch_size=2).mean(model, x, y)
    assert max(sizes) == 2
    sizes.clear()
    IGNorm(threat=LINF, batch_size=2, points=6, attack_points=3, steps=1).mean(model, x, y)
    assert max(sizes) == 12


def test_streams_of_random_numbers_belong_to_the_images(x: Tensor, y: Tensor) -> None:
    method, model = GradAlign(threat=LINF), network()
    whole = method(model, x, y, generator=SampleStreams(0, range(5)))
    close(method(model, x[3:4], y[3:4], generator=SampleStreams(0, [3])), whole[3:4])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: InputGradient(weight=-1.0), r"InputGradient\.weight must be at least 0, got -1"),
        (lambda: InputGradient(batch_size=0), r"InputGradient\.batch_size"),
        (
            lambda: InputGradient(images="both"),
            r"InputGradient\.images must be one of 'clean', 'adversarial', got 'both'",
        ),
        (lambda: InputGradient(of="loos"), r"InputGradient\.of must be one of 'loss'"),
        (lambda: InputGradient(norm="linf"), r"InputGradient\.norm must be one of 'l1'"),
        (lambda: InputGradient(finite_difference=0.0), r"finite_difference must be above 0"),
        (lambda: JacobianNorm(projections=0), r"JacobianNorm\.projections"),
        (lambda: CURE(h=0.0), r"CURE\.h must be above 0"),
        (lambda: LLR(threat=LINF, slope=-1.0), r"LLR\.slope"),
        (lambda: LLR(threat=LINF, steps=0), r"LLR\.steps"),
        (lambda: LLR(threat=LINF, step_size=0), r"LLR\.step_size must be above 0"),
        (lambda: HessianNorm(softplus=0.0), r"HessianNorm\.softplus must be above 0"),
        (lambda: HessianNorm(probes=0), r"HessianNorm\.probes"),
        (lambda: IGNorm(threat=LINF, points=0), r"IGNorm\.points"),
        (lambda: IGNorm(threat=LINF, rule="simpson"), r"rule must be one of"),
        (lambda: IGSumNorm(threat=LINF, beta=-1.0), r"IGSumNorm\.beta"),
        (lambda: AttributionChange(threat=LINF, similarity="kendall"), r"similarity must be one of 'pearson'"),
        (lambda: AttributionChange(threat=LINF, softplus=-1.0), r"softplus must be above 0"),
        (lambda: AttributionChange(threat=LINF, attribution=Lime()), r"attribution must be differentiable, got Lime"),
        (lambda: TotalVariation(attribution=Lime()), r"attribution must be differentiable, got Lime"),
        (lambda: RightReasons(mask=None), r"RightReasons\.mask must be a function of the images"),
        (lambda: GradientTarget(target=lambda x, k: x, classes="some"), r"classes must be one of 'label', 'all'"),
        (lambda: PenaltyAscent(threat=LINF, regularizer=ART(), steps=0), r"PenaltyAscent\.steps"),
    ],
)
def test_mistakes_are_named(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()


def test_masks_and_images_of_another_size_are_refused(x: Tensor, y: Tensor) -> None:
    with pytest.raises(UserError, match=r"a mask must be \(N, H, W\)"):
        RightReasons(mask=lambda images: images > 0)(network(), x, y)
    with pytest.raises(UserError, match="do not fit images"):
        GradientTarget(target=TowardsClass(torch.zeros(3, 1, 2, 2)))(network(), x, y)

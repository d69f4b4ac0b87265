"""Boxes of the input gradient: they hold every gradient in the ball and are exact where they must be; their metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import PGD, TopKAttack
from xrobust.attributions import Gradient
from xrobust.certification import Box, UnsupportedOperation, gradient_bounds, gradient_box, interval_bounds, trace
from xrobust.certification.bounds import Bounds
from xrobust.certification.operation import Operation
from xrobust.certification.rules.relu import LeakyReLU
from xrobust.errors import UserError
from xrobust.explanation import answer, check_needs
from xrobust.metrics import CertifiedSign, CertifiedTopK, CertifiedWidth, Probe, TopKIntersection
from xrobust.metrics.certified_topk import certainly_on_top, relevance_bounds
from xrobust.models import AOLCNN, CNN7, SLLCNN, Normalize, PreActResNet, ResNet, SmallCNN
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "0.01")
POINTS = 10_000
Y = torch.tensor([1, 3])


class Around(nn.Module):
    """A small network around one middle part: (N, 4, 6, 6) → anything."""

    def __init__(self, middle: Callable[[Tensor], Tensor] | nn.Module, size: int):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.middle = middle
        self.head = nn.Linear(size, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(torch.relu(self.stem(x))).flatten(1))


class Branches(nn.Module):
    """Sums, differences, products with constants, concatenation, and the same value used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)

    def forward(self, h: Tensor) -> Tensor:
        left, right = torch.relu(self.left(h)), self.right(h)
        mixed = torch.cat([left - right, (1 - h) * 0.7, 2 + right / 3], dim=1)
        return (mixed + mixed).permute(0, 2, 3, 1).mean(1)


DATA = {"num_classes": 5, "in_channels": 2, "image_size": 8, "mean": [0.4, 0.5], "std": [0.2, 0.3]}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: Around(nn.Sequential(nn.Conv2d(4, 6, 3, (2, 1), (2, 1), (2, 1), 2), nn.ReLU()), 6 * 3 * 6),
    "batch norm": lambda: Around(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), 64),
    "leaky ReLU": lambda: Around(nn.Sequential(nn.Conv2d(4, 4, 3), nn.LeakyReLU(0.2)), 64),
    "sigmoid": lambda: Around(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sigmoid()), 64),
    "tanh": lambda: Around(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Tanh()), 64),
    "SiLU": lambda: Around(nn.Sequential(nn.Conv2d(4, 4, 3), nn.SiLU()), 64),
    "GELU": lambda: Around(nn.Sequential(nn.Conv2d(4, 4, 3), nn.GELU()), 64),
    "softplus": lambda: Around(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Softplus(beta=100)), 64),
    "average pooling": lambda: Around(nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.AdaptiveAvgPool2d(4)), 64),
    "max pooling": lambda: Around(nn.MaxPool2d(2), 36),
    "overlapping max pooling": lambda: Around(nn.Sequential(nn.Conv2d(4, 4, 3), nn.MaxPool2d(3, 1, 1)), 64),
    "dilated max pooling": lambda: Around(nn.Sequential(nn.Conv2d(4, 4, 1), nn.MaxPool2d(2, (1, 2), 1, 2)), 72),
    "branches": lambda: Around(Branches(), 72),
    "SmallCNN": lambda: SmallCNN(**DATA, width=4, hidden=20),
    "CNN7": lambda: CNN7(**DATA, width=0.05),
    "ResNet": lambda: ResNet(**DATA, blocks=(1, 1), width=4),
    "PreActResNet": lambda: PreActResNet(**DATA, blocks=(1, 1), widths=(4, 8), stem=4, activation="silu"),
    "MinMax": lambda: AOLCNN(**DATA, width=4, stages=1, hidden=6),
    "SLL": lambda: SLLCNN(**DATA, width=4, stages=1, hidden=6),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network whose batch norms have statistics and weights of both signs."""
    model = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, std=0.3)
    return model.to(dtype).eval()


def images(count: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 2, 8, 8, dtype=dtype)


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """∇ₓ f_y by autograd, float64 for float64 images."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).gather(1, y[:, None]).sum(), x)[0]


def overshoot(box: Box, found: Tensor) -> float:
    """How far gradients (P, N, ...) lie outside the box, at most."""
    return float(torch.maximum(box.lower - found, found - box.upper).amax())


def corners_and_points(x: Tensor, count: int) -> Tensor:
    """Images of the ball around x, half of them corners: (count, N, C, H, W)."""
    share = torch.rand(count, *x.shape, dtype=x.dtype)
    share[::2] = share[::2].round()
    return (x + THREAT.radius * (2 * share - 1)).clamp(0, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_at_random_points_lie_in_the_box(name: str) -> None:
    model, x = made(name), images()
    boxes = [gradient_bounds(model, x, Y, THREAT, preactivations=way) for way in ("ibp", "crown")]
    for start in range(0, POINTS // 2, 500):
        points = corners_and_points(x, 500)
        found = gradients(model, points.flatten(0, 1), Y.repeat(500)).view_as(points)
        for box in boxes:
            assert overshoot(box, found) <= 1e-13 * float(found.abs().amax()), (name, start)
    assert (boxes[1].upper - boxes[1].lower).sum() <= (boxes[0].upper - boxes[0].lower).sum() * (1 + 1e-9)


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4))


SMALL = {
    "dense": lambda: chain(nn.Flatten(), nn.Linear(16, 8), nn.ReLU()),
    "convolution, max pooling": lambda: chain(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.MaxPool2d(2, 1)),
    "smooth": lambda: chain(nn.Flatten(), nn.Linear(16, 4), nn.SiLU(), nn.Linear(4, 3), nn.Tanh()),
}


@pytest.mark.parametrize("name", SMALL)
def test_ascent_on_single_entries_of_the_gradient_stays_in_the_box(name: str) -> None:
    """10,000 points around an image, the best of which climb on, well beyond the middle of some box."""
    torch.manual_seed(1)
    model, x, threat = SMALL[name]().double(), torch.rand(1, 1, 4, 4).double(), ThreatModel("linf", "0.1")
    model(x)  # the last layer finds its size
    box, y = gradient_bounds(model, x, Y[:1], threat), Y[:1]
    points = threat.project(x + threat.radius * (2 * torch.rand(POINTS, 1, 4, 4).double() - 1), x)
    found = gradients(model, points, y.expand(POINTS)).flatten(1)
    assert overshoot(box, found.view(POINTS, 1, 1, 4, 4)) <= 1e-13
    entries = torch.arange(16)
    climbed = 0.0
    for side in (1, -1):
        best = points[(side * found).argmax(0)]  # for each entry its own image
        for _ in range(20):
            best.requires_grad_()
            (first,) = torch.autograd.grad(model(best)[:, int(y)].sum(), best, create_graph=True)
            value = side * first.flatten(1)[entries, entries]
            bound = side * (box.upper if side == 1 else box.lower).flatten()
            assert (value <= bound + 1e-13).all()
            climbed = max(climbed, (1 - (bound - value) / box.radius.flatten()).amax().item())
            # A piecewise linear network has no second derivative: it climbs along random directions instead.
            ascent = torch.autograd.grad(value.sum(), best)[0] if name == "smooth" else torch.randn_like(best)
            best = threat.project(best.detach() + 0.02 * ascent.sign(), x.expand_as(best))
    assert climbed > 0.5, (climbed, "the search is too weak to contradict a bound")


@pytest.mark.parametrize("name", NETWORKS)
def test_at_radius_zero_the_box_is_the_gradient(name: str) -> None:
    model, x = made(name), images()
    box, exact = gradient_bounds(model, x, Y, ThreatModel("linf", 0)), gradients(model, x, Y)
    size = exact.abs().amax()
    assert overshoot(box, exact) <= 1e-15 * size
    torch.testing.assert_close(box.lower, box.upper, rtol=0, atol=1e-7 * float(size))


def test_linear_networks_have_one_gradient() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_var.uniform_(0.5, 2)
    layers = [Normalize([0.4, 0.5], [0.2, 0.3], 2), nn.Conv2d(2, 3, 3), norm, nn.AvgPool2d(2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(27, 5)).double().eval()
    x = images()
    box = gradient_bounds(model, x, Y, ThreatModel("linf", "0.5"))
    torch.testing.assert_close(box.lower, gradients(model, x, Y), rtol=0, atol=1e-12)
    torch.testing.assert_close(box.upper, gradients(model, x, Y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["SmallCNN", "overlapping max pooling", "GELU", "PreActResNet"])
def test_boxes_grow_with_the_radius(name: str) -> None:
    model, x = made(name), images()
    boxes = [gradient_bounds(model, x, Y, ThreatModel("linf", eps)) for eps in (0, "0.005", "0.02", "0.1")]
    for inner, outer in pairwise(boxes):
        slack = 1e-9 * float(outer.size.amax())
        assert (outer.lower <= inner.lower + slack).all() and (outer.upper >= inner.upper - slack).all()
        assert (outer.upper - outer.lower).sum() > (inner.upper - inner.lower).sum()


def two_units() -> nn.Module:
    """z = (x₁ + x₂, x₁ − x₂ + 3), f = (ReLU(z₁) − 2·ReLU(z₂), ReLU(z₂))."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        model[1].bias.copy_(torch.tensor([0.0, 3.0]))
        model[3].weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 1.0]]))
    return model


@torch.no_grad()
def box_by_hand(a: list[float], upper: list[float]) -> tuple[list[float], list[float]]:
    model = two_units()
    network = trace(model, torch.zeros(1, 1, 2).double()).network()
    images_of = Box(torch.tensor([[[[-1.0, -1.0]]]]).double(), torch.tensor([[[upper]]]).double())
    box = gradient_box(interval_bounds(network, images_of), torch.tensor([a]).double())
    return box.lower.flatten().tolist(), box.upper.flatten().tolist()


def test_a_case_worked_by_hand() -> None:
    # On [−1, 1]²: z₁ ∈ [−2, 2] has slope [0, 1], z₂ ∈ [1, 5] slope 1. ∇f₀ = s₁·(1, 1) − 2·(1, −1).
    assert box_by_hand([1, 0], [1, 1]) == ([-2, 2], [-1, 3])
    assert box_by_hand([0, 1], [1, 1]) == ([1, -1], [1, -1])
    # f₀ − f₁ = ReLU(z₁) − 3·ReLU(z₂): the weights are folded first, so that f₁ cancels nothing twice.
    assert box_by_hand([1, -1], [1, 1]) == ([-3, 3], [-2, 4])
    # On [−1, 1] × [−1, 4] z₂ ∈ [−2, 5] has slope [0, 1], too.
    assert box_by_hand([1, 0], [1, 4]) == ([-2, 0], [1, 3])
    # At a preactivation of exactly 0 both slopes are inside: x₁ = x₂ = −1 … −1 + 2 touches z₁ = 0 from below.
    assert box_by_hand([1, 0], [1, -1]) == ([-2, 2], [-1, 3])


@torch.no_grad()
def test_a_window_hands_its_gradient_to_whom_the_intervals_allow() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 1, bias=False)).double()
    model[2].weight.fill_(-3.0)
    network = trace(model, torch.zeros(1, 2, 2).double()).network()

    def box(upper: list[list[float]]) -> tuple[list[float], list[float]]:
        corners = Box(torch.tensor([[[[0.0, 0.5], [0.1, 0.2]]]]).double(), torch.tensor([[upper]]).double())
        found = gradient_box(interval_bounds(network, corners), torch.ones(1, 1).double())
        return found.lower.flatten().tolist(), found.upper.flatten().tolist()

    assert box([[0.3, 0.7], [0.45, 0.4]]) == ([0, -3, 0, 0], [0, -3, 0, 0])
    assert box([[0.6, 0.7], [0.45, 0.5]]) == ([-3, -3, 0, -3], [0, 0, 0, 0]), "a tie may go to the last one"


def test_the_slope_of_a_smooth_function_is_bounded_by_its_extremes() -> None:
    x = torch.zeros(4, 1, 1, 1).double()
    centres = torch.tensor([-2.5, -0.5, 1.5, 2.4]).double().view(4, 1, 1, 1)
    for layer in (nn.Sigmoid(), nn.Tanh(), nn.SiLU(), nn.GELU(), nn.Softplus(3.0, 25.0)):
        model = nn.Sequential(layer, nn.Flatten()).double()
        network = trace(model, x[0]).network()
        with torch.no_grad():
            box = gradient_box(interval_bounds(network, Box(centres - 1, centres + 1)), torch.ones(4, 1).double())
        grid = (centres + torch.linspace(-1, 1, 20001).double()).flatten().view(-1, 1, 1, 1)
        slopes = gradients(model, grid, torch.zeros(len(grid), dtype=torch.int64)).view(4, -1)
        torch.testing.assert_close(box.lower.flatten(), slopes.amin(1), rtol=0, atol=1e-6)
        torch.testing.assert_close(box.upper.flatten(), slopes.amax(1), rtol=0, atol=1e-6)
        # In float32 the rounding of the slope itself is allowed for: the box of a point holds the slope of float64.
        points = torch.linspace(-6, 6, 1000).view(-1, 1, 1, 1)
        with torch.no_grad():
            box = gradient_box(
                interval_bounds(trace(model.float(), points[0]).network(), Box(points, points)),
                points.new_ones(1000, 1),
            )
        exact = gradients(model.double(), points.double(), torch.zeros(1000, dtype=torch.int64))
        assert overshoot(Box(box.lower.double(), box.upper.double()), exact) <= 0


def test_a_softplus_that_is_cut_off_where_it_bends_is_refused() -> None:
    """PyTorch goes over to the identity where β·z exceeds the threshold, whatever β is."""
    with pytest.raises(UnsupportedOperation, match="Softplus with a threshold"):
        trace(nn.Sequential(nn.Flatten(), nn.Softplus(10.0, 2.0)), torch.zeros(1, 1, 2))


@pytest.mark.parametrize("name", ["SmallCNN", "ResNet", "overlapping max pooling"])
def test_bounds_in_float32_hold_the_gradients_of_float64(name: str) -> None:
    """At radius 0 nothing but the allowance for rounding keeps the true gradient inside."""
    model, x = made(name, torch.float32), images(8, torch.float32)
    y = torch.arange(8) % 5
    exact = gradients(copy.deepcopy(model).double(), x.double(), y)
    box = gradient_bounds(model, x, y, ThreatModel("linf", 0), precision="float32")
    assert box.lower.dtype == torch.float32
    assert overshoot(Box(box.lower.double(), box.upper.double()), exact) <= 0
    with torch.no_grad():
        network = trace(model, x[0]).network()
        bounds = interval_bounds(network, Box(x, x), rounding=True)
        bare = gradient_box(Bounds(network, bounds.boxes, {}), nn.functional.one_hot(y, 5).float())
    assert overshoot(Box(bare.lower.double(), bare.upper.double()), exact) > 0, "without it the test would not fail"


def test_margins_batches_and_modes() -> None:
    model, x = made("SmallCNN"), images(5)
    y, rival = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([1, 2, 3, 4, 0])
    margin = nn.functional.one_hot(y, 5) - nn.functional.one_hot(rival, 5)
    whole = gradient_bounds(model, x, margin, THREAT)
    exact = gradients(model, x, y) - gradients(model, x, rival)
    assert overshoot(whole, exact) <= 1e-13
    own, others = gradient_bounds(model, x, y, THREAT), gradient_bounds(model, x, rival, THREAT)
    assert (whole.upper <= own.upper - others.lower + 1e-9).all(), "no wider than the difference of both boxes"
    model.train()
    with torch.inference_mode():
        parts = gradient_bounds(model, x.clone(), margin, THREAT, batch_size=2)
    assert model.training
    torch.testing.assert_close(parts.lower, whole.lower)
    torch.testing.assert_close(parts.upper, whole.upper)


def test_what_cannot_be_bounded_is_refused_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images()
    with pytest.raises(UnsupportedOperation, match=r"Hardswish, at 'middle'"):
        gradient_bounds(Around(nn.Hardswish(), 144).double(), x, Y, THREAT)
    with pytest.raises(UserError, match=r"threat.norm must be one of 'linf', got 'l2'"):
        gradient_bounds(made("tanh"), x, Y, ThreatModel("l2", 1))
    with pytest.raises(UserError, match="preactivations must be one of 'ibp', 'crown', got 'zonotope'"):
        gradient_bounds(made("tanh"), x, Y, THREAT, preactivations="zonotope")
    monkeypatch.setattr(LeakyReLU, "gradient", Operation.gradient)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double()
    with pytest.raises(UnsupportedOperation, match=r"gradients is known for LeakyReLU, at '1'"):
        gradient_bounds(model, x, Y, THREAT)


def test_who_is_certainly_on_top() -> None:
    least = torch.tensor([[5.0, 3.0, 2.0, 0.0, 0.0]])
    greatest = torch.tensor([[6.0, 4.0, 3.0, 1.0, 0.0]])
    assert certainly_on_top(least, greatest, 1).tolist() == [[True, False, False, False, False]]
    # The third may tie with the second: then the order would decide.
    assert certainly_on_top(least, greatest, 2).tolist() == [[True, False, False, False, False]]
    assert certainly_on_top(least, greatest, 3).tolist() == [[True, True, True, False, False]]
    assert certainly_on_top(least, greatest, 5).tolist() == [[True, True, True, False, False]], "no relevance, no top"
    assert not certainly_on_top(least, greatest.index_fill(1, torch.tensor([3]), torch.nan), 3).any()


def test_bounds_of_the_relevance_add_up_channels() -> None:
    box = Box(torch.tensor([-1.0, 2.0, -3.0]).view(1, 3, 1, 1), torch.tensor([2.0, 3.0, -1.0]).view(1, 3, 1, 1))
    least, greatest = relevance_bounds(box)
    assert (least.item(), greatest.item()) == (0 + 2 + 1, 2 + 3 + 3)


@pytest.fixture
def probe(digits: tuple[Tensor, Tensor], digits_model: nn.Module) -> Probe:
    """A radius at which some of the gradient is certain, and some is not."""
    threat = ThreatModel("linf", "0.0005")
    return Probe(
        model=digits_model,
        x=digits[0][:40],
        y=digits[1][:40],
        index=torch.arange(40),
        method=Gradient(),
        threat=threat,
        attack=PGD(threat=threat, steps=5),
        map_attack=TopKAttack(threat=threat, attribution=Gradient(), steps=20, share=0.1),
    )


def test_no_attack_contradicts_a_certificate(probe: Probe) -> None:
    sign, top, width = CertifiedSign(), CertifiedTopK(), CertifiedWidth()
    certain, on_top, widths = (metric.per_sample(probe) for metric in (sign, top, width))
    assert 0.05 < on_top.mean() < 0.95 and 0.05 < certain.mean() < 0.95
    for versus in ("attacked", "adversarial", "neighbour"):
        assert (on_top <= TopKIntersection(versus=versus).per_sample(probe)).all()
        moved = getattr(probe, f"{versus}_map").double()
        change = (moved - probe.map).abs().flatten(1).sum(1) / probe.map.double().abs().flatten(1).sum(1)
        assert (change <= widths + 1e-5).all()
        kept = probe.map.double().abs().where(moved.sign() == probe.map.sign(), 0).flatten(1).sum(1)
        assert (certain <= kept / probe.map.double().abs().flatten(1).sum(1) + 1e-6).all()
    box = top.box(probe)
    assert (top.box(probe).lower.data_ptr() == box.lower.data_ptr()) and len(probe.shared) > 0, "bounded once for all"
    dear = [metric(preactivations="crown").per_sample(probe).mean() for metric in (CertifiedSign, CertifiedTopK)]
    assert dear[0] >= certain.mean() and dear[1] >= on_top.mean()


def test_at_radius_zero_everything_is_certain(probe: Probe) -> None:
    still = replace(probe, threat=ThreatModel("linf", 0), attack=None, map_attack=None, shared={})
    assert CertifiedWidth().per_sample(still).max() < 1e-6
    assert (CertifiedSign().per_sample(still) > 0.999).all()
    assert (CertifiedTopK().per_sample(still) == 1).all()


def test_a_run_that_cannot_be_bounded_is_refused_before_it_starts(probe: Probe) -> None:
    metrics = {"certified_width": CertifiedWidth()}
    check_needs(metrics, probe)
    foreign = replace(probe, model=nn.Sequential(probe.model, nn.Softmax(1)), shared={})
    with pytest.raises(UserError, match=r"metrics=certified_width needs bounds .* Softmax, at '1' of the model"):
        check_needs(metrics, foreign)
    l2 = replace(probe, threat=ThreatModel("l2", 1), attack=None, map_attack=None, shared={})
    with pytest.raises(UserError, match=r"metrics=certified_width needs an Linf threat model instead of l2 ε=1"):
        check_needs(metrics, l2)
    _, card = answer([l2], {}, metrics, split="test", with_references=False)
    assert "certified_width (needs an Linf threat model" in card["protocol"]["left out"]

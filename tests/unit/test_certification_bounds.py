"""Bounds of networks: sound at every node, tight in the order that theory says, exact where they must be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.certification import (
    Bounds,
    Box,
    UnsupportedOperation,
    Walk,
    batch_statistics,
    crown_bounds,
    input_box,
    interval_bounds,
    interval_lower_bound,
    lower_bound,
    margins,
    trace,
)
from xrobust.certification.alpha_crown import optimised_bounds
from xrobust.certification.operation import PulledWindows
from xrobust.certification.optimise import Ascent, optimised_lower_bound
from xrobust.certification.specification import units
from xrobust.certification.windows import Windows
from xrobust.errors import UserError
from xrobust.models import CNN7, DMSmall, FullyConnected, LeNet, MinMax, Normalize, PreActResNet, ResNet, SmallCNN
from xrobust.models.one_lipschitz import SLLConv2d, SLLLinear
from xrobust.threat import ThreatModel

DATA = {"num_classes": 5, "in_channels": 2, "image_size": 16, "mean": [0.4, 0.5], "std": [0.2, 0.3]}
THREAT = ThreatModel("linf", "0.03")
POINTS = 5_000  # around each of two images


class Zoo(nn.Module):
    """A small network around one middle part: (N, 4, 8, 8) → anything."""

    def __init__(self, middle: Callable[[Tensor], Tensor] | nn.Module, size: int):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, 2, 1)
        self.middle = middle
        self.head = nn.Linear(size, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(torch.relu(self.stem(x))).view(x.shape[0], -1))


class Branches(nn.Module):
    """Sums, differences, products with constants, concatenation, and the same value used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)
        self.register_buffer("factor", torch.tensor([0.5, -1.0, 2.0, 0.1]).view(1, 4, 1, 1))

    def forward(self, h: Tensor) -> Tensor:
        left, right = torch.relu(self.left(h)), self.right(h)
        mixed = torch.cat([left - right, (1 - h) * self.factor, 2 + right / 3], dim=1)
        return (mixed + mixed).transpose(2, 3).permute(0, 2, 3, 1).mean(1)


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms with statistics and weights of their own, of both signs."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, std=0.3)
    return model


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "strided, dilated, grouped convolution": lambda: Zoo(nn.Conv2d(4, 6, 3, (2, 1), (2, 1), (2, 1), 2), 6 * 4 * 8),
    "convolution with padding=same": lambda: Zoo(nn.Conv2d(4, 3, 3, padding="same", bias=False), 3 * 64),
    "batch norm": lambda: Zoo(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), 4 * 64),
    "leaky ReLU": lambda: Zoo(nn.Sequential(nn.Conv2d(4, 4, 3), nn.LeakyReLU(0.2)), 4 * 36),
    "sigmoid": lambda: Zoo(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sigmoid()), 4 * 36),
    "tanh": lambda: Zoo(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Tanh()), 4 * 36),
    "SiLU": lambda: Zoo(nn.Sequential(nn.Conv2d(4, 4, 3), nn.SiLU()), 4 * 36),
    "GELU": lambda: Zoo(nn.Sequential(nn.Conv2d(4, 4, 3), nn.GELU()), 4 * 36),
    "softplus": lambda: Zoo(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Softplus(beta=10, threshold=20)), 4 * 36),
    "average pooling": lambda: Zoo(nn.AvgPool2d(3, 2, 1), 4 * 16),
    "adaptive average pooling": lambda: Zoo(nn.AdaptiveAvgPool2d(3), 4 * 9),
    "max pooling": lambda: Zoo(nn.MaxPool2d(2), 4 * 16),
    "overlapping max pooling": lambda: Zoo(nn.Sequential(nn.Conv2d(4, 4, 3), nn.MaxPool2d(3, 2, 1)), 4 * 9),
    "MinMax": lambda: Zoo(nn.Sequential(nn.Conv2d(4, 4, 3), MinMax()), 4 * 36),
    "SLL": lambda: Zoo(nn.Sequential(SLLConv2d(4, 3), nn.Flatten(), SLLLinear(256, 5)), 256),
    "branches": lambda: Zoo(Branches(), 96),
    "dropout": lambda: Zoo(nn.Dropout(0.5), 256),
    "fully connected": lambda: FullyConnected(**DATA, hidden=(20, 15)),
    "SmallCNN": lambda: SmallCNN(**DATA, width=4, hidden=20),
    "DM-small": lambda: DMSmall(**DATA, width=0.25),
    "CNN7": lambda: CNN7(**DATA, width=0.05),
    "LeNet": lambda: LeNet(**DATA),
    "ResNet": lambda: ResNet(**DATA, blocks=(1, 1), width=4),
    "PreActResNet": lambda: PreActResNet(**DATA, blocks=(1, 1), widths=(4, 8), stem=4, activation="silu"),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    return with_statistics(LAYERS[name]()).to(dtype).eval()


def images(count: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 2, 16, 16, dtype=dtype)


@torch.no_grad()
def all_bounds(model: nn.Module, x: Tensor, threat: ThreatModel = THREAT) -> tuple[Bounds, Bounds]:
    network = trace(model, x[0]).network()
    interval = interval_bounds(network, input_box(threat, x), rounding=True)
    return interval, crown_bounds(interval)


def forms(model: nn.Module, x: Tensor) -> Tensor:
    return margins(model(x).argmax(1), 5, x.dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_every_node_stays_in_its_bounds_and_every_margin_above_its_own(name: str) -> None:
    model, x = made(name), images()
    interval, crown = all_bounds(model, x)
    y = model(x).argmax(1)
    a = margins(y, 5, x.dtype)
    with torch.no_grad():
        bounds = [
            interval_lower_bound(interval, a),
            lower_bound(interval, a),
            lower_bound(crown, a),
            lower_bound(crown, a, walk=Walk("parallel")),
        ]
    best = torch.stack([*bounds, optimised_lower_bound(crown, a, Ascent(steps=3)).lower]).amax(0)
    box, network = interval.boxes[0], interval.network
    attacked = PGD(threat=THREAT, steps=5, loss="margin")(model, x.repeat(20, 1, 1, 1), y.repeat(20))
    with torch.no_grad():
        for start in range(0, POINTS + 1, 500):
            # Corners, points inside, and at the end adversarial examples.
            share = torch.rand(500, 1, *x.shape[1:], dtype=x.dtype)
            share = share.round() if start % 1000 else share
            points = (box.lower + share * (box.upper - box.lower)) if start < POINTS else attacked.view(20, *x.shape)
            count = len(points)
            values = network.values(points.flatten(0, 1))
            for node, value in enumerate(values):
                value = value.unflatten(0, (count, len(x)))
                for known in (interval, crown):
                    slack = 1e-12 * known.boxes[node].size.amax()  # of the points' own rounding
                    assert (value >= known.boxes[node].lower - slack).all(), (name, node)
                    assert (value <= known.boxes[node].upper + slack).all(), (name, node)
            reached = torch.einsum("nsk,pnk->pns", a, values[-1].unflatten(0, (count, len(x)))).amin(0)
            assert (best <= reached + 1e-9).all(), name


@pytest.mark.parametrize("name", LAYERS)
def test_the_graph_computes_what_the_network_computes(name: str) -> None:
    model, x = made(name), images(4)
    torch.testing.assert_close(trace(model, x[0]).network().values(x)[-1], model(x))


@pytest.mark.parametrize("name", LAYERS)
def test_bounds_meet_at_radius_zero(name: str) -> None:
    model, x = made(name), images()
    interval, crown = all_bounds(model, x, ThreatModel("linf", 0))
    a = forms(model, x)
    with torch.no_grad():
        exact = torch.einsum("nsk,nk->ns", a, model(x))
        for found in (interval_lower_bound(interval, a), lower_bound(interval, a), lower_bound(crown, a)):
            torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-7)
            assert (found <= exact + 1e-12).all()


@pytest.mark.parametrize("name", ["fully connected", "SmallCNN", "DM-small", "leaky ReLU"])
def test_tightness_rises_from_intervals_to_optimised_slopes(name: str) -> None:
    model, x = made(name), images(6)
    interval, crown = all_bounds(model, x)
    a = forms(model, x)
    with torch.no_grad():
        ibp, crown_ibp, full = interval_lower_bound(interval, a), lower_bound(interval, a), lower_bound(crown, a)
        refined = optimised_bounds(crown, Ascent(steps=5), 2**22)
    alpha = optimised_lower_bound(crown, a, Ascent(steps=10)).lower
    assert (full <= alpha).all() and (full < alpha).any()
    averages = [float(each.mean()) for each in (ibp, crown_ibp, full, alpha)]
    assert averages == sorted(averages) and len(set(averages)) == 4
    for node, box in crown.boxes.items():
        assert (box.lower >= interval.boxes[node].lower).all() and (box.upper <= interval.boxes[node].upper).all()
        assert (refined.boxes[node].lower >= box.lower).all() and (refined.boxes[node].upper <= box.upper).all()


def test_linear_networks_are_bounded_exactly() -> None:
    model = nn.Sequential(
        Normalize([0.4, 0.5], [0.2, 0.3], 2), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(588, 5)
    )
    model, x = with_statistics(model).double().eval(), images()
    y = torch.tensor([1, 3])
    a = margins(y, 5, x.dtype)
    interval, _ = all_bounds(model, x)
    for sample in range(2):
        for form in range(4):
            x_in = x[sample : sample + 1].clone().requires_grad_()
            value = (model(x_in)[0] * a[sample, form]).sum()
            (gradient,) = torch.autograd.grad(value, x_in)
            low, high = interval.boxes[0].lower[sample], interval.boxes[0].upper[sample]
            exact = value + (gradient[0] * torch.where(gradient[0] > 0, low, high)).sum() - (gradient * x_in).sum()
            with torch.no_grad():
                for found in (lower_bound(interval, a), interval_lower_bound(interval, a)):
                    assert found[sample, form].item() == pytest.approx(exact.item(), abs=1e-9)
                    assert found[sample, form] <= exact


def by_hand() -> tuple[nn.Module, Box]:
    """z = (x₁ + x₂, x₁ − x₂), logits = (ReLU(z₁) − ReLU(z₂), 0) on [−1, 1] × [−1, 2]."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        model[3].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    return model, Box(torch.tensor([[[[-1.0, -1.0]]]]).double(), torch.tensor([[[[1.0, 2.0]]]]).double())


@torch.no_grad()
def test_intervals_and_linear_bounds_of_a_case_worked_by_hand() -> None:
    model, box = by_hand()
    network = trace(model, torch.zeros(1, 1, 2).double()).network()
    bounds = interval_bounds(network, box)
    a = torch.tensor([[[1.0, -1.0]]]).double()
    assert bounds.boxes[2].lower.tolist() == [[-2, -3]] and bounds.boxes[2].upper.tolist() == [[3, 2]]
    assert bounds.boxes[3].lower.tolist() == [[0, 0]] and bounds.boxes[3].upper.tolist() == [[3, 2]]
    assert interval_lower_bound(bounds, a).item() == -2
    # ReLU(z₁) ≥ z₁ (3 > 2: slope 1); ReLU(z₂) ≤ 0.4 z₂ + 1.2. So f ≥ 0.6 x₁ + 1.4 x₂ − 1.2, least at (−1, −1).
    assert lower_bound(bounds, a).item() == pytest.approx(-0.6 - 1.4 - 1.2)
    # Parallel: ReLU(z₁) ≥ 0.6 z₁, so f ≥ 0.2 x₁ + x₂ − 1.2.
    assert lower_bound(bounds, a, walk=Walk("parallel")).item() == pytest.approx(-0.2 - 1 - 1.2)
    # Slope 0 for z₁: f ≥ −0.4 x₁ + 0.4 x₂ − 1.2, least at (1, −1): the best of all slopes.
    best = optimised_lower_bound(bounds, a, Ascent(steps=100, decay=1.0))
    assert best.lower.item() == pytest.approx(-2.0, abs=1e-6)
    # In the half z₂ ≤ 0 the network is ReLU(z₁) ≥ 0; the multiplier of the constraint finds more than the box alone.
    signs = {2: torch.tensor([[0.0, -1.0]]).double()}
    half = bounds.replaced({2: Box(bounds.boxes[2].lower, torch.tensor([[3.0, 0.0]]).double())})
    assert optimised_lower_bound(half, a, Ascent(steps=100), signs=signs).lower.item() == pytest.approx(0, abs=1e-6)


def test_max_pooling_is_exact_where_one_input_dominates() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 2)).double()
    network = trace(model, torch.zeros(1, 2, 2).double()).network()
    lower = torch.tensor([[[[0.0, 0.5], [0.1, 0.2]]]]).double()
    a = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]).double()
    for upper_of_best, exact in ((0.7, True), (0.52, True)):
        upper = torch.tensor([[[[0.3, upper_of_best], [0.45, 0.4]]]]).double()
        bounds = interval_bounds(network, Box(lower, upper))
        with torch.no_grad():
            found = lower_bound(bounds, a)
            ends = torch.stack([model[2](torch.tensor([v]).double()) for v in (0.5, upper_of_best)])
        expected = torch.einsum("sk,ek->se", a[0], ends).amin(1)
        torch.testing.assert_close(found[0], expected) if exact else None


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardswish()), ["Hardswish", "'middle.1'"]),
        (nn.MaxPool2d(3, 2, ceil_mode=True), ["MaxPool2d", "ceil_mode", "'middle'"]),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), ["Conv2d", "padding_mode=reflect", "'middle'"]),
        (nn.GELU("tanh"), ["GELU", "approximate=tanh"]),
        (lambda h: h * h, ["mul", "two factors"]),
        (lambda h: h / (1 + h), ["truediv", "divisor"]),
        (lambda h: h.mean(0, keepdim=True) + 0 * h, ["mean", "across images"]),
        (lambda h: torch.exp(h), ["exp"]),
        (lambda h: torch.softmax(h, 1), ["softmax"]),
        (nn.LeakyReLU(-0.5), ["LeakyReLU", "negative_slope=-0.5"]),
    ],
)
def test_an_operation_without_a_bound_is_refused_with_its_place(middle, words: list[str]) -> None:
    with pytest.raises(UnsupportedOperation) as error:
        trace(Zoo(middle, 256).eval(), images(dtype=torch.float32)[0])
    assert all(word in str(error.value) for word in words), error.value


class Subclassed(nn.ReLU):
    """Not what its base class computes."""

    def forward(self, input: Tensor) -> Tensor:
        return input.square()


class Branching(nn.Module):
    """Its path depends on its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Branching(), "cannot be traced"),
        (Subclassed(), "square"),
    ],
)
def test_what_cannot_be_traced_faithfully_is_refused(model: nn.Module, words: str) -> None:
    with pytest.raises(UserError, match=words):
        trace(model, torch.rand(1, 2, 2))


def test_bounds_can_be_differentiated_to_the_weights() -> None:
    model, x = LAYERS["CNN7"]().double().train(), images(4)
    graph, y = trace(model, x[0]), torch.tensor([0, 1, 2, 3])
    a, box = margins(y, 5, x.dtype), input_box(THREAT, x)

    def losses() -> tuple[Tensor, Tensor]:
        with batch_statistics(model) as statistics:
            model(x)
        bounds = interval_bounds(graph.network(statistics), box, all_nodes=False)
        return interval_lower_bound(bounds, a).sum(), lower_bound(bounds, a).sum()

    for which in range(2):
        model.zero_grad()
        losses()[which].backward()
        for parameter in model.parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all()
        weight = model.layers.conv2.weight
        direction, step = torch.randn_like(weight), 1e-7
        expected = (weight.grad * direction).sum().item()
        with torch.no_grad():
            weight += step * direction
            up = losses()[which].item()
            weight -= 2 * step * direction
            down = losses()[which].item()
            weight += step * direction
        assert (up - down) / (2 * step) == pytest.approx(expected, rel=1e-3)


def test_statistics_of_the_clean_pass_serve_the_bounds_and_bounds_move_none() -> None:
    model, x = LAYERS["CNN7"]().double().train(), images(6)
    graph = trace(model, x[0])
    with batch_statistics(model) as statistics:
        logits = model(x)
    assert len(statistics) == 6
    before = [buffer.clone() for buffer in model.buffers()]
    network = graph.network(statistics)
    torch.testing.assert_close(network.values(x)[-1], logits)
    interval_bounds(network, input_box(THREAT, x))
    assert all(torch.equal(now, then) for now, then in zip(model.buffers(), before, strict=True))
    with batch_statistics(model.eval()) as statistics:
        model(x)
    assert not statistics


def test_a_graph_follows_the_weights_of_its_module() -> None:
    model, x = made("branches"), images()
    graph = trace(model, x[0])
    with torch.no_grad():
        model.head.weight.mul_(3)
    model.float()
    x = x.float()
    torch.testing.assert_close(graph.network().values(x)[-1], model(x))
    assert not [name for name in vars(model) if name.startswith("_tensor_constant")]


def test_results_depend_neither_on_the_chunk_nor_on_the_batch() -> None:
    model, x = made("SmallCNN"), images(5)
    network = trace(model, x[0]).network()
    a = forms(model, x)
    with torch.no_grad():
        whole = interval_bounds(network, input_box(THREAT, x), rounding=True)
        large, small = crown_bounds(whole), crown_bounds(whole, chunk=1)
        single = crown_bounds(interval_bounds(network, input_box(THREAT, x[2:3]), rounding=True))
    for node, box in large.boxes.items():
        torch.testing.assert_close(small.boxes[node].lower, box.lower)
        torch.testing.assert_close(single.boxes[node].lower, box.lower[2:3])
    both = optimised_lower_bound(large, a, Ascent(steps=5)).lower
    torch.testing.assert_close(optimised_lower_bound(single, a[2:3], Ascent(steps=5)).lower, both[2:3])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rounding", [True, False])
def test_windows_give_the_bounds_and_gradients_of_dense_forms(name: str, rounding: bool) -> None:
    model, x = made(name), images()
    network = trace(model, x[0]).network()
    bounds = interval_bounds(network, input_box(THREAT, x), rounding=rounding)
    windowed = 0
    for node in (node for node in network.preactivations if node and len(network.shapes[node]) == 3):
        shape = network.shapes[node]
        index = torch.stack([torch.randperm(shape.numel())[:7] for _ in x])
        single = units(index, shape, x.dtype)
        local = Windows.units(index, shape, x.dtype).both_signs()
        dense = torch.cat([single, -single], 1)
        torch.testing.assert_close(local.dense(), dense, rtol=0, atol=0)
        found = [lower_bound(bounds, a, node, walk=walk) for a in (local, dense) for walk in (None, Walk("parallel"))]
        for inside, full in zip(found[:2], found[2:], strict=True):
            torch.testing.assert_close(inside, full, rtol=0, atol=1e-10)
        weights = [p for p in model.parameters() if p.requires_grad]
        slopes = [torch.autograd.grad(each.sum(), weights, allow_unused=True, retain_graph=True) for each in found]
        for inside, full in zip(slopes[0], slopes[2], strict=True):
            if full is not None:
                torch.testing.assert_close(inside, full, rtol=0, atol=1e-8)
        boxes = tuple(bounds.boxes[source] for source in network.inputs(node))
        windowed += isinstance(network.operation(node).pull_windows(local, boxes, "adaptive"), PulledWindows)
    assert windowed or name not in {"CNN7", "DM-small", "SmallCNN", "batch norm", "SiLU"}


@pytest.mark.parametrize("name", ["SmallCNN", "ResNet", "SiLU"])
def test_rounding_in_float32_never_lifts_a_bound_above_that_of_float64(name: str) -> None:
    """At radius 0 the bound must not exceed the value in exact arithmetic, for which float64 stands."""
    model, x = made(name, torch.float32), images(20, torch.float32)
    a = margins(model(x).argmax(1), 5)
    lifted = False
    for rounding in (True, False):
        network = trace(model, x[0]).network()
        with torch.no_grad():
            bounds = interval_bounds(network, input_box(ThreatModel("linf", 0), x), rounding=rounding)
            found = torch.stack([lower_bound(bounds, a), interval_lower_bound(bounds, a)]).double()
            exact = torch.einsum("nsk,nk->ns", a.double(), made_double(model)(x.double()))
        lifted = bool((found > exact + 1e-13).any())
        assert lifted is not rounding
    assert lifted  # without the allowance some bound is too high: the test can fail


def made_double(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model).double()


def test_the_input_box_is_that_of_the_threat_model_rounded_outwards() -> None:
    x = torch.tensor([0.0, 0.3, 0.55, 1.0]).view(1, 1, 2, 2)
    box = input_box(ThreatModel("linf", "8/255"), x)
    assert box.lower.min() == 0 and box.upper.max() == 1
    exact = 8 / 255
    assert (box.lower.double() <= (x.double() - exact).clamp(min=0)).all()
    assert (box.upper.double() >= (x.double() + exact).clamp(max=1)).all()
    assert (box.upper.double() - x.double() <= exact + 2e-7).all()
    assert torch.equal(input_box(ThreatModel("linf", 0), x).lower, x)
    attacked = ThreatModel("linf", "8/255").random_start(x, torch.Generator().manual_seed(0))
    assert box.contains(attacked).all()


def test_margins_are_differences_to_all_other_classes() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0], [4.0, 3.0, 9.0]])
    a = margins(torch.tensor([1, 0]), 3)
    assert torch.einsum("nsk,nk->ns", a, logits).tolist() == [[4, 3], [1, -5]]


class Constants(nn.Module):
    """Slopes and constants that float32 does not represent."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu((x.flatten(1) - 0.7) * 0.1 / 0.3 + 0.01, 0.3)


def test_constants_in_the_code_keep_their_precision() -> None:
    x = torch.rand(20, 1, 1, 3, dtype=torch.float64)
    network = trace(Constants(), x[0]).network()
    bounds = interval_bounds(network, input_box(ThreatModel("linf", 0), x))
    a = margins(torch.arange(20) % 3, 3, x.dtype)
    exact = torch.einsum("nsk,nk->ns", a, Constants()(x))
    torch.testing.assert_close(network.values(x)[-1], Constants()(x), rtol=0, atol=1e-15)
    torch.testing.assert_close(lower_bound(bounds, a), exact, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5, 2)])
def test_recorded_statistics_are_those_of_the_batch_with_their_gradients(shape: tuple[int, ...]) -> None:
    norm = nn.BatchNorm1d(3) if len(shape) == 2 else nn.BatchNorm2d(3)

    def statistics(z: Tensor) -> tuple[Tensor, Tensor]:
        with batch_statistics(norm) as recorded:
            norm(z)
        (found,) = recorded.values()
        return found

    norm.double()
    z = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    variance, mean = torch.var_mean(z, [0, *range(2, z.dim())], correction=0)
    for found, known in zip(statistics(z), (mean, variance), strict=True):
        torch.testing.assert_close(found, known, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(statistics, (z,))
    assert statistics(torch.full(shape, 2.0, dtype=torch.float64))[1].tolist() == [0, 0, 0]

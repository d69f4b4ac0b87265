"""Operator norms: proven bounds against dense singular values, estimates for training, constants of whole networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Size, Tensor, nn

from xrobust.certification import PowerIteration, UnsupportedOperation, slopes, trace
from xrobust.certification.lipschitz import eigenvalue
from xrobust.certification.lipschitz.constants import constants, move
from xrobust.certification.lipschitz.margins import pairwise_constants, proven
from xrobust.certification.lipschitz.operator_norm import norm_bound
from xrobust.certification.rules.convolution import Conv2d
from xrobust.certification.rules.linear import Linear
from xrobust.certification.rules.relu import LeakyReLU
from xrobust.models import AOLCNN, SLLCNN, CayleyCNN, LiResNet, MinMax, Normalize, SmallCNN
from xrobust.models.liresnet import LinearResidual
from xrobust.models.one_lipschitz import AOLConv2d, AOLLinear, CayleyConv2d, CayleyLinear, SLLConv2d, SLLLinear

# in, out, kernel, stride, padding, dilation, groups, height, width
WINDOWS = [
    (1, 4, 4, 2, 1, 1, 1, 9, 9),
    (2, 3, 3, 1, 1, 1, 1, 7, 5),
    (3, 2, 5, 3, 2, 1, 1, 11, 11),
    (4, 6, 4, 2, 1, 1, 2, 9, 6),
    (2, 4, 3, 1, 2, 2, 1, 8, 8),
    (3, 5, 3, 2, 0, 1, 1, 8, 9),
    (4, 4, 3, 2, 3, 2, 4, 7, 7),
    (2, 4, 2, 2, 0, 1, 1, 7, 7),
    (2, 2, 1, 1, 0, 1, 1, 4, 4),
]


def convolution(window: tuple[int, ...]) -> Conv2d:
    inputs, outputs, kernel, stride, padding, dilation, groups, height, width = window
    weight = torch.randn(outputs, inputs // groups, kernel, kernel, dtype=torch.float64)
    pairs = [(each, each) for each in (stride, padding, dilation)]
    return Conv2d(weight, None, *pairs, groups, Size((inputs, height, width)))


def dense(operation: Conv2d | Linear, shape: Size) -> Tensor:
    """The operator as a matrix."""
    return operation.linear(torch.eye(shape.numel(), dtype=torch.float64).view(-1, *shape)).flatten(1).T


def largest(matrix: Tensor) -> float:
    return float(torch.linalg.svdvals(matrix)[0])


@pytest.mark.parametrize("window", WINDOWS)
def test_a_convolution_s_bound_is_never_below_its_largest_singular_value_and_within_a_millionth(window) -> None:
    operation = convolution(window)
    true = largest(dense(operation, operation.input_shape))
    bound = norm_bound(operation, operation.input_shape, 4096)
    assert true <= bound <= true * (1 + 1e-6)


@pytest.mark.parametrize("window", WINDOWS)
def test_the_bound_on_a_torus_is_never_below_the_largest_singular_value(window) -> None:
    operation = convolution(window)
    true = largest(dense(operation, operation.input_shape))
    assert true <= norm_bound(operation, operation.input_shape, 1) <= 1.5 * true


def test_the_bound_on_a_torus_is_exact_where_patches_do_not_overlap() -> None:
    operation = convolution((3, 5, 2, 2, 0, 1, 1, 8, 8))
    true = largest(operation.weight.flatten(1))
    assert true <= norm_bound(operation, operation.input_shape, 1) <= true * (1 + 1e-6)


def test_the_norm_is_that_of_the_convolution_and_not_of_its_reshaped_kernel() -> None:
    operation = convolution((2, 3, 3, 1, 1, 1, 1, 8, 8))
    assert norm_bound(operation, operation.input_shape, 4096) > 1.1 * largest(operation.weight.flatten(1))


@pytest.mark.parametrize("shape", [(7, 30), (30, 7), (1, 5)])
def test_a_linear_layer_s_bound_is_its_largest_singular_value(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, dtype=torch.float64)
    bound = norm_bound(Linear(weight, None), Size((shape[1],)), 1)
    assert largest(weight) <= bound <= largest(weight) * (1 + 1e-6)


@pytest.mark.parametrize(
    "spectrum", [[1.0] * 40, [1.0, 1 - 1e-9, 1 - 1e-7, *[0.5] * 37], [3.0] + [0.0] * 39, [0.0] * 40]
)
def test_degenerate_spectra_are_bounded_tightly(spectrum: list[float]) -> None:
    basis = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64)).Q
    bound = norm_bound(Linear(basis * torch.tensor(spectrum, dtype=torch.float64), None), Size((40,)), 1)
    assert max(spectrum) <= bound <= max(spectrum) * (1 + 1e-6) + 1e-100


def test_the_bound_holds_where_the_guess_has_not_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigenvalue, "KRYLOV", 1)
    operation = convolution((2, 3, 3, 1, 1, 1, 1, 9, 9))
    true = largest(dense(operation, operation.input_shape))
    assert true <= norm_bound(operation, operation.input_shape, 4096) <= 3 * true


def test_weights_that_are_not_finite_give_no_bound() -> None:
    assert torch.tensor(norm_bound(Linear(torch.full((2, 2), torch.nan).double(), None), Size((2,)), 1)).isnan()


def test_bounds_follow_the_weights() -> None:
    operation = convolution(WINDOWS[0])
    twice = replace(operation, weight=2 * operation.weight)
    first, second = (norm_bound(each, each.input_shape, 4096) for each in (operation, twice))
    assert second == pytest.approx(2 * first, rel=1e-6)
    smaller = replace(operation, input_shape=Size((1, 5, 5)))
    assert norm_bound(smaller, smaller.input_shape, 4096) < first


@pytest.mark.parametrize("window", WINDOWS)
def test_power_iteration_comes_from_below_and_carries_its_vectors(window) -> None:
    operation = convolution(window)
    true = largest(dense(operation, operation.input_shape))
    norms = PowerIteration(iterations=1, start=5)
    estimates = [float(norms(1, operation, operation.input_shape)) for _ in range(300)]
    assert all(a <= b * (1 + 1e-12) for a, b in zip(estimates, [*estimates[1:], true], strict=True))
    assert estimates[-1] == pytest.approx(true, rel=1e-3)


def test_the_estimate_has_the_derivative_of_the_norm() -> None:
    operation = convolution(WINDOWS[1])
    weight = operation.weight.requires_grad_()
    norms = PowerIteration(start=3000)
    norms(1, operation, operation.input_shape).backward()
    direction, step = torch.randn_like(weight), 1e-6
    ends = [
        largest(dense(replace(operation, weight=weight.detach() + sign * step * direction), operation.input_shape))
        for sign in (1, -1)
    ]
    assert float((weight.grad * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


def test_estimates_are_in_float32_under_autocast_and_for_bfloat16_weights() -> None:
    operation = convolution(WINDOWS[0])
    half = replace(operation, weight=operation.weight.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = PowerIteration()(1, half, half.input_shape)
    assert found.dtype == torch.float32
    exact = largest(dense(replace(operation, weight=half.weight.double()), half.input_shape))
    assert float(found) == pytest.approx(exact, rel=1e-4)


def test_weights_of_zero_leave_the_vector_to_go_on_from() -> None:
    operation = convolution(WINDOWS[0])
    norms = PowerIteration()
    assert float(norms(1, replace(operation, weight=0 * operation.weight), operation.input_shape)) == 0
    assert float(norms(1, operation, operation.input_shape)) > 0


class Zoo(nn.Module):
    """A small network around one middle part."""

    def __init__(self, middle: Callable[[Tensor], Tensor] | nn.Module, size: int):
        super().__init__()
        self.stem, self.middle, self.head = nn.Conv2d(2, 4, 3, 1, 1), middle, nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(x)).reshape(x.shape[0], -1))


class Block(nn.Module):
    """Sums, differences and concatenations of branches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, 1, 1)

    def forward(self, h: Tensor) -> Tensor:
        moved = torch.relu(self.conv(h))
        return torch.cat([h + moved, 2 * h - moved.permute(0, 1, 3, 2)], 1)


def with_statistics(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    nn.init.normal_(norm.weight)
    norm.running_var.uniform_(0.5, 2)
    return norm


SIDE = 8
MIDDLES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ReLU": (lambda: nn.ReLU(), 4 * 64),
    "leaky ReLU": (lambda: nn.LeakyReLU(0.3), 4 * 64),
    "MinMax": (lambda: MinMax(), 4 * 64),
    "sigmoid": (lambda: nn.Sigmoid(), 4 * 64),
    "tanh": (lambda: nn.Tanh(), 4 * 64),
    "SiLU": (lambda: nn.SiLU(), 4 * 64),
    "GELU": (lambda: nn.GELU(), 4 * 64),
    "softplus": (lambda: nn.Softplus(beta=4), 4 * 64),
    "batch norm": (lambda: with_statistics(nn.BatchNorm2d(4)), 4 * 64),
    "normalisation": (lambda: Normalize([0.1] * 4, [0.2, 0.3, 0.4, 0.5], 4), 4 * 64),
    "average pooling": (lambda: nn.AvgPool2d(2), 4 * 16),
    "overlapping average pooling": (lambda: nn.AvgPool2d(3, 2, 1), 4 * 16),
    "adaptive average pooling": (lambda: nn.AdaptiveAvgPool2d(3), 4 * 9),
    "max pooling": (lambda: nn.MaxPool2d(2), 4 * 16),
    "overlapping max pooling": (lambda: nn.MaxPool2d(3, 2, 1), 4 * 16),
    "branches": (lambda: Block(), 8 * 64),
    "AOL": (lambda: AOLConv2d(4, 6, 3, 2, 1), 6 * 16),
    "Cayley": (lambda: CayleyConv2d(4, 6, 2), 6 * 16),
    "linear residual": (lambda: LinearResidual(4, 0.5), 4 * 64),
    "SLL": (lambda: nn.Sequential(SLLConv2d(4, 6), nn.Flatten(), SLLLinear(256, 20)), 256),
    "AOL and Cayley, fully connected": (
        lambda: nn.Sequential(nn.Flatten(), AOLLinear(256, 20), CayleyLinear(20, 30)),
        30,
    ),
}


def made(name: str) -> nn.Module:
    middle, size = MIDDLES[name]
    model = Zoo(middle(), size).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def steepest(model: nn.Module, x: Tensor) -> float:
    """The largest spectral norm of the Jacobian that gradient ascent from several images finds."""
    x = x.clone()
    best = 0.0
    for _ in range(6):
        jacobian = torch.autograd.functional.jacobian(lambda z: model(z).sum(0), x).flatten(2).transpose(0, 1)
        _, s, v = torch.linalg.svd(jacobian, full_matrices=False)
        best = max(best, float(s.amax()))
        x = x + 0.5 * v[:, 0].view_as(x)  # along the direction in which it is steepest
    return best


@pytest.mark.parametrize("name", MIDDLES)
def test_no_slope_that_search_finds_exceeds_the_constant(name: str) -> None:
    model, x = made(name), torch.rand(8, 2, SIDE, SIDE, dtype=torch.float64)
    found = steepest(model, x)
    with torch.no_grad():
        network = trace(model, x[0]).network()
        constant = float(constants(network, proven(), network.output)[-1])
        apart = x + 3 * torch.randn_like(x)
        secant = (model(x) - model(apart)).norm(dim=1) / (x - apart).flatten(1).norm(dim=1)
    assert max(found, float(secant.amax())) <= constant
    assert found > 0.02 * constant  # the search has found something, and the constant is no absurdity


@pytest.mark.parametrize(
    ("middle", "factor"),
    [
        (nn.AvgPool2d(2), 1 / 2),
        (nn.AvgPool2d(4), 1 / 4),
        (nn.MaxPool2d(2), 1),
        (nn.MaxPool2d(3, 2, 1), 2),
        (nn.MaxPool2d(3, 1, 1), 3),
        (nn.MaxPool2d(2, 2, 0, 3), 1),
        (nn.Sigmoid(), 1 / 4),
        (nn.Flatten(), 1),
        (Normalize([0.5] * 2, [0.5, 0.25], 2), 4),
    ],
)
def test_factors_of_single_operations(middle: nn.Module, factor: float) -> None:
    network = trace(nn.Sequential(middle, nn.Flatten()).double(), torch.rand(2, 8, 8).double()).network()
    assert float(constants(network, proven(), network.output)[-1]) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("model", [AOLCNN, CayleyCNN, SLLCNN])
@pytest.mark.parametrize("scale", [0.1, 5.0])
def test_one_lipschitz_networks_are_so_whatever_their_parameters(model, scale: float) -> None:
    network = model(num_classes=4, in_channels=1, image_size=9, width=4, hidden=12).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=scale)
    x = torch.rand(6, 1, 9, 9, dtype=torch.float64)
    last = network.layers.head.weight.detach()
    true = (last[0] - last[1]).norm()
    assert float(slopes(network, x[0])[0, 1]) <= float(true) * (1 + 1e-6)
    body = nn.Sequential(*list(network.layers)[:-1])
    assert 0.001 < steepest(body, x) <= 1 + 1e-9


def test_cayley_transforms_have_orthonormal_rows_or_columns() -> None:
    for shape in ((6, 6), (4, 9), (9, 4)):
        layer = CayleyLinear(*shape).double()
        nn.init.normal_(layer.weight)
        singular = torch.linalg.svdvals(layer.effective_weight())
        torch.testing.assert_close(singular, torch.ones_like(singular))


@pytest.mark.parametrize("layer", [AOLConv2d(4, 4, 3, padding=1), CayleyConv2d(4, 4, 2), CayleyLinear(4, 4)])
def test_parametrised_layers_stay_orthogonal_under_autocast(layer: nn.Module) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = layer.effective_weight()
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, layer.effective_weight())


def test_a_linear_residual_block_is_one_convolution() -> None:
    block, x = LinearResidual(4, 0.5).double(), torch.rand(2, 4, 6, 6).double()
    nn.init.normal_(block.weight)
    nn.init.normal_(block.gamma)
    added = nn.functional.conv2d(x, 0.5 * block.gamma * block.weight, block.bias, padding=1)
    torch.testing.assert_close(block(x), x + added)


def test_liresnet_has_rows_of_norm_one_at_its_end() -> None:
    model = LiResNet(num_classes=3, in_channels=1, image_size=16, width=4, depth=3, patch=4, hidden=8).double()
    x = torch.rand(4, 1, 16, 16).double()
    body = nn.Sequential(*list(model.layers)[:-1])
    features = slopes(body, x[0])[0, 1] / 2**0.5  # K of the features: its unit vectors are √2 apart
    assert steepest(body, x) <= float(features)
    rows = torch.nn.functional.normalize(model.layers.head.weight.detach())
    torch.testing.assert_close(slopes(model, x[0]), features * torch.cdist(rows, rows), rtol=1e-9, atol=1e-12)


def test_pairs_of_a_linear_model_have_the_distance_of_their_rows() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 4))
    rows = model[1].weight.detach().double()
    torch.testing.assert_close(slopes(model, torch.rand(2, 2, 2)), torch.cdist(rows, rows), rtol=1e-9, atol=1e-12)


def test_no_gradient_of_a_difference_of_logits_exceeds_its_slope(digits_model: nn.Module, digits) -> None:
    x = digits[0][:50].clone().requires_grad_()
    bound = slopes(digits_model, x[0])
    logits = digits_model(x)
    for i, j in ((0, 1), (3, 8), (9, 4)):
        (gradient,) = torch.autograd.grad((logits[:, i] - logits[:, j]).sum(), x, retain_graph=True)
        assert 0 < float(gradient.flatten(1).norm(dim=1).amax()) <= float(bound[i, j])
        assert bound[i, j] == bound[j, i] and bound[i, i] == 0


def test_the_norm_is_shared_by_nothing_but_the_same_layer() -> None:
    model = SmallCNN(num_classes=10, in_channels=1, image_size=8, width=4, hidden=20).double()
    network = trace(model, torch.rand(1, 8, 8).double()).network()
    norms = PowerIteration(start=2000)
    estimated, bound = pairwise_constants(network, norms), pairwise_constants(network, proven())
    torch.testing.assert_close(estimated, bound, rtol=1e-4, atol=1e-12)
    assert len(norms.vectors) == 3 and len({vector.shape for vector in norms.vectors.values()}) == 3


class Special(LeakyReLU):
    """Not what its base class computes."""


@pytest.mark.parametrize(
    ("middle", "words"),
    [(nn.Hardswish(), ["Hardswish", "'middle'"]), (lambda h: h * h, ["mul", "two factors"])],
)
def test_an_operation_without_a_constant_is_refused_with_its_place(middle, words: list[str]) -> None:
    with pytest.raises(UnsupportedOperation) as error:
        slopes(Zoo(middle, 256), torch.rand(2, 8, 8))
    assert all(word in str(error.value) for word in words)


def test_an_operation_of_a_type_of_its_own_is_not_taken_for_its_base() -> None:
    network = trace(Zoo(nn.ReLU(), 256).double(), torch.rand(2, 8, 8).double()).network()
    special = replace(network, operations=(network.operations[0], Special(), *network.operations[2:]))
    with pytest.raises(UnsupportedOperation, match="Special, at 'middle'"):
        constants(special, proven(), special.output)
    assert type(network.operations[1]) in move.registry

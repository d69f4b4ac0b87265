"""Attributions by backward rules: guided backpropagation, deconvnet, DeepLIFT."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attributions import (
    Constant,
    Deconvnet,
    DeepLift,
    FixedImages,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    UniformImages,
)
from xrobust.attributions.graph import LinearReader
from xrobust.errors import UserError
from xrobust.models import LeNet, PreActResNet, ResNet, SmallCNN
from xrobust.randomness import SampleStreams


def images(count: int = 6, channels: int = 3, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, channels, size, size, generator=generator, dtype=torch.float64)
    return x, torch.randint(5, (count,), generator=generator)


def logit(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).gather(1, y[:, None])[:, 0]


def shaken(model: nn.Module) -> nn.Module:
    """With batch-norm statistics and shifts that are not those of the beginning."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias.data):
                values.normal_(std=0.3)
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 2)
    return model.double().eval()


class Residual(nn.Module):
    """A block in the manner of torchvision: one ReLU, in place, for two places, and a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.norm2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        out += x
        return self.relu(out)


def residual_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 3), Residual(), nn.Flatten(), nn.Linear(3 * 14 * 14, 5))


class Functional(nn.Module):
    """ReLU as a module, then as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 14 * 14, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.features(x) - 0.1))


class TestReLURules:
    """A signal r at a ReLU of h becomes [h > 0]·max(r, 0), or max(r, 0)."""

    def test_by_hand(self):
        first = torch.tensor([[1.0, 0.0], [0.0, -1.0], [1.0, 1.0]])
        model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
        model[1].weight.data, model[3].weight.data = first, torch.tensor([[2.0, 3.0, -5.0]])
        x = torch.tensor([0.5, 0.25]).view(1, 1, 1, 2)
        # The units are open, closed, open; the signals at them 2, 3, −5.
        assert Gradient()(model, x, 0).flatten().tolist() == [2 - 5, -5]
        assert GuidedBackprop()(model, x, 0).flatten().tolist() == [2, 0]
        assert Deconvnet()(model, x, 0).flatten().tolist() == [2, -3]

    @pytest.mark.parametrize(("ours", "theirs"), [(GuidedBackprop, "GuidedBackprop"), (Deconvnet, "Deconvolution")])
    @pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
    def test_equals_captum(self, ours, theirs, digits, digits_model):
        captum = pytest.importorskip("captum.attr")
        x, y = digits[0][:20], digits[1][:20]
        expected = getattr(captum, theirs)(digits_model).attribute(x.clone().requires_grad_(), target=y)
        found = ours()(digits_model, x, y)
        torch.testing.assert_close(found, expected.detach())
        assert not torch.allclose(found, Gradient()(digits_model, x, y), atol=0.1 * found.abs().max().item())

    @pytest.mark.parametrize("method", [GuidedBackprop(), Deconvnet()], ids=lambda method: type(method).__name__)
    def test_relus_in_place_and_used_twice(self, method):
        x, y = images()
        model = shaken(residual_model())
        found = method(model, x, y)
        assert model[1].relu.inplace
        model[1].relu.inplace = False
        torch.testing.assert_close(method(model, x, y), found)
        assert not model[1].relu.inplace

    @pytest.mark.parametrize("method", [GuidedBackprop(), Deconvnet()], ids=lambda method: type(method).__name__)
    def test_a_network_whose_relus_cannot_be_reached_is_refused(self, method):
        x, y = images()
        with pytest.raises(UserError, match="the model has none"):
            method(SmallCNN(num_classes=5, in_channels=3, image_size=16, activation="softplus"), x.float(), y)
        with pytest.raises(UserError, match=r"but the model itself \(Functional\) applies ReLU as a function"):
            method(Functional().double(), x, y)


class TestLinearReader:
    """What DeepLIFT and LRP take for linear."""

    @pytest.mark.parametrize(
        ("function", "found"),
        [
            (lambda h: F.avg_pool2d(2 * h.flip(1) + 1, 2).flatten(1) / 3, None),
            (lambda h: F.conv2d(h, torch.ones(1, 3, 2, 2)).mean((2, 3)) @ torch.ones(1, 4), None),
            (lambda h: h * h, "Mul"),
            (lambda h: torch.ones(()) / (1 + h), "Div"),
            (lambda h: h.relu(), "Relu"),
            (lambda h: torch.where(h > 0, h, 0), "Where"),
            (lambda h: F.batch_norm(h, None, None, training=True), "NativeBatchNorm"),
            (lambda h: F.max_pool2d(h, 2), "MaxPool2DWithIndices"),
            (lambda h: h.flatten(1) @ h.flatten(1).T, "Mm"),
        ],
    )
    def test_finds_what_is_not_linear(self, function, found):
        h = torch.rand(2, 3, 4, 4).requires_grad_()
        reader = LinearReader()
        reader.follow(h)
        assert reader.nonlinear(function(h)) == found

    def test_what_does_not_depend_on_the_source_may_be_anything(self):
        h, other = torch.rand(3).requires_grad_(), torch.rand(3).requires_grad_()
        reader = LinearReader()
        reader.follow(h)
        assert reader.nonlinear(h * other.exp()) is None
        assert reader.nonlinear(h.exp() * other) == "Exp"


MODELS = {
    "relu and max pooling": lambda: LeNet(num_classes=5, in_channels=3, image_size=16),
    "softplus": lambda: SmallCNN(num_classes=5, in_channels=3, image_size=16, activation="softplus"),
    "gelu": lambda: SmallCNN(num_classes=5, in_channels=3, image_size=16, activation="gelu"),
    "normalised": lambda: ResNet(
        num_classes=5, in_channels=3, image_size=16, width=4, mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.3]
    ),
    "pre-activation": lambda: PreActResNet(
        num_classes=5, in_channels=3, image_size=16, widths=(4, 8, 8, 8), stem=4, activation="silu"
    ),
    "in place": residual_model,
}


class TestDeepLift:
    @pytest.mark.parametrize("baseline", [Constant(0.0), UniformImages()], ids=["black", "noise"])
    @pytest.mark.parametrize("name", MODELS)
    def test_is_complete(self, name, baseline):
        model, (x, y) = shaken(MODELS[name]()), images()
        start = baseline(x) if isinstance(baseline, Constant) else baseline.draw(x, SampleStreams(3, range(6)))
        found = DeepLift(baseline=baseline, seed=3)(model, x, y).sum((1, 2, 3))
        torch.testing.assert_close(found, logit(model, x, y) - logit(model, start, y), rtol=1e-6, atol=1e-9)

    def test_by_hand_with_max_pooling(self):
        """Δy goes to the maximum of x where y rises, to that of x' where it falls; both lie elsewhere here."""
        model = nn.Sequential(nn.MaxPool2d((1, 3)), nn.Flatten(), nn.Linear(1, 1, bias=False)).double()
        model[2].weight.data.fill_(2)
        low, high = (torch.tensor(v, dtype=torch.float64).view(1, 1, 1, 3) for v in ([0.1, 0.5, 0.2], [0.3, 0.0, 0.9]))
        rise = DeepLift(baseline=FixedImages(low))(model, high, 0).flatten()
        fall = DeepLift(baseline=FixedImages(high))(model, low, 0).flatten()
        torch.testing.assert_close(rise, torch.tensor([0, 0, 2 * 0.4], dtype=torch.float64))
        torch.testing.assert_close(fall, torch.tensor([0, 0, -2 * 0.4], dtype=torch.float64))

    @pytest.mark.parametrize("start", [0.0, 0.3])
    def test_equals_captum(self, start):
        captum = pytest.importorskip("captum.attr")
        # A convolution between pooling and ReLU: captum 0.9 overlooks the one of two rules that meet at a tensor.
        layers = [nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(216, 7)]
        model, (x, y) = nn.Sequential(*layers, nn.ReLU(), nn.Linear(7, 5)).double(), images()
        with pytest.warns(UserWarning, match="Setting forward, backward hooks"):
            expected = captum.DeepLift(model).attribute(x.clone().requires_grad_(), baselines=start, target=y)
        torch.testing.assert_close(DeepLift(baseline=Constant(start))(model, x, y), expected.detach())

    def test_next_to_the_baseline_it_is_the_gradient(self):
        """Δy/Δh is 0/0 there, the derivative its limit."""
        model, (x, y) = shaken(MODELS["softplus"]()), images()
        step = 1e-9 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        found = DeepLift(baseline=FixedImages(x - step))(model, x, y)
        torch.testing.assert_close(found, (x - (x - step)) * Gradient()(model, x, y), rtol=1e-4, atol=0)

    def test_of_one_unit_it_is_integrated_gradients(self):
        model, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.Tanh()).double(), images()
        expected = IntegratedGradients(steps=64)(model, x, y)
        torch.testing.assert_close(DeepLift()(model, x, y), expected)

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (Functional(), r"no rule for Relu in the model itself \(Functional\)"),
            (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(784, 5)), r"in 1 \(GroupN"),
            (nn.Sequential(nn.Flatten(), nn.Linear(768, 6), nn.GLU()), r"no rule for Glu in 2 \(GLU\)"),
        ],
    )
    def test_a_layer_without_a_rule_is_named(self, model, message):
        x, y = images()
        with pytest.raises(UserError, match=message):
            DeepLift()(model.double(), x, y % 3)

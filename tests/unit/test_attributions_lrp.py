"""Layer-wise relevance propagation: rules by hand, captum, conservation."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attributions import LRP, InputXGradient
from xrobust.errors import UserError
from xrobust.models import LeNet, PreActResNet, ResNet, SmallCNN

RULES = {
    "epsilon": LRP(gamma=0.0, epsilon=1e-12),
    "gamma": LRP(gamma=0.25, epsilon=1e-12),
    "z_plus": LRP(gamma=math.inf, dense_gamma=math.inf, epsilon=1e-12),
    "flat": LRP(first="flat", epsilon=1e-12),
    "w_squared": LRP(first="w_squared", epsilon=1e-12),
    "z_box": LRP(first="z_box", epsilon=1e-12),
}
rules = pytest.mark.parametrize("rule", RULES)


def images(count: int = 6, channels: int = 3, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, channels, size, size, generator=generator, dtype=torch.float64)
    return x, torch.randint(5, (count,), generator=generator)


def logit(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).gather(1, y[:, None])[:, 0]


def without_biases(model: nn.Module) -> nn.Module:
    """Convolutions and dense layers without bias, batch norms that scale only."""
    for name, values in model.named_parameters():
        if name.endswith("bias"):
            values.data.zero_()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(-1, 2)
    return model.double().eval()


class Flattened(nn.Module):
    """LeNet's kind of network in modules that captum's LRP knows."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5, bias=bias), nn.Conv2d(6, 8, 3, padding=1, bias=bias)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.max, self.mean = nn.MaxPool2d(2), nn.AvgPool2d(2)
        self.linear1, self.linear2 = nn.Linear(72, 10, bias=bias), nn.Linear(10, 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mean(self.relu2(self.conv2(self.max(self.relu1(self.conv1(x))))))
        return self.linear2(self.relu3(self.linear1(x.flatten(1))))


class TestAgainstCaptum:
    @staticmethod
    def captum(model: nn.Module, x: Tensor, y: Tensor, **rule_of: object) -> Tensor:
        lrp = pytest.importorskip("captum.attr").LRP
        for name, module in model.named_children():
            if name in rule_of:
                module.rule = rule_of[name]
        return lrp(model).attribute(x.clone().requires_grad_(), target=y).detach()

    @pytest.mark.parametrize("epsilon", [1e-9, 0.1])
    def test_epsilon_rule(self, epsilon):
        captum = pytest.importorskip("captum.attr._utils.lrp_rules")
        model, (x, y) = Flattened(bias=True).double(), images()
        layers = ("conv1", "conv2", "linear1", "linear2")
        expected = self.captum(model, x, y, **{name: captum.EpsilonRule(epsilon) for name in layers})
        torch.testing.assert_close(LRP(gamma=0.0, epsilon=epsilon)(model, x, y), expected, rtol=1e-5, atol=1e-8)

    def test_gamma_rule(self):
        captum = pytest.importorskip("captum.attr._utils.lrp_rules")
        model, (x, y) = Flattened(bias=False).double(), images()
        expected = self.captum(model, x, y, **{name: captum.GammaRule(0.25) for name in ("conv1", "conv2")})
        torch.testing.assert_close(LRP(gamma=0.25, epsilon=1e-9)(model, x, y), expected, rtol=1e-5, atol=1e-10)

    def test_z_plus_rule(self):
        captum = pytest.importorskip("captum.attr._utils.lrp_rules")
        model, (x, y) = Flattened(bias=False).double(), images()
        expected = self.captum(model, x, y, **{name: captum.Alpha1_Beta0_Rule() for name in ("conv1", "conv2")})
        torch.testing.assert_close(LRP(gamma=math.inf, epsilon=1e-9)(model, x, y), expected, rtol=1e-5, atol=1e-10)


class TestByHand:
    """One dense layer, whose inputs are the pixels of a normalised image."""

    @pytest.fixture
    def case(self):
        model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 5)).double().eval()
        model[0].running_mean.fill_(0.4)
        model[0].running_var.fill_(0.25)
        x, y = images(channels=1, size=2)
        h = (x - 0.4) / (0.25 + model[0].eps) ** 0.5
        return model, x, y, h.flatten(1), model[2].weight.detach()[y], model[2].bias.detach()[y]

    def test_normalisation_passes_the_relevance_of_its_output(self, case):
        model, x, y, h, w, _ = case
        found = LRP(gamma=0.0, dense_gamma=0.0, epsilon=0.0)(model, x, y)
        torch.testing.assert_close(found.flatten(1), h * w)

    @pytest.mark.parametrize("gamma", [0.5, math.inf])
    def test_gamma_enhances_what_has_the_sign_of_the_sum(self, case, gamma):
        model, x, y, h, w, b = case
        z = h * w
        total = z.sum(1, keepdim=True) + b[:, None]
        enhanced = z * (z * total > 0)
        enhanced_bias = b[:, None] * (b[:, None] * total > 0)
        shares = enhanced if gamma == math.inf else z + gamma * enhanced
        bias = enhanced_bias if gamma == math.inf else b[:, None] + gamma * enhanced_bias
        expected = shares / (shares.sum(1, keepdim=True) + bias) * total
        found = LRP(dense_gamma=gamma, epsilon=0.0)(model, x, y).flatten(1)
        torch.testing.assert_close(found, expected)
        assert (total < 0).any() and (total > 0).any() and (h < 0).any()

    def test_first_layer_rules(self, case):
        model, x, y, h, w, _ = case
        total = logit(model, x, y)[:, None]
        low, high = -0.8 + 0 * h, 1.2 + 0 * h
        contributions = {
            "flat": torch.ones_like(w),
            "w_squared": w.square(),
            "z_box": h * w - low * w.clamp(min=0) - high * w.clamp(max=0),
        }
        for rule, n in contributions.items():
            found = LRP(first=rule, epsilon=0.0)(model, x, y).flatten(1)
            torch.testing.assert_close(found, n / n.sum(1, keepdim=True) * total, rtol=1e-4, atol=1e-5)


MODELS = {
    "max pooling": lambda: LeNet(num_classes=5, in_channels=3, image_size=16),
    "residual": lambda: ResNet(num_classes=5, in_channels=3, image_size=16, width=4),
    "pre-activation": lambda: PreActResNet(
        num_classes=5, in_channels=3, image_size=16, blocks=(1, 1), widths=(4, 8), stem=4
    ),
    "smooth": lambda: SmallCNN(num_classes=5, in_channels=3, image_size=16, activation="gelu"),
    "normalised": lambda: SmallCNN(
        num_classes=5, in_channels=3, image_size=16, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.2]
    ),
}


class TestConservation:
    """Without biases, and for ε → 0, the relevance of all pixels sums to the logit."""

    @rules
    @pytest.mark.parametrize("name", MODELS)
    def test_of_relevance(self, name, rule):
        model, (x, y) = without_biases(MODELS[name]()), images()
        found = RULES[rule](model, x, y)
        torch.testing.assert_close(found.sum((1, 2, 3)), logit(model, x, y), rtol=1e-6, atol=1e-8)
        assert found.isfinite().all()

    def test_a_bias_absorbs_relevance(self):
        model, (x, y) = SmallCNN(num_classes=5, in_channels=3, image_size=16).double(), images()
        gap = LRP()(model, x, y).sum((1, 2, 3)) - logit(model, x, y)
        assert (gap.abs() > 1e-4).all()

    def test_a_black_image_keeps_relevance_under_first_layer_rules_only(self):
        model, (x, y) = SmallCNN(num_classes=5, in_channels=3, image_size=16).double(), images()
        assert (LRP()(model, 0 * x, y) == 0).all()
        assert (LRP(first="flat")(model, 0 * x, y) != 0).all()


class TestEquivalences:
    def test_epsilon_rule_of_a_bias_free_relu_network_is_input_times_gradient(self):
        model, (x, y) = without_biases(MODELS["residual"]()), images()
        expected = InputXGradient()(model, x, y)
        torch.testing.assert_close(RULES["epsilon"](model, x, y), expected, rtol=1e-6, atol=1e-9)

    @rules
    def test_batch_norm_after_a_convolution_is_part_of_it(self, rule):
        layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, groups=2, bias=False)]
        model = nn.Sequential(*layers, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.running_mean, module.bias.data, module.weight.data):
                    values.normal_()
        folded = nn.Sequential(
            *(nn.utils.fuse_conv_bn_eval(model[i], model[i + 1]) if i in (0, 3) else model[i] for i in (0, 2, 3, 5)),
            model[6],
            model[7],
        )
        x, y = images()
        torch.testing.assert_close(RULES[rule](model, x, y), RULES[rule](folded, x, y))

    def test_a_parametrised_layer_is_that_with_the_weight_it_computes(self):
        model, (x, y) = SmallCNN(num_classes=5, in_channels=3, image_size=16).double().eval(), images()
        expected = LRP()(model, x, y)
        for layer in (model.layers.conv2, model.layers.linear1):
            nn.utils.parametrizations.weight_norm(layer)
        torch.testing.assert_close(LRP()(model, x, y), expected)


class Gated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class BesideItself(nn.Module):
    """The image reaches the logits past the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(768, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((x + self.conv(x)).flatten(1))


class Enlarged(nn.Module):
    """The first layer sees mixtures of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 20 * 20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.interpolate(x, (20, 20), mode="bilinear").flatten(1))


class TestRefusals:
    @pytest.mark.parametrize(
        ("middle", "message"),
        [
            (nn.GroupNorm(2, 4), r"no rule for middle \(GroupNorm\)"),
            (Standardised(4, 4, 1), r"no rule for middle \(Standardised\)"),
            (nn.ConvTranspose2d(4, 4, 1), r"no rule for middle \(ConvTranspose2d\)"),
            (Gated(), r"no rule for Sigmoid in middle \(Gated\)"),
            (nn.BatchNorm2d(4, track_running_stats=False, affine=False), "no rule for NativeBatchNorm in middle"),
        ],
    )
    def test_a_layer_without_a_rule_is_named(self, middle, message):
        layers = OrderedDict(first=nn.Conv2d(3, 4, 3), middle=middle, flatten=nn.Flatten(), last=nn.Linear(784, 5))
        x, y = images()
        with pytest.raises(UserError, match=message):
            LRP()(nn.Sequential(layers).double(), x, y)

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (BesideItself(), "one linear layer sees the image"),
            (Enlarged(), "sees each pixel once"),
            (nn.Sequential(nn.ReLU(), nn.Flatten()), "this one has none"),
        ],
    )
    def test_an_image_that_is_not_seen_pixel_by_pixel_is_refused(self, model, message):
        x, y = images()
        with pytest.raises(UserError, match=message):
            LRP()(model.double(), x, y)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"gamma": -1.0}, "LRP.gamma must be at least 0, got -1"),
            ({"epsilon": float("nan")}, "LRP.epsilon must be at least 0, got nan"),
            ({"first": "zbox"}, "LRP.first must be one of None, 'z_box', 'flat', 'w_squared', got 'zbox'"),
        ],
    )
    def test_a_value_outside_its_range_is_named(self, given, message):
        with pytest.raises(UserError, match=message):
            LRP(**given)

"""Axiom metrics: exactly kept by methods that keep them, visibly broken by methods that do not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from xrobust.attributions import (
    LRP,
    Attribution,
    Constant,
    DeepLift,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
)
from xrobust.errors import UserError
from xrobust.metrics import CompletenessGap, DummyFeature, ImplementationInvariance, Linearity, Probe
from xrobust.metrics.dummy_feature import Cropped
from xrobust.metrics.implementation_invariance import Rewritten
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "8/255")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_probe(model: nn.Module, x: Tensor, y: Tensor | None = None, **changes) -> Probe:
    y = torch.arange(len(x)) % 2 if y is None else y
    values = {"index": torch.arange(len(x)), "method": Gradient(), "threat": THREAT, **changes}
    return Probe(model=model, x=x, y=y, **values)


def dense(bias: bool, classes: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(48, 20, bias=bias), nn.ReLU(), nn.Linear(20, classes, bias=bias)
    ).double()


@dataclass(frozen=True, kw_only=True)
class Flat(Attribution):
    """The same relevance everywhere."""

    value: float = 1.0

    def attribute(self, model, x, score, create_graph, generator):
        return torch.full_like(x, self.value)


@dataclass(frozen=True, kw_only=True)
class Magnitude(Gradient):
    """|∇f|, which is not linear."""

    def attribute(self, model, x, score, create_graph, generator):
        return super().attribute(model, x, score, create_graph, generator).abs()


class TestCompletenessGap:
    def test_input_times_gradient_is_complete_without_biases_only(self):
        x = random(4, 3, 4, 4)
        without, with_bias = (
            CompletenessGap().per_sample(make_probe(dense(bias), x, method=InputXGradient())) for bias in (False, True)
        )
        assert (without < 1e-12).all() and (with_bias > 1e-3).all()

    def test_integrated_gradients_are_complete_for_their_own_baseline_only(self):
        grey = Constant(0.5)
        method = IntegratedGradients(baseline=grey, steps=200)
        probe = make_probe(dense(True), random(4, 3, 4, 4), method=method)
        assert (CompletenessGap(grey).per_sample(probe) < 0.02).all()
        assert (CompletenessGap().per_sample(probe) > 0.02).any()

    def test_is_the_gap_over_the_difference(self):
        weights = random(2, 48)
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2, bias=False)).double()
        model[1].weight.data.copy_(weights)
        x = random(4, 3, 4, 4)
        probe = make_probe(model, x, method=Flat(value=2.0))
        rise = (weights[probe.y] * x.flatten(1)).sum(1)
        torch.testing.assert_close(CompletenessGap().per_sample(probe), (96 - rise).abs() / rise)
        assert CompletenessGap().per_sample(make_probe(model, x, method=Flat(value=0.0))).tolist() == [1] * 4

    def test_an_image_with_the_baseline_s_logit_is_undefined(self):
        x = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]).double()
        assert CompletenessGap().per_sample(make_probe(dense(True), x)).isnan().tolist() == [True, False]


class TestImplementationInvariance:
    @pytest.mark.parametrize("classes", [1, 2, 3, 10])
    def test_the_rewritten_model_is_the_same_function_with_the_same_gradient(self, classes):
        model, x = dense(True, classes), random(20, 3, 4, 4)
        rewritten = Rewritten(model, classes, x)
        torch.testing.assert_close(rewritten(x), model(x), rtol=0, atol=1e-14)
        for target in range(classes):
            maps = [Gradient()(f, x, target) for f in (rewritten, model)]
            torch.testing.assert_close(*maps, rtol=0, atol=1e-14)

    def test_no_module_of_the_rewritten_model_runs_twice(self):
        rewritten, calls = Rewritten(dense(True), 3, random(1)), []
        leaves = [module for module in rewritten.modules() if not any(module.children())]
        for module in leaves:
            module.register_forward_hook(lambda module, *_: calls.append(module))
        rewritten(random(2, 3, 4, 4))
        assert len(calls) == len(leaves) == len(set(calls)) == 10

    @pytest.mark.parametrize(
        "method", [Gradient(), InputXGradient(), IntegratedGradients(steps=4), SmoothGrad(samples=3), GradCAM()]
    )
    def test_functions_of_the_gradient_pass(self, method, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:8], digits[1][:8], method=method)
        assert ImplementationInvariance().per_sample(probe).nan_to_num(0).max() < 1e-5

    @pytest.mark.parametrize("method", [GuidedBackprop(), DeepLift(), LRP(), LRP(gamma=torch.inf)])
    def test_rules_for_single_layers_fail(self, method, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:40], digits[1][:40], method=method)
        assert ImplementationInvariance().per_sample(probe).mean() > 0.01

    def test_a_layer_is_found_by_the_name_it_has_in_the_model(self, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:8], digits[1][:8], method=GradCAM(layer="layers.conv1"))
        assert ImplementationInvariance().per_sample(probe).nan_to_num(0).max() < 1e-5
        assert DummyFeature().per_sample(probe).isfinite().any()

    def test_a_model_in_training_mode_is_explained_in_eval_mode_and_stays(self):
        model = nn.Sequential(nn.Dropout(0.5), dense(True)).train()
        probe = make_probe(model, random(4, 3, 4, 4))
        assert (ImplementationInvariance().per_sample(probe) < 1e-12).all()
        assert (DummyFeature().per_sample(probe) == 0).all()
        assert all(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())

    def test_a_mode_of_the_model_itself_is_eval_too(self):
        class Noisy(nn.Module):
            """Uses its own training flag, with no submodule for it."""

            def __init__(self) -> None:
                super().__init__()
                self.layers = dense(True)

            def forward(self, x: Tensor) -> Tensor:
                return self.layers(nn.functional.dropout(x, 0.5, self.training))

        model = Noisy().train()
        assert (ImplementationInvariance().per_sample(make_probe(model, random(4, 3, 4, 4))) < 1e-12).all()
        assert model.training

    def test_a_zero_map_is_undefined(self):
        probe = make_probe(dense(True), random(2, 3, 4, 4), method=Flat(value=0.0))
        assert ImplementationInvariance().per_sample(probe).isnan().all()


class TestDummyFeature:
    def test_the_model_does_not_see_the_frame(self):
        model, x = dense(True), random(3, 3, 8, 8)
        assert torch.equal(Cropped(model, 2)(x), model(x[:, :, 2:6, 2:6]))

    @pytest.mark.parametrize("method", [Gradient(), InputXGradient(), IntegratedGradients(steps=3), GuidedBackprop()])
    def test_gradients_give_it_exactly_nothing(self, method):
        probe = make_probe(dense(True), random(3, 3, 4, 4), method=method)
        assert DummyFeature(3).per_sample(probe).tolist() == [0] * 3

    def test_a_flat_map_gives_it_its_area(self):
        probe = make_probe(dense(True), random(3, 3, 4, 4), method=Flat())
        assert DummyFeature(1).per_sample(probe).tolist() == pytest.approx([20 / 36] * 3)

    def test_class_activation_maps_smear_into_it(self, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:8], digits[1][:8], method=GradCAM())
        assert DummyFeature().per_sample(probe).nanmean() > 0.05

    def test_the_frame_is_noise_so_that_products_with_the_image_are_tested_too(self):
        @dataclass(frozen=True, kw_only=True)
        class Pixels(Attribution):
            def attribute(self, model, x, score, create_graph, generator):
                return x

        probe = make_probe(dense(True), torch.zeros(3, 3, 4, 4), method=Pixels())
        assert DummyFeature().per_sample(probe).tolist() == [1] * 3


class TestLinearity:
    @pytest.mark.parametrize("method", [Gradient(), InputXGradient(), SmoothGrad(samples=3)])
    @pytest.mark.parametrize(("alpha", "beta"), [(1.0, -1.0), (0.3, 2.0)])
    def test_functions_linear_in_the_gradient_pass(self, method, alpha, beta, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:8], digits[1][:8], method=method)
        assert Linearity(alpha, beta).per_sample(probe).max() < 1e-5

    def test_a_magnitude_is_not_linear_and_has_the_deviation_of_its_formula(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
        first, second = model[1].weight.detach()
        expected = ((first - second).abs() - first.abs() + second.abs()).norm() / (first.norm() + second.norm())
        other = ((first - second).abs() + first.abs() - second.abs()).norm() / (first.norm() + second.norm())
        values = Linearity().per_sample(make_probe(model, random(4, 3, 4, 4), method=Magnitude()))
        torch.testing.assert_close(values, torch.stack([expected, other] * 2))

    def test_a_map_that_ignores_the_target_deviates_by_half(self):
        probe = make_probe(dense(True), random(4, 3, 4, 4), method=Flat())
        assert Linearity().per_sample(probe).tolist() == pytest.approx([0.5] * 4)

    def test_zero_maps_and_single_classes_are_undefined(self):
        x, zeros = random(4, 3, 4, 4), torch.zeros(4, dtype=torch.int64)
        assert Linearity().per_sample(make_probe(dense(True), x, method=Flat(value=0.0))).isnan().all()
        assert Linearity().per_sample(make_probe(dense(True, classes=1), x, zeros)).isnan().all()


def test_a_frame_without_width_is_refused():
    with pytest.raises(UserError, match=r"DummyFeature\.frame must be an integer of at least 1, got 0"):
        DummyFeature(frame=0)

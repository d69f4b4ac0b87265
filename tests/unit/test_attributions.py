"""Attribution methods: closed forms, captum, finite differences; no trace, bounded batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from xrobust.attributions import (
    Attribution,
    Constant,
    FixedImages,
    GaussianBlur,
    Gradient,
    ImageMean,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
)
from xrobust.attributions.integrated_gradients import gauss_legendre, riemann_midpoint
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams, normal_like

METHODS = [
    Gradient(),
    InputXGradient(),
    IntegratedGradients(steps=5, baseline=ImageMean()),
    SmoothGrad(samples=3),
]
named = pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)


def network(channels: int = 3, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A smooth network with batch norm and dropout, on 6 × 6 images, in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(channels, 4, 3, stride=2),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(16, 5),
            nn.Softplus(),
            nn.Linear(5, 4),
        )
    return model.to(dtype)


def batch(
    count: int = 9, channels: int = 3, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, channels, 6, 6, generator=generator, dtype=dtype)
    return x, torch.randint(4, (count,), generator=generator)


def linear(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """A linear classifier of 6 × 6 RGB images and its weights as images."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(nn.Flatten(), nn.Linear(108, 4)).to(dtype)
    return model, model[1].weight.detach().view(4, 3, 6, 6)


def margin_of(y: Tensor):
    """The label's logit minus the largest other one: a score that holds a value for each sample."""

    def margin(logits: Tensor) -> Tensor:
        own = F.one_hot(y, logits.shape[1]).bool()
        return logits[own] - logits.masked_fill(own, -torch.inf).amax(1)

    return margin


class TestOnLinearModels:
    def test_gradient_is_the_row_of_weights_of_the_label(self):
        model, weights = linear()
        x, y = batch()
        torch.testing.assert_close(Gradient()(model, x, y), weights[y])

    def test_input_times_gradient_adds_up_to_the_logit_without_its_bias(self):
        model, _ = linear()
        x, y = batch()
        total = InputXGradient()(model, x, y).sum((1, 2, 3)) + model[1].bias.detach()[y]
        torch.testing.assert_close(total, model(x).gather(1, y[:, None])[:, 0].detach())

    @pytest.mark.parametrize("rule", ["gauss_legendre", "riemann_midpoint"])
    @pytest.mark.parametrize(
        ("baseline", "start"),
        [
            (Constant(0.0), 0.0),
            (Constant(0.25), 0.25),
            (FixedImages(torch.full((3, 6, 6), 0.5)), 0.5),
            (FixedImages(torch.linspace(0, 1, 9).view(9, 1, 1, 1).expand(9, 3, 6, 6)), None),
            (ImageMean(), None),
        ],
    )
    def test_integrated_gradients_are_the_way_from_the_baseline_times_the_weights(self, rule, baseline, start):
        model, weights = linear()
        x, y = batch()
        start = baseline(x) if start is None else start
        found = IntegratedGradients(steps=2, rule=rule, baseline=baseline)(model, x, y)
        torch.testing.assert_close(found, (x - start) * weights[y])

    def test_smooth_grad_is_the_gradient(self):
        model, weights = linear()
        x, y = batch()
        torch.testing.assert_close(SmoothGrad(samples=7)(model, x, y), weights[y])


class TestNumbers:
    def test_gradient_equals_finite_differences(self):
        model, (x, y) = network(dtype=torch.float64), batch(3, dtype=torch.float64)
        found = Gradient()(model, x, y)
        model.eval()
        step = 1e-6
        for entry in np.ndindex(3, 6, 6):
            direction = torch.zeros_like(x)
            direction[(slice(None), *entry)] = step
            with torch.no_grad():
                change = (model(x + direction) - model(x - direction)).gather(1, y[:, None])[:, 0]
            torch.testing.assert_close(found[(slice(None), *entry)], change / (2 * step), rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize(("rule", "tolerance"), [("gauss_legendre", 1e-9), ("riemann_midpoint", 1e-3)], ids=str)
    def test_integrated_gradients_are_complete(self, rule, tolerance):
        model, (x, y) = network(dtype=torch.float64), batch(dtype=torch.float64)
        total = IntegratedGradients(steps=16, rule=rule, baseline=Constant(1.0))(model, x, y).sum((1, 2, 3))
        with torch.no_grad():
            difference = model.eval()(x) - model(torch.ones_like(x))
        torch.testing.assert_close(total, difference.gather(1, y[:, None])[:, 0], rtol=0, atol=tolerance)

    @pytest.mark.parametrize("steps", [1, 2, 5, 32, 50])
    def test_gauss_legendre_equals_numpy(self, steps):
        nodes, weights = gauss_legendre(steps)
        expected_nodes, expected_weights = np.polynomial.legendre.leggauss(steps)
        np.testing.assert_allclose(nodes, (1 + expected_nodes) / 2, atol=1e-13)
        np.testing.assert_allclose(weights, expected_weights / 2, atol=1e-13)

    def test_midpoints_halve_equal_intervals(self):
        nodes, weights = riemann_midpoint(4)
        assert nodes.tolist() == [0.125, 0.375, 0.625, 0.875]
        assert weights.tolist() == [0.25] * 4

    def test_smooth_grad_is_the_mean_gradient_at_the_noisy_images_of_the_streams(self):
        model, (x, y) = network(), batch()
        found = SmoothGrad(sigma=0.3, samples=4, seed=5)(model, x, y)
        streams = SampleStreams(5, range(len(x)))
        noisy = [x + 0.3 * normal_like(x, streams) for _ in range(4)]
        torch.testing.assert_close(found, torch.stack([Gradient()(model, z, y) for z in noisy]).mean(0))
        assert not torch.allclose(found, Gradient()(model, x, y), rtol=0.1)


class TestAgainstCaptum:
    @pytest.fixture
    def case(self, digits, digits_model):
        pytest.importorskip("captum")
        x, y = digits[0][:20], digits[1][:20]
        return digits_model, x, y

    def test_saliency(self, case):
        from captum.attr import Saliency

        model, x, y = case
        expected = Saliency(model).attribute(x.clone().requires_grad_(), target=y, abs=False)
        torch.testing.assert_close(Gradient()(model, x, y), expected)

    def test_input_times_gradient(self, case):
        from captum.attr import InputXGradient as Captum

        model, x, y = case
        expected = Captum(model).attribute(x.clone().requires_grad_(), target=y)
        torch.testing.assert_close(InputXGradient()(model, x, y), expected.detach())

    @pytest.mark.parametrize(
        ("rule", "theirs"), [("gauss_legendre", "gausslegendre"), ("riemann_midpoint", "riemann_middle")]
    )
    def test_integrated_gradients(self, case, rule, theirs):
        from captum.attr import IntegratedGradients as Captum

        model, x, y = case
        expected = Captum(model).attribute(x, baselines=0.2, target=y, n_steps=20, method=theirs)
        found = IntegratedGradients(steps=20, rule=rule, baseline=Constant(0.2))(model, x, y)
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


class TestSecondOrder:
    @named
    def test_differentiable_with_respect_to_the_image(self, method: Attribution):
        model, (x, y) = network(1, torch.float64), batch(2, 1, torch.float64)

        def attribution(z: Tensor) -> Tensor:
            return method(model, z, y, create_graph=True)

        assert torch.autograd.gradcheck(attribution, x.requires_grad_())

    @named
    def test_differentiable_with_respect_to_the_weights(self, method: Attribution):
        model, (x, y) = network(1, torch.float64), batch(2, 1, torch.float64)
        weight, step = model[0].weight, 1e-6
        found = method(model, x, y, create_graph=True)
        (gradient,) = torch.autograd.grad(found.square().sum(), weight)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[1, 0, 2, 1] += sign * step
            values.append(method(model, x, y).square().sum())
            with torch.no_grad():
                weight[1, 0, 2, 1] -= sign * step
        expected = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(gradient[1, 0, 2, 1], expected, rtol=1e-5, atol=1e-8)

    @named
    def test_without_a_graph_the_result_is_detached_and_the_same(self, method: Attribution):
        model, (x, y) = network(), batch()
        kept = method(model, x.requires_grad_(), y, create_graph=True)
        plain = method(model, x, y)
        assert kept.requires_grad
        assert not plain.requires_grad
        torch.testing.assert_close(kept.detach(), plain)

    @named
    def test_an_image_that_asks_for_no_gradient_gets_none(self, method: Attribution):
        model, (x, y) = network(), batch()
        method(model, x, y, create_graph=True).sum().backward()
        assert x.grad is None and not x.requires_grad
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert model[0].weight.grad is not None

    def test_works_inside_no_grad(self):
        model, (x, y) = network(), batch()
        with torch.no_grad():
            found = Gradient()(model, x, y, create_graph=True)
        assert found.requires_grad


class TestTargets:
    @named
    def test_one_class_for_all_equals_that_label_for_each(self, method: Attribution):
        model, (x, _) = network(), batch()
        torch.testing.assert_close(method(model, x, 2), method(model, x, torch.full((len(x),), 2)))

    @named
    def test_a_score_that_picks_a_logit_equals_the_label(self, method: Attribution):
        model, (x, _) = network(), batch()
        torch.testing.assert_close(method(model, x, lambda logits: logits[:, 3]), method(model, x, 3))

    @named
    @pytest.mark.parametrize("batch_size", [1, 4, 100])
    def test_a_score_may_hold_a_value_for_each_sample(self, method: Attribution, batch_size):
        model, (x, y) = network(dtype=torch.float64), batch(dtype=torch.float64)
        method = replace(method, batch_size=batch_size)
        found = method(model, x, margin_of(y), generator=SampleStreams(0, range(9)))
        one = method(model, x[4:5], margin_of(y[4:5]), generator=SampleStreams(0, [4]))
        torch.testing.assert_close(found[4:5], one)

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (torch.zeros(3, dtype=torch.int64), "one int64 label"),
            (torch.zeros(9), "one int64 label"),
            (lambda logits: logits, "must map logits"),
            (lambda logits: logits.sum(), "must map logits"),
        ],
    )
    def test_a_target_that_does_not_fit_is_refused(self, target, message):
        model, (x, _) = network(), batch()
        with pytest.raises(UserError, match=message):
            Gradient()(model, x, target)

    def test_a_model_without_logits_is_refused(self):
        with pytest.raises(UserError, match="logits of shape"):
            Gradient()(nn.Identity(), batch()[0], 0)


class TestBatches:
    @named
    @pytest.mark.parametrize("batch_size", [1, 7, 1000])
    def test_the_internal_batch_changes_nothing_and_bounds_what_the_model_sees(self, method, batch_size):
        model, (x, y) = network(dtype=torch.float64), batch(20, dtype=torch.float64)
        expected = method(model, x, y)
        seen = []
        model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        small = replace(method, batch_size=batch_size)
        torch.testing.assert_close(small(model, x, y), expected)
        assert max(seen) <= batch_size

    def test_each_image_may_have_its_own_baseline_in_any_batch(self):
        model, (x, y) = network(dtype=torch.float64), batch(20, dtype=torch.float64)
        baselines, _ = batch(20, dtype=torch.float64, seed=1)
        expected = IntegratedGradients(steps=5, baseline=FixedImages(baselines))(model, x, y)
        small = IntegratedGradients(steps=5, baseline=FixedImages(baselines), batch_size=7)
        torch.testing.assert_close(small(model, x, y), expected)
        own = IntegratedGradients(steps=5, baseline=FixedImages(baselines[11]))
        torch.testing.assert_close(own(model, x[11:12], y[11:12]), expected[11:12])

    @named
    def test_samples_do_not_see_each_other(self, method: Attribution):
        model, (x, y) = network(dtype=torch.float64), batch(20, dtype=torch.float64)
        whole = method(model, x, y, generator=SampleStreams(3, range(20)))
        order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
        shuffled = method(model, x[order], y[order], generator=SampleStreams(3, order.tolist()))
        torch.testing.assert_close(shuffled, whole[order])

    @named
    @pytest.mark.parametrize("channels", [1, 3])
    def test_shape_dtype_and_empty_batches(self, method: Attribution, channels):
        model, (x, y) = network(channels), batch(4, channels)
        found = method(model, x, y)
        assert found.shape == x.shape and found.dtype == torch.float32 and found.isfinite().all()
        assert method(model, x[:0], y[:0]).shape == (0, channels, 6, 6)

    def test_a_plain_generator_is_drawn_from(self):
        model, (x, y) = network(), batch()
        first, again, other = (
            SmoothGrad(samples=3)(model, x, y, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)

    def test_the_seed_decides_the_noise(self):
        model, (x, y) = network(), batch()
        first, again, other = (SmoothGrad(samples=3, seed=seed)(model, x, y) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)


class TestNoTrace:
    @named
    @pytest.mark.parametrize("create_graph", [False, True])
    def test_model_images_and_random_state_are_as_before(self, method: Attribution, create_graph):
        model, (x, y) = network(), batch()
        model[1].eval()
        model[5].weight.requires_grad_(False)
        model[0].weight.grad = torch.ones_like(model[0].weight)
        modes = [module.training for module in model.modules()]
        flags = [parameter.requires_grad for parameter in model.parameters()]
        state = {name: value.clone() for name, value in model.state_dict().items()}
        images, labels, random_state = x.clone(), y.clone(), torch.get_rng_state()
        method(model, x, y, create_graph=create_graph)
        assert [module.training for module in model.modules()] == modes
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
        assert sum(parameter.grad is not None for parameter in model.parameters()) == 1
        assert torch.equal(x, images) and torch.equal(y, labels)
        assert torch.equal(torch.get_rng_state(), random_state)

    def test_modes_and_flags_come_back_after_an_error(self):
        model, (x, _) = network(), batch()
        with pytest.raises(RuntimeError):
            Gradient()(model, x, 17)
        assert all(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())

    @named
    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    @pytest.mark.parametrize("create_graph", [False, True])
    def test_works_where_gradients_are_off(self, method: Attribution, context, create_graph):
        model, (x, y) = network(), batch()
        expected = method(model, x, y)
        with context():
            found = method(model, x.clone(), y.clone(), create_graph=create_graph)
        torch.testing.assert_close(found.detach(), expected)

    @named
    def test_autocast_of_the_caller_is_left_aside(self, method: Attribution):
        model, (x, y) = network(), batch()
        with torch.autocast("cpu", torch.bfloat16):
            found = method(model, x, y)
        torch.testing.assert_close(found, method(model, x, y), rtol=0, atol=0)

    @named
    @pytest.mark.parametrize(
        ("given", "weights", "result"),
        [
            (torch.float64, torch.float64, torch.float64),
            (torch.float64, torch.float32, torch.float64),
            (torch.bfloat16, torch.float32, torch.float32),
            (torch.float32, torch.bfloat16, torch.float32),
        ],
        ids=str,
    )
    def test_precision(self, method: Attribution, given, weights, result):
        model, (x, y) = network(dtype=weights), batch(dtype=torch.float64)
        assert method(model, x.to(given), y).dtype == result


class TestBaselines:
    def test_blur_keeps_a_constant_image_and_agrees_with_torchvision_inside(self):
        from torchvision.transforms.functional import gaussian_blur

        blur = GaussianBlur(kernel_size=5, sigma=1.3)
        flat = torch.full((2, 3, 9, 7), 0.4)
        torch.testing.assert_close(blur(flat), flat)
        x = torch.rand(2, 3, 12, 11, generator=torch.Generator().manual_seed(0))
        expected = gaussian_blur(x, [5, 5], [1.3, 1.3])
        torch.testing.assert_close(blur(x)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])

    def test_blur_takes_images_smaller_than_its_kernel(self):
        assert GaussianBlur()(torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(0))).shape == (
            1,
            1,
            3,
            3,
        )

    def test_an_image_that_does_not_fit_is_refused(self):
        model, (x, y) = network(), batch()
        with pytest.raises(UserError, match="does not fit"):
            IntegratedGradients(baseline=FixedImages(torch.zeros(3, 5, 5)))(model, x, y)


class TestMistakes:
    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: Gradient(batch_size=0), "Gradient.batch_size must be an integer of at least 1, got 0"),
            (lambda: IntegratedGradients(steps=0), "steps must be an integer of at least 1, got 0"),
            (
                lambda: IntegratedGradients(rule="simpson"),
                "rule must be one of 'gauss_legendre'.*got 'simpson'",
            ),
            (lambda: SmoothGrad(sigma=-0.1), "sigma must be at least 0, got -0.1"),
            (lambda: SmoothGrad(sigma=float("nan")), "sigma must be at least 0, got nan"),
            (lambda: SmoothGrad(samples=0), "samples must be an integer of at least 1, got 0"),
            (lambda: GaussianBlur(kernel_size=4), "kernel_size must be odd"),
            (lambda: GaussianBlur(sigma=0), "sigma must be above 0"),
        ],
    )
    def test_a_value_outside_its_range_is_named(self, build, message):
        with pytest.raises(UserError, match=message):
            build()


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("conf/attribution/*.yaml")), ids=lambda path: path.stem
)
def test_every_configuration_is_keyed_by_its_own_name(path: Path):
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == [path.stem]

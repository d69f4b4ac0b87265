"""Attributions that ask the model only: occlusion, LIME, Kernel SHAP."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb, factorial

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from xrobust.attributions import Constant, ImageMean, KernelShap, Lime, Occlusion, UniformImages
from xrobust.attributions.kernel_shap import every_coalition
from xrobust.attributions.lime import weighted_ridge
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams


def images(count: int = 5, channels: int = 3, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, channels, size, size, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (count,), generator=generator)


def network(size: int = 6) -> nn.Module:
    entries = 3 * size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(entries, 16), nn.Tanh(), nn.Linear(16, 4)).double()


def linear() -> tuple[nn.Module, Tensor]:
    """A linear classifier and its weights as images."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 4)).double()
    return model, model[1].weight.detach().view(4, 3, 6, 6)


def logit(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).gather(1, y[:, None])[:, 0]


def grid(size: int, parts: int) -> Tensor:
    """The number of the segment of each pixel: (size, size)."""
    side = torch.arange(size) * parts // size
    return side[:, None] * parts + side


def per_segment(values: Tensor, segments: Tensor) -> Tensor:
    """(N, C, H, W) → (N, segments)."""
    flat = values.sum(1).flatten(1)
    return torch.zeros(len(values), int(segments.max()) + 1, dtype=values.dtype).index_add(1, segments.flatten(), flat)


class TestOcclusion:
    @pytest.mark.parametrize(("patch", "stride"), [(2, 2), (3, 2), (4, 3), (1, 1), (9, 1)])
    def test_equals_captum(self, patch, stride):
        captum = pytest.importorskip("captum.attr")
        model, (x, y) = network(), images()
        found = Occlusion(patch=patch, stride=stride, baseline=Constant(0.2))(model, x, y)
        window, strides = (3, min(patch, 6), min(patch, 6)), (3, stride, stride)
        expected = captum.Occlusion(model).attribute(x, window, strides, baselines=0.2, target=y)
        torch.testing.assert_close(found.sum(1, keepdim=True).expand_as(x).float(), expected, rtol=1e-4, atol=1e-6)

    def test_of_single_pixels_of_a_linear_model(self):
        model, weights = linear()
        x, y = images()
        drop = ((x - x.mean((2, 3), keepdim=True)) * weights[y]).sum(1, keepdim=True)
        found = Occlusion(patch=1, stride=1, baseline=ImageMean())(model, x, y)
        torch.testing.assert_close(found, (drop / 3).expand_as(x))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"patch": 0}, "Occlusion.patch must be an integer of at least 1, got 0"),
            ({"patch": 2, "stride": 3}, "Occlusion.stride must be at most the patch of 2, got 3"),
        ],
    )
    def test_a_value_outside_its_range_is_named(self, given, message):
        with pytest.raises(UserError, match=message):
            Occlusion(**given)


class TestLime:
    def test_the_regression_equals_scikit_learn(self):
        generator = torch.Generator().manual_seed(0)
        z = (torch.rand(3, 40, 7, generator=generator) < 0.5).double()
        y, weight = torch.rand(2, 3, 40, generator=generator, dtype=torch.float64)
        found = weighted_ridge(z, y, weight, 0.7)
        for i in range(3):
            expected = Ridge(alpha=0.7).fit(z[i].numpy(), y[i].numpy(), weight[i].numpy()).coef_
            np.testing.assert_allclose(found[i], expected, rtol=1e-8)

    def test_equals_captum_on_the_same_samples(self):
        """captum fits the same model to the same choices of segments."""
        captum = pytest.importorskip("captum.attr")
        from captum._utils.models.linear_model import SkLearnRidge

        model, (x, y), method = network(), images(1), Lime(grid=3, samples=64, seed=4)
        found = per_segment(method(model, x, y), grid(6, 3))
        draws = torch.rand(64, 9, generator=SampleStreams(4, range(1)).generators[0]) < 0.5
        draws[0] = True
        choices = iter(draws.double())

        def kernel(original, perturbed, z, **_):
            return torch.exp(-(1 - z.mean().sqrt()).square() / (2 * 0.25**2))

        lime = captum.LimeBase(
            model,
            SkLearnRidge(alpha=1.0),
            kernel,
            lambda original, **_: next(choices)[None],
            True,
            lambda z, original, **_: original * z[0][grid(6, 3)],
            None,
        )
        expected = lime.attribute(x, target=int(y[0]), n_samples=64)
        torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-7)

    def test_of_a_linear_model_is_what_each_segment_adds(self):
        model, weights = linear()
        x, y = images()
        found = Lime(grid=3, samples=200, ridge=1e-9)(model, x, y)
        torch.testing.assert_close(per_segment(found, grid(6, 3)), per_segment(x * weights[y], grid(6, 3)))

    @pytest.mark.parametrize("name", ["kernel_width", "ridge"])
    def test_a_value_outside_its_range_is_named(self, name):
        with pytest.raises(UserError, match=f"Lime.{name} must be above 0, got 0"):
            Lime(**{name: 0.0})


def shapley(model: nn.Module, x: Tensor, y: Tensor, segments: Tensor, baseline: float) -> Tensor:
    """φ_j = Σ_{S ∌ j} |S|!·(M − |S| − 1)!/M! · (f(S ∪ j) − f(S)), over all coalitions S: (N, M)."""
    count = int(segments.max()) + 1

    def value(coalition: tuple[int, ...]) -> Tensor:
        kept = torch.isin(segments, torch.tensor(coalition, dtype=torch.int64))
        return logit(model, torch.where(kept, x, baseline), y)

    phi = torch.zeros(len(x), count, dtype=x.dtype)
    for j in range(count):
        others = [k for k in range(count) if k != j]
        for size in range(count):
            share = factorial(size) * factorial(count - size - 1) / factorial(count)
            for coalition in combinations(others, size):
                phi[:, j] += share * (value((*coalition, j)) - value(coalition))
    return phi


class TestKernelShap:
    @pytest.mark.parametrize(("size", "parts"), [(6, 2), (5, 2), (3, 3)], ids=str)
    def test_equals_shapley_values_when_all_coalitions_are_tried(self, size, parts):
        model, (x, y) = network(size), images(3, size=size)
        found = KernelShap(grid=parts, samples=510, baseline=Constant(0.3))(model, x, y)
        expected = shapley(model, x, y, grid(size, parts), 0.3)
        torch.testing.assert_close(per_segment(found, grid(size, parts)), expected)

    def test_equals_captum_in_expectation(self):
        """captum 0.9 draws coalitions; with many, it comes near the exact values."""
        captum = pytest.importorskip("captum.attr")
        model, (x, y) = network(), images(1)
        exact = per_segment(KernelShap(grid=2, samples=14)(model, x, y), grid(6, 2))
        theirs = captum.KernelShap(model)
        near = theirs.attribute(x, target=int(y[0]), feature_mask=grid(6, 2).expand_as(x), n_samples=2000)
        torch.testing.assert_close(exact[0], near[0, 0, ::3, ::3].flatten().double(), atol=1e-3, rtol=0)

    def test_samples_estimate_them_and_stay_complete(self):
        model, (x, y) = network(), images()
        exact = KernelShap(grid=3, samples=510)
        gaps = []
        for samples in (40, 160):
            found = replace(exact, samples=samples)(model, x, y)
            torch.testing.assert_close(found.sum((1, 2, 3)), logit(model, x, y) - logit(model, 0 * x, y))
            gaps.append((found - exact(model, x, y)).norm() / exact(model, x, y).norm())
        assert 0 < gaps[1] < gaps[0] < 0.3

    def test_of_an_additive_game_few_samples_are_exact(self):
        model, weights = linear()
        x, y = images()
        found = KernelShap(grid=6, samples=100)(model, x, y)
        torch.testing.assert_close(found.sum(1), (x * weights[y]).sum(1))

    def test_coalitions_are_drawn_by_the_kernel(self):
        """All of a size together ∝ 1/(k·(M − k)), each as often as another of its size, in complementary pairs."""
        x, _ = images(1)
        method = KernelShap(grid=2, samples=40_000)
        drawn = method.drawn(x, SampleStreams(0, range(1)))[:, 0]
        assert torch.equal(drawn[20_000:], ~drawn[:20_000])
        numbers = (drawn[:20_000].long() << torch.arange(4)).sum(1)
        share = numbers.bincount(minlength=16).double() / 20_000
        coalitions, weight = every_coalition(4, x.device)
        assert share[0] == share[15] == 0
        expected = torch.zeros(16, dtype=torch.float64)
        expected[(coalitions[:, 0].long() << torch.arange(4)).sum(1)] = weight / weight.sum()
        torch.testing.assert_close(share, expected, atol=0.012, rtol=0)  # four standard deviations
        assert len(weight) == 14 and weight[0] == 3 / (comb(4, 1) * 1 * 3)


class TestSegments:
    methods = pytest.mark.parametrize("method", [Lime(grid=3, samples=30), KernelShap(grid=3, samples=30)])

    @methods
    def test_draws_belong_to_the_sample(self, method):
        model, (x, y) = network(), images()
        noisy = replace(method, baseline=UniformImages())
        whole = noisy(model, x, y, generator=SampleStreams(7, range(5)))
        order = torch.tensor([3, 0, 4])
        torch.testing.assert_close(noisy(model, x[order], y[order], generator=SampleStreams(7, order)), whole[order])
        assert not torch.allclose(replace(noisy, seed=1)(model, x, y), noisy(model, x, y))

    @methods
    def test_a_grid_finer_than_the_image_is_refused(self, method):
        model, (x, y) = network(), images()
        with pytest.raises(UserError, match=r"grid=7 needs images of at least 7 × 7 pixels, got 6 × 6"):
            replace(method, grid=7)(model, x, y)

    @pytest.mark.parametrize("kind", [Lime, KernelShap])
    @pytest.mark.parametrize(("name", "value", "least"), [("grid", 1, 2), ("samples", 0, 1)])
    def test_a_value_outside_its_range_is_named(self, kind, name, value, least):
        with pytest.raises(UserError, match=f"{kind.__name__}.{name} must be an integer of at least {least}"):
            kind(**{name: value})

    @pytest.mark.parametrize("target", [lambda logits: logits, lambda logits: logits.sum()])
    def test_a_target_that_does_not_fit_is_refused(self, target):
        model, (x, _) = network(), images()
        with pytest.raises(UserError, match="must map logits"):
            Occlusion()(model, x, target)

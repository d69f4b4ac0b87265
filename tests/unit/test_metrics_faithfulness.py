"""Faithfulness metrics: closed forms on linear models, dense solves, captum and scipy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from xrobust.attributions import Attribution, Constant, Gradient, ImageMean, InputXGradient, RandomMap
from xrobust.errors import UserError
from xrobust.metrics import (
    IROF,
    DeletionAUC,
    DeletionVersusRandom,
    ExplanationMetric,
    FaithfulnessCorrelation,
    Infidelity,
    InsertionAUC,
    InsertionVersusRandom,
    Monotonicity,
    PixelNoise,
    PixelRemoval,
    Probe,
    ROADDifference,
    ROADLeastRelevantFirst,
    ROADMostRelevantFirst,
    SensitivityN,
    SquareRemoval,
)
from xrobust.metrics.changed_images import label_drops
from xrobust.metrics.faithfulness_correlation import pearson_correlation
from xrobust.metrics.imputation import linear_imputation, neighbour_sum
from xrobust.metrics.infidelity import infidelity
from xrobust.metrics.perturbations import pixel_count, random_pixels
from xrobust.metrics.regions import cell_means, grid_cells
from xrobust.randomness import SampleStreams, mix
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "8/255")


@dataclass(frozen=True, kw_only=True)
class Scaled(Attribution):
    """Another method's map, times a number for each of the first images."""

    method: Attribution
    factors: tuple[float, ...]

    def attribute(self, model, x, score, create_graph, generator):
        return self.method.attribute(model, x, score, create_graph, generator) * torch.tensor(
            self.factors[: len(x)], dtype=x.dtype
        ).view(-1, 1, 1, 1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(weights: Tensor, bias: Tensor | None = None) -> nn.Module:
    """f(x) = ⟨w_k, x⟩ + b_k in float64, for weights (K, C, H, W)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), len(weights))).double()
    model[1].weight.data.copy_(weights.flatten(1))
    model[1].bias.data.copy_(torch.zeros(len(weights)) if bias is None else bias)
    return model


def make_probe(model: nn.Module, x: Tensor, y: Tensor | None = None, **changes) -> Probe:
    y = torch.arange(len(x)) % 2 if y is None else y
    values = {"index": torch.arange(len(x)), "method": Gradient(), "threat": THREAT, **changes}
    return Probe(model=model, x=x, y=y, **values)


def ones(count: int) -> list[float]:
    return pytest.approx([1.0] * count)


class TestVersusRandom:
    @pytest.mark.parametrize(
        ("metric", "plain", "sign"),
        [(DeletionVersusRandom, DeletionAUC, -1), (InsertionVersusRandom, InsertionAUC, 1)],
    )
    def test_is_the_plain_score_against_the_mean_over_random_orders(self, metric, plain, sign):
        probe = make_probe(linear(2 * random(2, 1, 4, 4, seed=1) - 1), random(5, 1, 4, 4), method=InputXGradient())
        options = {"steps": 4, "baseline": Constant(0.0)}
        chance = torch.stack(
            [
                plain(**options).per_sample(
                    make_probe(probe.model, probe.x, method=RandomMap(), seed=mix(probe.seed, ordering))
                )
                for ordering in range(3)
            ]
        )
        assert (chance[0] != chance[1]).any()
        expected = sign * (plain(**options).per_sample(probe) - chance.mean(0))
        torch.testing.assert_close(metric(**options, orderings=3).per_sample(probe), expected)

    @pytest.mark.parametrize("metric", [DeletionVersusRandom(), InsertionVersusRandom()])
    def test_a_map_that_knows_the_model_beats_chance_and_noise_does_not(self, metric, digits, digits_model):
        x, y = digits[0][:100], digits[1][:100]
        informed = metric.per_sample(make_probe(digits_model, x, y, method=InputXGradient()))
        noise = metric.per_sample(make_probe(digits_model, x, y, method=RandomMap()))
        error = noise.std() / len(x) ** 0.5
        assert noise.mean().abs() < 4 * error
        assert informed.mean() > 4 * error
        assert metric.higher_is_better


class TestLabelDrops:
    def test_is_the_fall_of_the_label_s_logit(self):
        weights, x = random(3, 2, 3, 3, seed=1), random(4, 2, 3, 3)
        probe = make_probe(linear(weights), x, torch.tensor([0, 1, 2, 0]))
        expected = (weights[probe.y] * x).flatten(1).sum(1)
        copies = [share * x for share in (0, 0.5, 2)]
        found = label_drops(probe, copies)
        torch.testing.assert_close(found, torch.stack([expected, expected / 2, -expected], 1))
        small = replace(probe, batch_size=3, shared={})
        torch.testing.assert_close(label_drops(small, iter(copies)), found)

    def test_what_rounding_explains_is_zero(self):
        model = linear(torch.full((2, 1, 30, 30), 1 / 3)).float()
        x = random(6, 1, 30, 30).float()
        probe = make_probe(model, x)
        assert label_drops(probe, [x.flip(3)]).tolist() == [[0]] * 6  # the same sum in another order
        assert (label_drops(probe, [x * 0.999]) > 0).all()


class TestPerturbations:
    streams = staticmethod(lambda count: SampleStreams(0, range(count)))

    def test_random_pixels_are_exactly_as_many_as_asked_and_uniform(self):
        chosen = random_pixels(torch.zeros(3000, 3, 3, 4), 5, self.streams(3000))
        assert chosen.shape == (3000, 1, 3, 4)
        assert (chosen.flatten(1).sum(1) == 5).all()
        frequency = chosen.double().mean(0).flatten()
        assert ((frequency - 5 / 12).abs() < 4 * (5 / 12 * 7 / 12 / 3000) ** 0.5).all()

    def test_equal_draws_do_not_change_the_number(self, monkeypatch):
        monkeypatch.setattr("xrobust.metrics.perturbations.uniform_like", lambda like, _: torch.full_like(like, 0.25))
        chosen = random_pixels(torch.zeros(1, 1, 2, 3), 2, self.streams(1))
        assert chosen.flatten().tolist() == [True, True, False, False, False, False]

    @pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.5, 8), (0.999, 15)])
    def test_a_share_is_at_least_one_pixel_and_not_all(self, share, count):
        assert pixel_count(share, 16) == count

    def test_a_square_lies_within_the_image_and_reaches_every_corner(self):
        x = torch.ones(600, 2, 4, 6)
        gone = SquareRemoval(share=0.5)(x, self.streams(600)) == 0
        assert (gone[:, 0] == gone[:, 1]).all()
        rows, columns = gone[:, 0].any(2), gone[:, 0].any(1)
        assert (rows.sum(1) == 2).all() and (columns.sum(1) == 2).all() and (gone[:, 0].sum((1, 2)) == 4).all()
        places = {(r.int().argmax().item(), c.int().argmax().item()) for r, c in zip(rows, columns, strict=True)}
        assert places == {(r, c) for r in range(3) for c in range(5)}

    def test_noise_has_the_standard_deviation_asked_for(self):
        changed = PixelNoise(0.3)(torch.full((20, 1, 30, 30), 0.5, dtype=torch.float64), self.streams(20))
        assert changed.mean().item() == pytest.approx(0.5, abs=0.01)
        assert changed.std().item() == pytest.approx(0.3, rel=0.02)

    def test_removed_pixels_are_the_baseline_s_in_all_channels(self):
        x = random(5, 3, 4, 4) + 0.1
        gone = PixelRemoval(0.25)(x, self.streams(5)) == 0
        assert (gone.sum((2, 3)) == 4).all() and (gone == gone[:, :1]).all()
        grey = PixelRemoval(0.25, ImageMean())(x, self.streams(5))
        torch.testing.assert_close(grey, x.mean((2, 3), keepdim=True).where(gone, x))


class TestSubsetCorrelation:
    METRICS = (FaithfulnessCorrelation(baseline=Constant(0.0)), SensitivityN())

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("channels", [1, 3])
    def test_contributions_of_a_linear_model_correlate_perfectly_with_its_drops(self, metric, channels):
        model, x = (
            linear(2 * random(2, channels, 5, 5, seed=1) - 1, torch.tensor([3.0, -2.0])),
            random(4, channels, 5, 5),
        )
        assert metric.per_sample(make_probe(model, x, method=InputXGradient())).tolist() == ones(4)
        against = Scaled(method=InputXGradient(), factors=(-1.0, 2.0, -3.0, 0.0))
        values = metric.per_sample(make_probe(model, x, method=against))
        assert values[:3].tolist() == pytest.approx([-1, 1, -1]) and values[3].isnan()
        assert (metric.per_sample(make_probe(model, x)).abs() < 0.99).all()  # the gradient forgets the image

    def test_the_mean_is_the_baseline_of_the_paper(self):
        model, x = linear(2 * random(2, 3, 5, 5, seed=1) - 1), random(4, 3, 5, 5)

        class FromMean(InputXGradient):
            def attribute(self, model, x, score, create_graph, generator):
                contrast = x - ImageMean()(x)
                return contrast * Gradient().attribute(model, x, score, create_graph, generator)

        assert FaithfulnessCorrelation().per_sample(make_probe(model, x, method=FromMean())).tolist() == ones(4)

    def test_equals_scipy_over_the_same_sets(self, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:4], digits[1][:4])
        streams, sums, drops = probe.streams("faithfulness_correlation"), [], []
        for _ in range(50):
            chosen = random_pixels(probe.x, 13, streams)
            sums.append((probe.map * chosen).sum((1, 2, 3)))
            drops.append(label_drops(probe, [probe.x.masked_fill(chosen, 0)])[:, 0])
        expected = scipy.stats.pearsonr(torch.stack(sums).numpy(), torch.stack(drops).numpy(), axis=0).statistic
        found = FaithfulnessCorrelation(0.2, 50, Constant(0.0)).per_sample(probe)
        np.testing.assert_allclose(found, expected, rtol=1e-4)

    def test_sensitivity_is_the_mean_over_the_sizes(self):
        model = nn.Sequential(linear(2 * random(3, 1, 5, 5, seed=1) - 1), nn.Softmax(1))
        x, seen = random(4, 1, 5, 5), []
        both = SensitivityN((0.2, 0.6))
        first = SensitivityN((0.2,)).per_sample(make_probe(model, x))
        value = both.per_sample(make_probe(model, x))
        model.register_forward_pre_hook(lambda _, inputs: seen.extend((inputs[0] == 0).sum((1, 2, 3)).tolist()))
        torch.testing.assert_close(both.per_sample(make_probe(model, x)), value)
        assert sorted(count for count in seen if count) == [5] * 100 + [15] * 100
        assert ((2 * value - first).abs() <= 1).all() and not torch.allclose(first, value)

    @pytest.mark.parametrize("metric", [*METRICS, FaithfulnessCorrelation()])
    def test_a_constant_map_and_an_image_like_its_baseline_are_undefined(self, metric):
        constant = make_probe(linear(torch.full((2, 1, 9, 9), 0.1, dtype=torch.float64)), random(3, 1, 9, 9))
        assert metric.per_sample(constant).isnan().all()
        blank = make_probe(linear(random(2, 1, 5, 5, seed=1)), torch.zeros(3, 1, 5, 5))
        assert metric.per_sample(blank).isnan().all()

    def test_pearson_equals_scipy_and_is_undefined_without_variation(self):
        first, second = random(5, 20), random(5, 20, seed=1)
        expected = scipy.stats.pearsonr(first.numpy(), second.numpy(), axis=1).statistic
        np.testing.assert_allclose(pearson_correlation(first, second), expected)
        first[0], first[1, 3], second[2] = 0.1, torch.nan, 0.3
        assert pearson_correlation(first, second).isnan().tolist() == [True, True, True, False, False]


class TestInfidelity:
    PERTURBATIONS = (PixelNoise(), SquareRemoval(), PixelRemoval())

    @pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda each: type(each).__name__)
    def test_the_gradient_of_a_linear_model_foretells_every_drop(self, perturbation):
        model, x = linear(2 * random(2, 3, 6, 6, seed=1) - 1), random(4, 3, 6, 6)
        for optimal_scale in (False, True):
            for relative in (False, True):
                metric = Infidelity(perturbation, 10, optimal_scale, relative)
                assert (metric.per_sample(make_probe(model, x)).abs() < 1e-20).all()

    def test_a_wrong_scale_costs_unless_it_is_optimal(self):
        weights, x = 2 * random(2, 1, 6, 6, seed=1) - 1, random(3, 1, 6, 6)
        probe = make_probe(linear(weights), x, method=Scaled(method=Gradient(), factors=(3.0, 0.5, -1.0)))
        relative = Infidelity(relative=True).per_sample(probe)
        assert relative.tolist() == pytest.approx([4, 0.25, 4])  # (factor − 1)²
        assert (Infidelity(optimal_scale=True).per_sample(probe) < 1e-20).all()
        expected = relative * 0.2**2 * weights[probe.y].flatten(1).square().sum(1)  # E[(wᵀI)²] = σ²‖w‖²
        torch.testing.assert_close(Infidelity(samples=800).per_sample(probe), expected, rtol=0.2, atol=0)

    @pytest.mark.parametrize("optimal_scale", [False, True])
    @pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda each: type(each).__name__)
    def test_equals_captum_under_the_same_perturbations(self, perturbation, optimal_scale, digits, digits_model):
        captum = pytest.importorskip("captum.metrics")
        probe = make_probe(digits_model, digits[0][:6], digits[1][:6])
        streams = probe.streams("infidelity")

        def perturb(x: Tensor) -> tuple[Tensor, Tensor]:
            changed = perturbation(x, streams)
            return x - changed, changed

        expected = captum.infidelity(
            lambda x: probe.logits_at(x),
            perturb,
            probe.x,
            probe.map,
            target=probe.y,
            n_perturb_samples=20,
            max_examples_per_batch=len(probe),
            normalize=optimal_scale,
        )
        found = Infidelity(perturbation, 20, optimal_scale).per_sample(probe)
        torch.testing.assert_close(found.float(), expected.float(), rtol=1e-3, atol=1e-5)

    def test_the_relative_value_with_the_optimal_scale_is_a_share(self):
        foretold, drops = random(50, 8) - 0.5, random(50, 8, seed=1) - 0.5
        share = infidelity(foretold, drops, optimal_scale=True, relative=True)
        assert ((share >= 0) & (share <= 1)).all()
        cosine = torch.cosine_similarity(foretold, drops)
        torch.testing.assert_close(share, 1 - cosine.square())

    def test_zero_maps_and_changes_without_effect_are_undefined(self):
        x = random(2, 1, 6, 6)
        zero = make_probe(linear(random(2, 1, 6, 6)), x, method=Scaled(method=Gradient(), factors=(0.0, 1.0)))
        assert Infidelity().per_sample(zero).isnan().tolist() == [True, False]
        black = make_probe(linear(random(2, 1, 6, 6)), torch.stack([torch.zeros_like(x[0]), x[0]]))
        assert Infidelity(SquareRemoval(), relative=True).per_sample(black).isnan().tolist() == [True, False]
        assert infidelity(random(1, 5), torch.zeros(1, 5), optimal_scale=False, relative=True).isnan().all()


def dense_imputation(image: Tensor, missing: Tensor) -> Tensor:
    """The linear system of Rong et al. 2022, pixel by pixel: (C, H, W), (H, W) → (C, H, W)."""
    height, width = missing.shape
    places = [tuple(place) for place in missing.nonzero().tolist()]
    matrix = torch.zeros(len(places), len(places), dtype=image.dtype)
    right = torch.zeros(len(places), len(image), dtype=image.dtype)
    for row, (i, j) in enumerate(places):
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                neighbour = (i + di, j + dj)
                if (di, dj) == (0, 0) or not (0 <= neighbour[0] < height and 0 <= neighbour[1] < width):
                    continue
                weight = 1 / 12 if di and dj else 1 / 6
                matrix[row, row] += weight
                if missing[neighbour]:
                    matrix[row, places.index(neighbour)] -= weight
                else:
                    right[row] += weight * image[:, neighbour[0], neighbour[1]]
    filled = image.clone()
    if places:
        filled[:, missing] = torch.linalg.solve(matrix, right).T
    return filled


class TestImputation:
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_equals_a_dense_solve(self, share, channels):
        images, missing = random(4, channels, 6, 7), random(4, 1, 6, 7, seed=1) < share
        expected = torch.stack([dense_imputation(i, m[0]) for i, m in zip(images, missing, strict=True)])
        torch.testing.assert_close(linear_imputation(images, missing, 1e-12), expected)
        torch.testing.assert_close(linear_imputation(images, missing), expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(linear_imputation(images.float(), missing), expected.float(), rtol=0, atol=1e-4)

    def test_a_single_known_pixel_fills_the_image(self):
        images, missing = random(2, 1, 8, 8), torch.ones(2, 1, 8, 8, dtype=torch.bool)
        missing[0, 0, 3, 5], missing[1, 0, 0, 0] = False, False
        expected = torch.stack([images[0, 0, 3, 5], images[1, 0, 0, 0]]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
        torch.testing.assert_close(linear_imputation(images, missing), expected, rtol=0, atol=1e-3)

    def test_known_pixels_stay_and_missing_ones_are_not_looked_at(self):
        images, missing = random(3, 3, 6, 6), random(3, 1, 6, 6, seed=1) < 0.5
        filled = linear_imputation(images, missing)
        assert torch.equal(filled.masked_fill(missing, 0), images.masked_fill(missing, 0))
        assert torch.equal(linear_imputation(images.masked_fill(missing, 9.0), missing), filled)

    def test_nothing_missing_everything_missing_and_no_image(self):
        images, none = random(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
        assert torch.equal(linear_imputation(images, none), images)
        assert torch.equal(linear_imputation(images, ~none), torch.zeros_like(images))
        assert linear_imputation(images[:0], none[:0]).shape == (0, 1, 4, 4)

    def test_an_image_does_not_depend_on_its_batch(self):
        images = random(6, 1, 12, 12)
        missing = random(6, 1, 12, 12, seed=1) < torch.linspace(0.05, 0.95, 6).view(6, 1, 1, 1)
        whole = linear_imputation(images, missing)
        for row in range(6):
            single = linear_imputation(images[row : row + 1], missing[row : row + 1])
            torch.testing.assert_close(single[0], whole[row], rtol=0, atol=1e-12)

    def test_neighbours_have_the_weights_of_the_paper(self):
        impulse = torch.zeros(1, 1, 4, 4).double()
        impulse[0, 0, 0, 1] = 1
        expected = torch.tensor([[1 / 6, 0, 1 / 6, 0], [1 / 12, 1 / 6, 1 / 12, 0], [0] * 4, [0] * 4]).double()
        torch.testing.assert_close(neighbour_sum(impulse)[0, 0], expected)


class TestROAD:
    """A model that sees the brightness of the centre, which its surroundings do not tell."""

    weights = torch.zeros(2, 3, 5, 5).double()
    weights[0, :, 2, 2] = 10 / 3
    model = linear(weights, torch.tensor([0.0, 5.0]))
    x = torch.zeros(2, 3, 5, 5).double()
    x[:, :, 2, 2] = 1

    def test_the_centre_is_all_that_counts(self):
        probe = make_probe(self.model, self.x, y=torch.tensor([0, 0]))
        options = {"noise": 0.0}
        assert ROADMostRelevantFirst(**options).per_sample(probe).tolist() == [0, 0]
        assert ROADLeastRelevantFirst(**options).per_sample(probe).tolist() == [1, 1]
        assert ROADDifference(**options).per_sample(probe).tolist() == [1, 1]
        kept, lost = torch.tensor([5.0, -5.0]).double().sigmoid().tolist()
        options["measure"] = "label_probability"
        assert ROADMostRelevantFirst(**options).per_sample(probe).tolist() == pytest.approx([lost] * 2)
        assert ROADLeastRelevantFirst(**options).per_sample(probe).tolist() == pytest.approx([kept] * 2)
        assert ROADDifference(**options).per_sample(probe).tolist() == pytest.approx([kept - lost] * 2)

    def test_a_wrong_prediction_can_be_kept_too(self):
        class Centre(Gradient):
            def attribute(self, model, x, score, create_graph, generator):
                return super().attribute(model, x, lambda logits: logits[:, 0], create_graph, generator)

        probe = make_probe(self.model, self.x, y=torch.tensor([1, 1]), method=Centre())
        assert probe.prediction.tolist() == [0, 0]
        assert ROADLeastRelevantFirst(noise=0.0).per_sample(probe).tolist() == [1, 1]

    @pytest.mark.parametrize("metric", [ROADMostRelevantFirst, ROADLeastRelevantFirst])
    def test_each_share_removes_that_many_pixels_and_noise_falls_on_these_only(self, metric, monkeypatch):
        x, model, seen = random(2, 3, 5, 5), linear(random(2, 3, 5, 5, seed=1)), []
        monkeypatch.setattr("xrobust.metrics.road.linear_imputation", lambda images, missing: images)
        probe = make_probe(model, x)
        assert probe.map.isfinite().all() and probe.logits.isfinite().all()
        model.register_forward_pre_hook(
            lambda _, inputs: seen.append((inputs[0].view(-1, 2, 3, 5, 5) != x).sum((3, 4)).tolist())
        )
        metric((0.01, 0.2, 0.99), noise=0.1).per_sample(probe)
        assert seen == [[[[count] * 3] * 2 for count in (1, 5, 24)]]

    def test_a_faithful_map_of_a_real_model_beats_noise(self, digits, digits_model):
        x, y = digits[0][:60], digits[1][:60]
        informed = ROADDifference().per_sample(make_probe(digits_model, x, y)).mean()
        noise = ROADDifference().per_sample(make_probe(digits_model, x, y, method=RandomMap())).mean()
        assert informed > 0.2 and noise.abs() < 0.1


class TestRegions:
    @pytest.mark.parametrize(("size", "grid", "count"), [((6, 8), 2, 4), ((7, 5), 3, 9), ((2, 9), 4, 8)])
    def test_cells_are_rectangles_of_nearly_equal_size(self, size, grid, count):
        cells = grid_cells(size, grid)
        assert cells.shape == size and cells.unique().tolist() == list(range(count))
        for cell in range(count):
            rows, columns = (cells == cell).nonzero().T
            height, width = (int(at.max() - at.min()) + 1 for at in (rows, columns))
            assert height * width == len(rows)
            for side, whole in ((height, size[0]), (width, size[1])):
                assert abs(side - whole / min(grid, whole)) < 1

    def test_the_relevance_of_a_cell_is_the_mean_over_its_pixels(self):
        weights = random(2, 3, 5, 5)
        probe = make_probe(linear(weights), random(2, 3, 5, 5))
        halves, magnitude = (slice(0, 3), slice(3, 5)), weights.sum(1)
        expected = [magnitude[:, rows, columns].mean((1, 2)) for rows in halves for columns in halves]
        torch.testing.assert_close(cell_means(probe, grid_cells((5, 5), 2)), torch.stack(expected, 1))

    def test_irof_follows_the_curve_of_a_linear_model(self):
        weights = torch.zeros(2, 1, 4, 4).double()
        for cell, (i, j) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
            weights[0, 0, i : i + 2, j : j + 2] = [0.5, -0.1, 1.0, 0.2][cell]
        x = torch.ones(1, 1, 4, 4).double()
        probe = make_probe(linear(weights), x)
        left = torch.tensor([6.4, 2.4, 0.4, -0.4, 0.0]).double().sigmoid()  # cells go in the order of |w|
        expected = torch.trapezoid(1 - left / left[0], dx=1 / 4)
        torch.testing.assert_close(IROF(2, Constant(0.0)).per_sample(probe), expected[None])

    def test_irof_of_a_label_that_removal_helps_is_zero_and_of_a_grey_image_too(self):
        model = linear(torch.stack([-torch.ones(1, 4, 4), torch.zeros(1, 4, 4)]).double())
        hopeless = make_probe(model, torch.full((1, 1, 4, 4), 50.0).double())
        assert IROF(2, Constant(0.0)).per_sample(hopeless).tolist() == [0]
        grey = make_probe(linear(random(2, 1, 4, 4)), torch.full((1, 1, 4, 4), 0.5).double())
        assert IROF(2).per_sample(grey).tolist() == pytest.approx([0])

    def test_monotonicity_of_regions_that_matter_in_the_order_of_their_relevance(self):
        weights = torch.zeros(2, 3, 6, 6).double()
        weights[:] = 3.0 ** grid_cells((6, 6), 3).double()
        x = random(4, 3, 6, 6)
        probe = make_probe(linear(weights), x)
        assert Monotonicity(3, samples=20).per_sample(probe).tolist() == ones(4)

        class Inverse(Gradient):
            def attribute(self, model, x, score, create_graph, generator):
                return 1 / super().attribute(model, x, score, create_graph, generator)

        inverse = make_probe(linear(weights), x, method=Inverse())
        assert Monotonicity(3, samples=20).per_sample(inverse).tolist() == pytest.approx([-1] * 4)
        constant = make_probe(linear(torch.ones(2, 3, 6, 6)), x)
        assert Monotonicity(3).per_sample(constant).isnan().all()


EVERY_METRIC: list[ExplanationMetric] = [
    DeletionVersusRandom(),
    InsertionVersusRandom(),
    FaithfulnessCorrelation(),
    SensitivityN(),
    Infidelity(),
    Infidelity(SquareRemoval(), optimal_scale=True, relative=True),
    ROADMostRelevantFirst(),
    ROADLeastRelevantFirst(),
    ROADDifference(),
    IROF(),
    Monotonicity(),
]


@pytest.mark.parametrize("metric", EVERY_METRIC, ids=lambda metric: type(metric).__name__)
def test_a_map_that_is_not_finite_is_undefined_and_the_others_are_not(metric):
    method = Scaled(method=Gradient(), factors=(1.0, float("nan"), 0.0))
    probe = make_probe(linear(2 * random(3, 1, 8, 8, seed=1) - 1), random(3, 1, 8, 8), method=method)
    assert metric.per_sample(probe).isfinite().tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DeletionVersusRandom(orderings=0), "DeletionVersusRandom.orderings must be an integer of at least 1"),
        (lambda: InsertionVersusRandom(steps=0), "InsertionVersusRandom.steps must be at least 1, got 0"),
        (lambda: FaithfulnessCorrelation(share=1.0), "FaithfulnessCorrelation.share must be above 0 and below 1"),
        (lambda: FaithfulnessCorrelation(samples=1), "samples must be an integer of at least 2, got 1"),
        (lambda: SensitivityN(shares=()), "SensitivityN.shares must hold at least one share"),
        (lambda: SensitivityN(shares=(0.1, 0)), "SensitivityN.shares must be above 0 and below 1, got 0"),
        (lambda: Infidelity(samples=1, optimal_scale=True), "Infidelity.samples must be an integer of at least 2"),
        (lambda: PixelNoise(0), "PixelNoise.sigma must be above 0, got 0"),
        (lambda: SquareRemoval(1.5), "SquareRemoval.share must be above 0 and below 1, got 1.5"),
        (lambda: PixelRemoval(0), "PixelRemoval.share must be above 0 and below 1, got 0"),
        (lambda: ROADDifference(shares=[]), "ROADDifference.shares must hold at least one share"),
        (lambda: ROADDifference(noise=-1), "ROADDifference.noise must be at least 0, got -1"),
        (lambda: ROADDifference(measure="accuracy"), "measure must be one of 'prediction_kept', 'label_probability'"),
        (lambda: IROF(grid=0), "IROF.grid must be an integer of at least 1, got 0"),
        (lambda: Monotonicity(grid=1), "Monotonicity.grid must be an integer of at least 2, got 1"),
        (lambda: Monotonicity(samples=0), "Monotonicity.samples must be an integer of at least 1, got 0"),
    ],
)
def test_a_value_outside_its_range_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()

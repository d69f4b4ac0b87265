"""Alignment with the image, its edges and other maps; smoothness; complexity; the maps that ignore the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pi

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor, nn

from xrobust.attacks import DDN
from xrobust.attributions import (
    Attribution,
    BoundarySaliency,
    EdgeDetector,
    Gradient,
    RandomMap,
    SmoothGrad,
    sobel_magnitude,
)
from xrobust.errors import UserError
from xrobust.metrics import (
    EffectiveComplexity,
    ExplanationMetric,
    HighBandEnergy,
    ImageCosine,
    MapCosine,
    Probe,
    SobelCorrelation,
)
from xrobust.metrics.effective_complexity import effective_complexity
from xrobust.metrics.high_band_energy import high_band_energy
from xrobust.metrics.map_cosine import cosine
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Given(Attribution):
    """Maps made in advance; `asked` notes how often they were wanted."""

    maps: Tensor
    asked: list[int] = field(default_factory=list, repr=False)

    def attribute(self, model, x, score, create_graph, generator) -> Tensor:
        self.asked.append(len(x))
        return self.maps.to(x.dtype)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_probe(x: Tensor, method: Attribution, model: nn.Module | None = None) -> Probe:
    y, index = torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x))
    return Probe(model=model or nn.Identity(), x=x, y=y, index=index, method=method, threat=ThreatModel("l2", 1))


def scores(metric: ExplanationMetric, maps: Tensor, x: Tensor) -> Tensor:
    return metric.per_sample(make_probe(x, Given(maps=maps)))


class TestEffectiveComplexity:
    @pytest.mark.parametrize(
        ("values", "threshold", "expected"),
        [
            ([1, 1, 1, 1], 0.1, 1),
            ([0, 0, 7, 0], 0.1, 1 / 4),
            ([10, 2, 1, 0.5], 0.1, 2 / 4),  # a tenth is not above a tenth
            ([10, 2, 1, 0.5], 0, 1),
            ([10, 2, 1, 0], 0, 3 / 4),
        ],
    )
    def test_counts_the_pixels_above_a_share_of_the_largest(self, values, threshold, expected):
        for scale in (1, 2.0**-20):
            found = effective_complexity(scale * torch.tensor([values], dtype=torch.float64), threshold)
            assert found.item() == expected

    def test_sums_up_the_colours_without_their_sign(self):
        maps = torch.tensor([[[[4.0, 0.1]], [[-4.0, -0.1]]]])
        assert scores(EffectiveComplexity(), maps, torch.zeros(1, 2, 1, 2)).item() == 1 / 2

    def test_is_undefined_where_nothing_is_relevant_or_finite(self):
        maps = torch.zeros(2, 1, 2, 2)
        maps[1, 0, 0, 0] = torch.nan
        assert scores(EffectiveComplexity(), maps, maps).isnan().all()


class TestHighBandEnergy:
    def wave(self, down: int, across: int, amplitude: float = 1.0, size: tuple[int, int] = (16, 20)) -> Tensor:
        """A sinusoid with whole numbers of periods along the sides."""
        rows, columns = (torch.arange(n, dtype=torch.float64) / n for n in size)
        return amplitude * torch.cos(2 * pi * (down * rows[:, None] + across * columns) + 0.3)[None, None]

    @pytest.mark.parametrize(
        ("down", "across", "high"),
        [(3, 0, 0), (4, 0, 0), (5, 0, 1), (0, 4, 0), (0, 6, 1), (3, 3, 0), (3, 4, 1), (8, 0, 1)],
    )
    def test_a_pure_wave_is_on_one_side(self, down: int, across: int, high: int):
        frequency = np.hypot(down / 16, across / 20)
        assert high == (frequency > 0.25)
        assert high_band_energy(self.wave(down, across), 0.25).item() == pytest.approx(high, abs=1e-12)

    def test_energies_of_waves_add_up(self):
        maps = self.wave(1, 2, 3.0) + self.wave(6, 3, 2.0) + self.wave(0, 7, 1.0)
        assert high_band_energy(maps, 0.25).item() == pytest.approx(5 / 14)
        colours = torch.cat([self.wave(1, 2, 3.0), self.wave(6, 3, 2.0), self.wave(0, 7, 1.0)], 1)
        assert scores(HighBandEnergy(), colours, colours).item() == pytest.approx(5 / 14)

    def test_white_noise_has_its_share_of_frequencies(self):
        assert high_band_energy(drawn(1, 1, 512, 512) - 0.5, 0.25).item() == pytest.approx(1 - pi / 16, abs=0.01)

    def test_a_flat_map_has_no_grain_and_a_zero_map_is_undefined(self):
        assert high_band_energy(torch.ones(1, 1, 8, 8), 0.25).item() == 0
        assert high_band_energy(torch.zeros(1, 1, 8, 8), 0.25).isnan().all()


class TestImageCosine:
    def test_of_the_image_itself_is_one_and_of_its_background_nothing(self):
        x = (drawn(5, 3, 6, 6) > 0.8).double()
        assert scores(ImageCosine(), -2 * x, x).tolist() == pytest.approx([1] * 5)
        assert scores(ImageCosine(), (x.sum(1, keepdim=True) == 0).double().expand_as(x), x).tolist() == [0] * 5

    def test_of_a_flat_map_is_the_ratio_of_the_images_norms(self):
        x = drawn(5, 1, 6, 6)
        expected = x.flatten(1).norm(1, dim=1) / (6 * x.flatten(1).norm(dim=1))
        torch.testing.assert_close(scores(ImageCosine(), torch.full_like(x, -0.3), x), expected)

    def test_is_undefined_for_a_black_image_and_for_a_zero_map(self):
        x = drawn(2, 1, 4, 4)
        assert scores(ImageCosine(), x, torch.zeros_like(x)).isnan().all()
        assert scores(ImageCosine(), torch.zeros_like(x), x).isnan().all()


class TestSobel:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_is_scipys_filter_on_each_channel(self, dtype):
        x = drawn(2, 3, 7, 9).to(dtype)
        for image, edges in zip(x.flatten(0, 1), sobel_magnitude(x).flatten(0, 1), strict=True):
            parts = [ndimage.sobel(image.numpy(), axis=axis, mode="nearest") for axis in (0, 1)]
            np.testing.assert_allclose(edges.numpy(), np.hypot(*parts), rtol=1e-5)

    def test_of_a_step_is_four_times_its_height_on_both_sides(self):
        x = torch.zeros(1, 1, 5, 6)
        x[..., 3:] = 0.5
        expected = torch.tensor([0, 0, 2.0, 2.0, 0, 0]).expand(1, 1, 5, 6)
        assert torch.equal(sobel_magnitude(x), expected)
        assert torch.equal(sobel_magnitude(x.mT), expected.mT)

    def test_of_a_flat_image_is_exactly_zero(self):
        assert not sobel_magnitude(torch.full((1, 3, 28, 28), 0.3)).any()


class TestSobelCorrelation:
    @pytest.mark.parametrize(("kind", "expected"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
    def test_is_scipys_correlation_with_the_edges(self, kind, expected):
        x, maps = drawn(4, 3, 8, 8), drawn(4, 3, 8, 8, seed=1) - 0.5
        edges, relevance = sobel_magnitude(x).sum(1).flatten(1), maps.abs().sum(1).flatten(1)
        wanted = [expected(a.numpy(), b.numpy()).statistic for a, b in zip(relevance, edges, strict=True)]
        np.testing.assert_allclose(scores(SobelCorrelation(kind), maps, x).numpy(), wanted)

    @pytest.mark.parametrize("kind", ["pearson", "spearman"])
    def test_of_the_edges_themselves_is_one_and_undefined_where_there_are_none(self, kind):
        x = drawn(4, 3, 8, 8)
        x[2:] = 0.3
        values = SobelCorrelation(kind).per_sample(make_probe(x, EdgeDetector()))
        assert values[:2].tolist() == pytest.approx([1, 1]) and values[2:].isnan().all()
        assert scores(SobelCorrelation(kind), torch.ones_like(x), x).isnan().all()


class TestMapCosine:
    def test_is_the_cosine_over_all_entries_with_sign(self):
        first, second = drawn(4, 3, 5, 5) - 0.5, drawn(4, 3, 5, 5, seed=1) - 0.5
        expected = torch.cosine_similarity(first.flatten(1), second.flatten(1))
        torch.testing.assert_close(scores(MapCosine(Given(maps=second)), first, first), expected)
        assert scores(MapCosine(Given(maps=-3 * first)), first, first).tolist() == pytest.approx([-1] * 4)

    def test_where_either_map_is_zero_or_not_finite_it_is_undefined(self):
        rows = torch.tensor([[0.0, 0.0], [1.0, torch.nan], [1.0, torch.inf]])
        assert cosine(rows, torch.ones(3, 2)).isnan().all() and cosine(torch.ones(3, 2), rows).isnan().all()

    def test_the_reference_is_asked_once_for_all_methods(self):
        x = drawn(4, 1, 5, 5)
        reference = Given(maps=drawn(4, 1, 5, 5, seed=1))
        other = Given(maps=drawn(4, 1, 5, 5, seed=2))
        probe = make_probe(x, Given(maps=x))
        values = [MapCosine(reference).per_sample(probe.using(method)) for method in (probe.method, reference)]
        assert reference.asked == [4, 4], "once as the reference, once under test"
        assert not torch.allclose(values[0], values[1])
        assert not torch.allclose(MapCosine(other).per_sample(probe), values[0])

    def test_the_gradient_of_a_linear_model_is_the_normal_of_its_boundary(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
        attack = DDN(threat=ThreatModel("l2", 1), steps=40)
        x = drawn(6, 1, 4, 4)
        with torch.no_grad():
            model[1].bias -= model(x).mean(0)  # so that the boundary is among the images
        metric = MapCosine(BoundarySaliency(attack=attack))
        assert metric.per_sample(make_probe(x, Gradient(), model)).tolist() == pytest.approx([1] * 6)

    def test_smoothed_gradients_agree_with_the_boundary_and_noise_does_not(self, digits, digits_model):
        x = digits[0][:20]
        metric = MapCosine(BoundarySaliency(attack=DDN(threat=ThreatModel("l2", 1), steps=20)))
        agreement = [
            metric.per_sample(make_probe(x, method, digits_model)).nanmean().item()
            for method in (SmoothGrad(sigma=0.1, samples=8), RandomMap())
        ]
        assert agreement[0] > 0.3 > abs(agreement[1])


class TestMapsThatIgnoreTheModel:
    @pytest.mark.parametrize("method", [RandomMap(), EdgeDetector()])
    def test_neither_the_model_nor_the_label_matters(self, method: Attribution, digits):
        x, y = digits[0][:5].double(), digits[1][:5]

        class Untouchable(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise AssertionError("the model was asked")

        maps = method(Untouchable(), x, y)
        assert maps.shape == x.shape and maps.dtype == x.dtype
        assert torch.equal(maps, method(nn.Identity(), x, 9 - y))
        with pytest.raises(UserError, match="cannot be differentiated"):
            method(Untouchable(), x, y, create_graph=True)

    def test_a_random_map_is_normal_and_belongs_to_its_stream(self):
        x, y = torch.zeros(50, 1, 20, 20), torch.zeros(50, dtype=torch.int64)
        maps = RandomMap()(nn.Identity(), x, y)
        assert stats.kstest(maps.flatten().numpy(), "norm").pvalue > 0.01
        assert torch.equal(RandomMap()(nn.Identity(), x[:3], y[:3]), maps[:3])
        assert torch.equal(RandomMap()(nn.Identity(), x[:2], y[:2], generator=SampleStreams(0, [7, 3])), maps[[7, 3]])
        assert not torch.equal(RandomMap(seed=1)(nn.Identity(), x, y), maps)

    def test_the_edge_detector_shows_the_edges(self, digits):
        x, y = digits[0][:5], digits[1][:5]
        assert torch.equal(EdgeDetector()(nn.Identity(), x, y), sobel_magnitude(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EffectiveComplexity(threshold=1), "EffectiveComplexity.threshold must be .* below 1, got 1"),
        (lambda: EffectiveComplexity(threshold=-0.1), r"EffectiveComplexity.threshold must be .*, got -0.1"),
        (lambda: HighBandEnergy(radius=0.6), r"HighBandEnergy.radius must be between 0 and 0.5, got 0.6"),
        (lambda: SobelCorrelation("kendall"), "must be one of 'pearson', 'spearman', got 'kendall'"),
    ],
)
def test_a_value_outside_its_range_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()

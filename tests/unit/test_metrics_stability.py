"""Stability metrics: scipy, captum and torchmetrics where they have them, closed forms, undefined rows, faults."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from xrobust.attacks import PGD, TopKAttack
from xrobust.attributions import Gradient, InputXGradient, IntegratedGradients
from xrobust.errors import UserError
from xrobust.metrics import (
    SSIM,
    AverageSensitivity,
    CosineSimilarity,
    ExplanationMetric,
    KendallTau,
    LocalLipschitz,
    MaxSensitivity,
    PredictionKept,
    Probe,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
    SpearmanCorrelation,
    TolerantTopK,
    TopKIntersection,
    magnitude,
)
from xrobust.metrics.kendall import inversions, kendall_tau
from xrobust.metrics.relative_representation_stability import representation
from xrobust.metrics.relative_stability import relative_change
from xrobust.metrics.tolerant_topk import tolerant_topk_intersection
from xrobust.metrics.topk_intersection import topk_intersection
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "0.1")
NEIGHBOURS = [
    MaxSensitivity,
    LocalLipschitz,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(count: int, *shape: int) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def linear(weights: Tensor) -> nn.Module:
    """f(x) = ⟨w_k, x⟩ in float64, for weights (K, C, H, W)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), len(weights), bias=False)).double()
    model[1].weight.data.copy_(weights.flatten(1))
    return model


def make_probe(model: nn.Module, x: Tensor, y: Tensor | None = None, **changes) -> Probe:
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    values = {"method": Gradient(), "threat": THREAT, **changes}
    return Probe(model=model, x=x, y=y, index=torch.arange(len(x)), **values)


def neighbours(probe: Probe, samples: int = 10) -> list[Tensor]:
    """The points that the metrics of the worst neighbour see."""
    streams = probe.streams("neighbours")
    return [probe.threat.random_start(probe.x, streams) for _ in range(samples)]


@pytest.fixture
def probe(digits: tuple[Tensor, Tensor], digits_model: nn.Module) -> Probe:
    return make_probe(
        digits_model,
        digits[0][:24],
        digits[1][:24],
        attack=PGD(threat=THREAT, steps=5),
        map_attack=TopKAttack(threat=THREAT, attribution=Gradient(), steps=5),
    )


class TestKendall:
    @pytest.mark.parametrize("levels", [2, 10, 1e6])
    @pytest.mark.parametrize("size", [2, 5, 64, 100])
    def test_equals_scipy_with_and_without_ties(self, levels, size):
        first = (noise(8, size) * levels).round()
        second = (noise(8, size, seed=1) * levels).round() + first
        expected = [scipy.stats.kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(kendall_tau(first, second), expected, atol=1e-12)
        single = kendall_tau(second.float(), first.float())
        torch.testing.assert_close(single, kendall_tau(first, second), equal_nan=True)

    def test_of_the_same_order_and_of_the_opposite(self):
        values = noise(3, 50)
        torch.testing.assert_close(kendall_tau(values, values.exp()), torch.ones(3).double())
        torch.testing.assert_close(kendall_tau(values, -values), -torch.ones(3).double())

    @pytest.mark.parametrize("size", [1, 2, 3, 8, 13])
    def test_inversions_are_the_pairs_out_of_order(self, size):
        values = (noise(6, size) * 2).round()
        pairs = (values[:, :, None] > values[:, None, :]).triu()
        assert torch.equal(inversions(values), pairs.sum((1, 2)))

    def test_counts_more_pairs_than_float32_can_hold(self):
        values = torch.arange(20_000.0)[None]
        assert inversions(values.flip(1)).item() == 20_000 * 19_999 // 2
        assert kendall_tau(values, values).item() == pytest.approx(1)

    def test_is_undefined_for_a_constant_or_broken_map(self):
        good = noise(1, 4)
        for bad in (torch.zeros(1, 4), torch.full((1, 4), 0.1), torch.tensor([[1.0, torch.nan, 2.0, 3.0]])):
            assert kendall_tau(bad.double(), good).isnan().all() and kendall_tau(good, bad.double()).isnan().all()


def lit(*pixels: tuple[int, int], size: int = 6) -> Tensor:
    """A map whose given pixels have relevance, the first one most."""
    values = torch.zeros(1, size, size)
    for rank, (row, column) in enumerate(pixels):
        values[0, row, column] = 10.0 - rank
    return values


class TestTolerantTopK:
    @pytest.mark.parametrize(("shift", "radius", "expected"), [(0, 0, 1), (1, 0, 0), (1, 1, 1), (2, 1, 0), (2, 2, 1)])
    def test_forgives_shifts_up_to_the_radius(self, shift, radius, expected):
        first, second = lit((1, 1), (1, 4)), lit((1 + shift, 1), (1 + shift, 4))
        assert tolerant_topk_intersection(first, second, 2, radius).item() == expected

    def test_windows_are_squares_that_end_at_the_border(self):
        assert tolerant_topk_intersection(lit((2, 2)), lit((3, 3)), 1, 1).item() == 1
        assert tolerant_topk_intersection(lit((0, 0)), lit((0, 5)), 1, 4).item() == 0
        assert tolerant_topk_intersection(lit((1, 5)), lit((2, 0)), 1, 1).item() == 0

    def test_a_clump_finds_no_more_than_it_covers(self):
        spread, clump = lit((0, 0), (0, 5), (5, 0), (3, 3)), lit((3, 3), (3, 4), (4, 3), (4, 4))
        assert tolerant_topk_intersection(spread, clump, 4, 1).item() == 1 / 4
        assert tolerant_topk_intersection(clump, spread, 4, 1).item() == 1 / 4

    def test_with_radius_zero_is_the_plain_intersection(self):
        first, second = noise(9, 7, 8).abs(), noise(9, 7, 8, seed=1).abs()
        first[0], second[1] = lit((1, 1), size=8)[0, :7], lit((2, 2), (3, 3), size=8)[0, :7]
        plain = topk_intersection(first.flatten(1), second.flatten(1), 10)
        torch.testing.assert_close(tolerant_topk_intersection(first, second, 10, 0), plain)

    def test_grows_with_the_radius(self):
        first, second = noise(9, 8, 8).abs(), noise(9, 8, 8, seed=1).abs()
        values = torch.stack([tolerant_topk_intersection(first, second, 6, radius) for radius in range(8)])
        assert (values.diff(dim=0) >= 0).all() and (values[-1] == 1).all()

    def test_is_undefined_for_a_zero_or_broken_map(self):
        good, broken = lit((1, 1)), lit((1, 1))
        broken[0, 0, 0] = torch.nan
        for bad in (torch.zeros(1, 6, 6), broken):
            assert tolerant_topk_intersection(bad, good, 2, 1).isnan().all()
            assert tolerant_topk_intersection(good, bad, 2, 1).isnan().all()


class TestComparisons:
    COMPARISONS = (TopKIntersection, TolerantTopK, SpearmanCorrelation, KendallTau, SSIM, CosineSimilarity)

    @pytest.mark.parametrize("kind", COMPARISONS)
    @pytest.mark.parametrize("versus", ["adversarial", "neighbour", "attacked"])
    def test_a_gradient_that_does_not_move_is_perfectly_stable(self, kind, versus):
        model, x = linear(noise(3, 1, 8, 8)), images(5, 1, 8, 8)
        attack = TopKAttack(threat=THREAT, attribution=Gradient(), steps=2)
        probe = make_probe(model, x, attack=PGD(threat=THREAT, steps=2), map_attack=attack)
        assert kind(versus=versus).per_sample(probe).tolist() == pytest.approx([1] * 5)

    @pytest.mark.parametrize("kind", COMPARISONS)
    def test_an_attack_on_the_map_does_more_than_noise(self, kind, probe):
        noisy, attacked = (kind(versus=versus).per_sample(probe).mean() for versus in ("neighbour", "attacked"))
        assert attacked < noisy - 0.02

    def test_the_attack_is_on_the_method_under_test(self, probe):
        other = probe.using(IntegratedGradients(steps=4))
        assert not torch.equal(other.attacked, probe.attacked)
        metric = TopKIntersection(versus="attacked")
        swapped = magnitude(other.attribute(probe.attacked)).flatten(1), magnitude(other.map).flatten(1)
        assert metric.per_sample(other).mean() < topk_intersection(*swapped, 6).mean()

    def test_ssim_is_that_of_torchmetrics_on_maps_scaled_to_one(self):
        model, x = (
            nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 26 * 26, 3)),
            images(4, 2, 28, 28),
        )
        probe = make_probe(model.double(), x)
        first, second = (
            (magnitude(maps) / magnitude(maps).amax((1, 2), keepdim=True))[:, None]
            for maps in (probe.map, probe.neighbour_map)
        )
        _, everywhere = structural_similarity_index_measure(
            first, second, data_range=1.0, reduction="none", return_full_image=True
        )
        expected = everywhere[..., 5:-5, 5:-5].mean((1, 2, 3))  # where the window fits
        torch.testing.assert_close(SSIM("neighbour").per_sample(probe), expected)

    def test_cosine_is_signed_and_sees_all_channels(self):
        class Mirror(InputXGradient):
            def attribute(self, model, x, score, create_graph, generator):
                return torch.where((x[:, :1, :1, :1] > 0.5), 1, -1) * super().attribute(
                    model, x, score, create_graph, generator
                )

        x = images(9, 3, 8, 8)
        x[:, 0, 0, 0] = 0.5 + 1e-9
        probe = make_probe(linear(torch.ones(2, 3, 8, 8)), x, method=Mirror())
        flips = probe.neighbour[:, 0, 0, 0] <= 0.5
        assert flips.any() and not flips.all()
        expected = torch.cosine_similarity(x.flatten(1), probe.neighbour.flatten(1)) * torch.where(flips, -1, 1)
        torch.testing.assert_close(CosineSimilarity("neighbour").per_sample(probe), expected)


class TestPredictionKept:
    @pytest.mark.parametrize("versus", ["adversarial", "neighbour", "attacked"])
    def test_is_whether_the_prediction_is_that_of_the_image(self, versus, probe):
        points = getattr(probe, versus)
        expected = probe.model(points).argmax(1) == probe.model(probe.x).argmax(1)
        assert torch.equal(PredictionKept(versus).per_sample(probe), expected.double())

    def test_an_attack_on_the_map_keeps_them_all_and_one_on_the_prediction_does_not(self, probe):
        assert PredictionKept("attacked").per_sample(probe).mean() == 1
        assert PredictionKept("adversarial").per_sample(probe).mean() < 0.8

    def test_depends_on_the_attribution_only_where_it_was_attacked(self):
        uses = {versus: PredictionKept(versus).uses_attribution for versus in ("adversarial", "neighbour", "attacked")}
        assert uses == {"adversarial": False, "neighbour": False, "attacked": True}


class TestWorstNeighbour:
    def test_max_sensitivity_equals_captum_on_the_same_points(self, probe):
        captum = pytest.importorskip("captum.metrics")
        points = iter(neighbours(probe, 5))

        def explain(inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (Gradient()(probe.model, inputs[0], probe.y),)

        expected = captum.sensitivity_max(
            explain,
            (probe.x,),
            perturb_func=lambda inputs, radius: (next(points),),
            n_perturb_samples=5,
            max_examples_per_batch=len(probe),
        )
        torch.testing.assert_close(MaxSensitivity(5).per_sample(probe), expected.double(), rtol=1e-4, atol=1e-6)

    def test_max_sensitivity_of_input_times_gradient_is_the_largest_relative_noise(self):
        probe = make_probe(linear(torch.ones(2, 1, 5, 5)), images(4, 1, 5, 5), method=InputXGradient())
        sizes = [
            (point - probe.x).flatten(1).norm(dim=1) / probe.x.flatten(1).norm(dim=1) for point in neighbours(probe)
        ]
        torch.testing.assert_close(MaxSensitivity().per_sample(probe), torch.stack(sizes).amax(0))

    def test_the_lipschitz_constant_of_a_linear_map_is_found(self):
        probe = make_probe(linear(3 * torch.ones(2, 1, 5, 5)), images(4, 1, 5, 5), method=InputXGradient())
        assert LocalLipschitz(2).per_sample(probe).tolist() == pytest.approx([3] * 4)

    def test_the_maximum_is_above_the_average_and_grows_with_the_number_of_points(self, probe):
        few, many = (MaxSensitivity(n).per_sample(probe) for n in (3, 30))
        assert (many >= few).all() and many.mean() > few.mean()
        assert many.mean() > AverageSensitivity(10).per_sample(probe).mean()

    def test_all_see_the_same_points(self, probe):
        (point,) = neighbours(probe, 1)
        distance = (point - probe.x).flatten(1).double().norm(dim=1)
        moved = LocalLipschitz(1).per_sample(probe) * distance
        size = probe.map.flatten(1).double().norm(dim=1)
        torch.testing.assert_close(MaxSensitivity(1).per_sample(probe) * size, moved)

    @pytest.mark.parametrize("kind", NEIGHBOURS)
    def test_is_undefined_for_a_zero_map_and_where_a_neighbour_has_none(self, kind):
        class Hole(Gradient):
            def attribute(self, model, x, score, create_graph, generator):
                found = super().attribute(model, x, score, create_graph, generator)
                return found.where(x[:, :1, :1, :1] >= 0.5, torch.nan)

        x = images(3, 1, 4, 4)
        zero = make_probe(linear(torch.zeros(2, 1, 4, 4)), x)
        assert kind().per_sample(zero).isnan().all()
        x[:, 0, 0, 0] = torch.tensor([0.5, 0.9, 0.9])
        holed = make_probe(linear(noise(2, 1, 4, 4)), x, method=Hole(), threat=ThreatModel("linf", "0.01"))
        assert kind().per_sample(holed).isnan().tolist() == [True, False, False]

    def test_lipschitz_is_undefined_where_nothing_moves(self):
        still = make_probe(linear(noise(2, 1, 4, 4)), images(3, 1, 4, 4), threat=ThreatModel("linf", 0))
        assert LocalLipschitz().per_sample(still).isnan().all()
        assert MaxSensitivity().per_sample(still).tolist() == [0] * 3


class TestRelativeStability:
    def test_relative_change_is_that_of_the_entries(self):
        before, after = torch.tensor([[2.0, -4.0]]), torch.tensor([[3.0, -4.0]])
        assert relative_change(before, after, 0.1).item() == pytest.approx(1 / 2)
        assert relative_change(before, -before, 0.1).item() == pytest.approx(8**0.5)

    def test_an_entry_near_zero_counts_relative_to_a_share_of_the_typical_one(self):
        before, after = torch.tensor([[0.0, 2.0, 0.0, 0.0]]), torch.tensor([[0.5, 2.0, 0.0, 0.0]])
        typical = 1.0  # √(2² / 4)
        assert relative_change(before, after, 0.1).item() == pytest.approx(0.5 / (0.1 * typical))
        assert relative_change(before, after, 1.0).item() == pytest.approx(0.5 / typical)

    def test_relative_change_is_free_of_scale_and_not_finite_from_zero(self):
        before, after = noise(4, 30), noise(4, 30, seed=1)
        torch.testing.assert_close(relative_change(7 * before, 7 * after, 0.1), relative_change(before, after, 0.1))
        assert not relative_change(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]]), 0.1).isfinite().any()

    def test_ris_is_one_where_the_map_is_the_image(self):
        """Also with a blank background, on which a division by the pixel would collapse the ratio."""
        x = images(4, 1, 6, 6)
        x[:, :, :, :4] = 0
        probe = make_probe(linear(torch.stack([torch.ones(1, 6, 6), -torch.ones(1, 6, 6)])), x, method=InputXGradient())
        assert RelativeInputStability(3).per_sample(probe).tolist() == pytest.approx([1] * 4)

    def test_rrs_of_a_linear_model_is_ris(self):
        model, x = linear(torch.stack([images(1, 1, 6, 6)[0], -torch.ones(1, 6, 6)])), images(4, 1, 6, 6)
        probe = make_probe(model, x, method=IntegratedGradients(steps=2))
        ris = RelativeInputStability().per_sample(probe)
        torch.testing.assert_close(RelativeRepresentationStability().per_sample(probe), ris)

    def test_ros_divides_by_the_change_of_the_logits(self):
        weights = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)]).double()
        probe = make_probe(linear(weights), images(3, 1, 4, 4), method=InputXGradient())
        values = []
        for point in neighbours(probe):
            moved = (point - probe.x).flatten(1)
            effect = relative_change(probe.x.flatten(1), point.flatten(1), 0.1)
            values.append(effect / (2**0.5 * moved.sum(1).abs()).clamp(min=1e-3))
        torch.testing.assert_close(RelativeOutputStability().per_sample(probe), torch.stack(values).amax(0))

    def test_the_least_cause_keeps_it_finite_where_the_logits_stand_still(self):
        class Deaf(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x.flatten(1)[:, :2] * 0 + torch.tensor([1.0, 0.0])) + 1e-30 * x.flatten(1)[:, :2]

        probe = make_probe(Deaf(), images(3, 1, 4, 4), method=InputXGradient())
        ros = RelativeOutputStability(least_cause=0.5).per_sample(probe)
        effect = [relative_change(probe.map.flatten(1), probe.attribute(p).flatten(1), 0.1) for p in neighbours(probe)]
        torch.testing.assert_close(ros, torch.stack(effect).amax(0) / 0.5)

    @pytest.mark.parametrize("kind", NEIGHBOURS[2:])
    def test_points_with_another_prediction_are_no_neighbours(self, kind):
        class Switch(nn.Module):
            """Class 0 where the first pixel is above ½; a map that depends on the image."""

            def __init__(self) -> None:
                super().__init__()
                self.head = nn.Linear(16, 2).double()

            def forward(self, x: Tensor) -> Tensor:
                class_1 = (x[:, 0, 0, :1] <= 0.5).double()
                return self.head(x.flatten(1) ** 2) * 1e-3 + torch.cat([1 - class_1, class_1], 1)

        x = images(3, 1, 4, 4)
        x[:, 0, 0, 0] = torch.tensor([0.9, 0.5 + 1e-4, 0.1])
        probe = make_probe(Switch(), x, torch.tensor([0, 0, 1]))
        same = [probe.logits_at(point).argmax(1) == probe.prediction for point in neighbours(probe, 3)]
        assert torch.stack(same).sum(0).tolist()[::2] == [3, 3] and 0 < torch.stack(same)[:, 1].sum() < 3
        single = torch.stack([kind(1).per_sample(probe)])
        assert single[0, 0].isfinite() and single[0, 1].isfinite() == same[0][1]
        assert kind(3).per_sample(probe).isfinite().all()

    def test_of_a_black_image_the_input_has_no_share(self):
        probe = make_probe(linear(noise(2, 1, 4, 4)), torch.zeros(2, 1, 4, 4))
        assert RelativeInputStability().per_sample(probe).isnan().all()
        assert RelativeOutputStability().per_sample(probe).isfinite().all()

    def test_the_representation_is_the_input_of_the_last_linear_layer_called(self, digits_model, digits):
        x, layers = digits[0][:7], digits_model.layers
        found = representation(digits_model, x, batch_size=3)
        torch.testing.assert_close(layers.linear2(found), digits_model(x))

        class Backwards(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.head, self.body = nn.Linear(5, 2), nn.Linear(64, 5)

            def forward(self, x: Tensor) -> Tensor:
                return self.head(self.body(x.flatten(1)))

        model = Backwards()
        torch.testing.assert_close(representation(model, x, 256), model.body(x.flatten(1)))

    def test_a_model_without_linear_layers_has_none_and_keeps_no_hooks(self, digits_model, digits):
        model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten())
        with pytest.raises(UserError, match=r"calls an nn\.Linear"):
            RelativeRepresentationStability().per_sample(make_probe(model, digits[0][:2]))
        lacking, there = (make_probe(network, digits[0][:2]) for network in (model, digits_model))
        assert RelativeRepresentationStability().lacks(lacking) == "a model that calls an nn.Linear"
        assert RelativeRepresentationStability().lacks(there) is None
        with pytest.raises(RuntimeError, match="shape"):
            representation(digits_model, torch.zeros(1, 1, 5, 5), 256)
        representation(digits_model, digits[0][:2], 256)
        assert not any(module._forward_pre_hooks for module in digits_model.modules())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MaxSensitivity(0), "MaxSensitivity.samples must be an integer of at least 1, got 0"),
        (lambda: LocalLipschitz(1.5), "LocalLipschitz.samples must be an integer of at least 1, got 1.5"),
        (lambda: RelativeInputStability(floor=0.0), "RelativeInputStability.floor must be above 0, got 0.0"),
        (lambda: RelativeOutputStability(floor=-1), "RelativeOutputStability.floor must be at least 0, got -1"),
        (lambda: RelativeOutputStability(least_cause=0), "RelativeOutputStability.least_cause must be above 0, got 0"),
        (lambda: TolerantTopK(radius=-1), "TolerantTopK.radius must be an integer of at least 0, got -1"),
        (lambda: TolerantTopK(share=0), "share must be above 0 and at most 1, got 0"),
        (lambda: KendallTau("noise"), "KendallTau.versus must be one of.*got 'noise'"),
        (lambda: PredictionKept("noise"), "PredictionKept.versus must be one of.*got 'noise'"),
    ],
)
def test_a_value_outside_its_range_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


class Swallowing(MaxSensitivity):
    """A planted fault: a maximum that forgets what is undefined."""

    def per_sample(self, probe: Probe) -> Tensor:
        values = torch.stack([self.instability(probe, points) for points in neighbours(probe, self.samples)])
        return values.nan_to_num(0).amax(0)


def test_the_check_of_undefined_neighbours_sees_a_maximum_that_swallows_them():
    def check(kind: type[ExplanationMetric]) -> None:
        TestWorstNeighbour().test_is_undefined_for_a_zero_map_and_where_a_neighbour_has_none(kind)

    check(MaxSensitivity)
    with pytest.raises(AssertionError):
        check(Swallowing)

"""The pure functions under the metrics: closed forms, scipy, undefined rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from xrobust.errors import UserError
from xrobust.metrics import Accuracy, wilson_interval
from xrobust.metrics.alignment import alignment, centred
from xrobust.metrics.entropy import entropy
from xrobust.metrics.gini_index import gini_index
from xrobust.metrics.linearised_robustness import linearised_robustness
from xrobust.metrics.pixel_flipping import flip_ranks
from xrobust.metrics.spearman import average_ranks, spearman_correlation
from xrobust.metrics.topk_intersection import topk_intersection
from xrobust.metrics.total_variation import total_variation


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ZERO, NOT_FINITE = [0.0] * 4, [1.0, float("nan"), 2.0, 3.0]


class TestGini:
    def test_is_zero_for_equal_values_and_largest_for_a_single_one(self):
        assert gini_index(rows([2, 2, 2, 2], [0, 0, 5, 0])).tolist() == pytest.approx([0, 3 / 4])

    def test_is_half_the_relative_mean_difference_whatever_the_order_and_scale(self):
        values = noise(6, 30).abs()
        differences = (values[:, :, None] - values[:, None]).abs().double().mean((1, 2))
        torch.testing.assert_close(gini_index(values), differences / (2 * values.double().mean(1)))
        torch.testing.assert_close(gini_index(1000 * values.flip(1)), gini_index(values))

    def test_is_undefined_for_a_zero_map(self):
        assert gini_index(rows(ZERO, NOT_FINITE)).isnan().all()


class TestEntropy:
    def test_is_zero_for_a_single_pixel_and_the_logarithm_of_their_number_for_equal_ones(self):
        assert entropy(rows([0, 0, 7, 0], [3, 3, 3, 3])).tolist() == pytest.approx([0, math.log(4)])

    def test_equals_scipy(self):
        values = noise(6, 30).abs().double()
        np.testing.assert_allclose(entropy(values), scipy.stats.entropy(values.numpy(), axis=1))

    def test_is_undefined_for_a_zero_map(self):
        assert entropy(rows(ZERO, NOT_FINITE)).isnan().all()


class TestAlignment:
    def test_is_the_length_of_the_image_along_the_map(self):
        image = rows([3, 4], [3, 4], [3, 4])
        found = alignment(image, rows([3, 4], [-1, 0], [4, -3]))
        assert found.tolist() == pytest.approx([5, 3, 0])

    def test_is_undefined_without_a_direction(self):
        assert alignment(rows(ZERO, [1, 2, 3, 4]), rows([1, 2, 3, 4], ZERO)).isnan().all()

    def test_centring_leaves_a_constant_row_without_direction(self):
        found = centred(torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.5, 1.0]]))
        assert found[0].tolist() == [0, 0, 0]
        for size in range(2, 100):  # whether or not rounding moves the mean
            assert not centred(torch.full((1, size), 0.1, dtype=torch.float64)).any()
        assert found[1].tolist() == pytest.approx([-0.5, 0, 0.5])


class TestTotalVariation:
    def test_of_a_chessboard_a_lone_pixel_an_edge_and_a_constant(self):
        chessboard = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]])
        lone = torch.zeros(4, 4)
        lone[1, 1] = 9
        edge = torch.tensor([[0.0, 0, 1, 1]]).expand(4, 4)
        maps = torch.stack([chessboard, lone, edge, torch.ones(4, 4)])
        assert total_variation(maps).tolist() == pytest.approx([24 / 8, 4, 4 / 8, 0])

    def test_is_undefined_for_a_zero_map(self):
        assert total_variation(torch.zeros(1, 3, 3)).isnan().all()


class TestSpearman:
    @pytest.mark.parametrize("levels", [3, 10, 10_000])
    def test_equals_scipy_with_and_without_ties(self, levels):
        first = (noise(8, 60) * levels).round() / levels
        second = (noise(8, 60, seed=1) * levels).round() / levels + first
        expected = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(spearman_correlation(first, second), expected, atol=1e-12)

    def test_ranks_equal_scipy(self):
        values = (noise(5, 40) * 3).round()
        np.testing.assert_array_equal(average_ranks(values), scipy.stats.rankdata(values, axis=1))

    def test_of_the_same_order_and_of_the_opposite(self):
        values = noise(3, 20)
        torch.testing.assert_close(spearman_correlation(values, values.exp()), torch.ones(3).double())
        torch.testing.assert_close(spearman_correlation(values, -values), -torch.ones(3).double())

    def test_is_undefined_for_a_constant_or_broken_map(self):
        good = rows([1, 2, 3, 4])
        for bad in (ZERO, [0.1] * 4, NOT_FINITE):
            assert spearman_correlation(rows(bad), good).isnan().all()
            assert spearman_correlation(good, rows(bad)).isnan().all()


class TestTopK:
    def test_counts_the_shared_top(self):
        first = rows([9, 8, 7, 1, 1, 1], [9, 8, 7, 1, 1, 1], [9, 8, 7, 1, 1, 1])
        second = rows([7, 8, 9, 1, 1, 1], [9, 1, 1, 8, 7, 1], [1, 1, 1, 9, 8, 7])
        assert topk_intersection(first, second, 3).tolist() == pytest.approx([1, 1 / 3, 0])

    def test_a_pixel_without_relevance_is_in_no_top(self):
        sparse, other = rows([5, 0, 0, 0]), rows([0, 0, 0, 5])
        assert topk_intersection(sparse, other, 3).item() == 0
        assert topk_intersection(sparse, sparse, 3).item() == 1
        assert topk_intersection(sparse, rows([5, 1, 2, 0]), 3).item() == pytest.approx(1 / 3)

    def test_equals_the_definition_by_sets(self):
        first, second = noise(5, 50).abs(), noise(5, 50, seed=1).abs()
        expected = [
            len({*a.topk(10).indices.tolist()} & {*b.topk(10).indices.tolist()}) / 10
            for a, b in zip(first, second, strict=True)
        ]
        assert topk_intersection(first, second, 10).tolist() == pytest.approx(expected)

    def test_is_undefined_for_a_zero_or_broken_map(self):
        good = rows([1, 2, 3, 4])
        for bad in (ZERO, NOT_FINITE):
            assert topk_intersection(rows(bad), good, 2).isnan().all()
            assert topk_intersection(good, rows(bad), 2).isnan().all()


def test_flip_ranks_number_the_pixels_from_the_most_important():
    assert flip_ranks(rows([0.1, 0.9, 0.5, 0.5])).tolist() == [[3, 0, 1, 2]]


class TestLinearisedRobustness:
    def test_is_the_distance_to_the_boundary_of_a_linear_model(self):
        weights, x = noise(4, 12).double(), noise(10, 1, 3, 4, seed=1).double()
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double()
        model[1].weight.data.copy_(weights)
        distance = linearised_robustness(model, x)
        with torch.no_grad():
            logits = model(x)
        predicted = logits.argmax(1)
        for row in range(10):
            gaps, best = logits[row, predicted[row]] - logits[row], weights[predicted[row]]
            ways = [gaps[j] / (best - weights[j]).norm() for j in range(4) if j != predicted[row]]
            assert distance[row].item() == pytest.approx(min(ways).item())

    def test_does_not_depend_on_a_scale_of_the_logits(self):
        weights, x = noise(4, 12), noise(5, 1, 3, 4, seed=1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False))
        model[1].weight.data.copy_(weights)
        before = linearised_robustness(model, x)
        model[1].weight.data.mul_(100)
        torch.testing.assert_close(linearised_robustness(model, x), before, rtol=1e-4, atol=1e-6)

    def test_is_zero_on_the_boundary_infinite_without_one_and_undefined_where_both_hold(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
        x = torch.tensor([[[[0.5, 0.0]]]])

        def with_weights(first: list[float], second: list[float], bias: list[float]) -> float:
            model[1].weight.data.copy_(torch.tensor([first, second]))
            model[1].bias.data.copy_(torch.tensor(bias))
            return linearised_robustness(model, x).item()

        assert with_weights([0, 1], [0, -1], [0, 0]) == 0
        assert with_weights([1, 1], [1, 1], [1, 0]) == math.inf
        assert math.isnan(with_weights([1, 1], [1, 1], [0, 0]))


class TestAccuracy:
    @pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (3, 10), (512, 1000), (1, 1)])
    @pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
    def test_wilson_interval_equals_scipy(self, correct, total, confidence):
        expected = scipy.stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
        assert wilson_interval(correct, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)

    def test_wilson_interval_of_nothing_is_everything(self):
        assert wilson_interval(0, 0) == (0, 1)

    @pytest.mark.parametrize("arguments", [(3, 2), (-1, 2), (1, 2, 0.0), (1, 2, 1.0)])
    def test_wilson_interval_refuses_what_is_no_share(self, arguments):
        with pytest.raises(UserError, match="got"):
            wilson_interval(*arguments)

    def test_accuracy_of_batches_is_the_accuracy_of_all(self):
        accuracy, other = Accuracy(), Accuracy()
        accuracy.update(torch.tensor([True, False, True]))
        other.update(torch.tensor([True]))
        accuracy.merge_state(other)
        assert accuracy.compute().item() == pytest.approx(3 / 4)
        assert accuracy.counts() == (3, 4)

    def test_accuracy_takes_only_booleans(self):
        with pytest.raises(UserError, match="must be bool"):
            Accuracy().update(torch.tensor([1, 0]))

    def test_a_state_reset_in_inference_mode_still_counts(self):
        accuracy = Accuracy()
        with torch.inference_mode():
            accuracy.reset()
            accuracy.update(torch.tensor([True]))
        accuracy.update(torch.tensor([False]))
        assert accuracy.compute().item() == 0.5

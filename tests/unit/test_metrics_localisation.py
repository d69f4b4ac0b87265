"""Localisation: closed forms, chance, ties, mosaics, and what is undefined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from xrobust.attributions import Attribution, InputXGradient, RandomMap
from xrobust.errors import UserError
from xrobust.metrics import (
    ExplanationMetric,
    GridPG,
    LocalisationAUC,
    LocalisationMetric,
    PointingGame,
    Probe,
    RelevanceMass,
    RelevanceRank,
)
from xrobust.metrics.grid_pg import draw_company, mosaics
from xrobust.metrics.localisation_auc import roc_auc
from xrobust.metrics.pointing_game import pointing_game, widened
from xrobust.metrics.relevance_mass import relevance_mass
from xrobust.metrics.relevance_rank import relevance_rank
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel

BY_MASK = [PointingGame, RelevanceMass, RelevanceRank, LocalisationAUC]
NAN = float("nan")


@dataclass(frozen=True, kw_only=True, eq=False)
class Given(Attribution):
    """Maps made in advance."""

    maps: Tensor

    def attribute(self, model, x, score, create_graph, generator) -> Tensor:
        return self.maps.to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Finder(Attribution):
    """Relevance where a pixel has the value that stands for the label, label/10; `missing`: everywhere else."""

    missing: bool = False

    def attribute(self, model, x, score, create_graph, generator) -> Tensor:
        label = score(torch.arange(10, dtype=x.dtype).expand(len(x), -1))
        return (((x - label.view(-1, 1, 1, 1) / 10).abs() < 1e-6) != self.missing).to(x.dtype)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_probe(x: Tensor, method: Attribution, y: Tensor | None = None, **changes) -> Probe:
    values = {"model": nn.Identity(), "threat": ThreatModel("linf", 0.1), **changes}
    y = torch.arange(len(x)) % 10 if y is None else y
    return Probe(x=x, y=y, index=torch.arange(len(x)), method=method, **values)


def scores(metric: ExplanationMetric, maps: Tensor, mask: Tensor | None) -> Tensor:
    return metric.per_sample(make_probe(torch.zeros_like(maps), Given(maps=maps), mask=mask))


class TestByMask:
    @pytest.mark.parametrize("metric", BY_MASK)
    def test_the_mask_itself_scores_one_and_its_complement_nothing(self, metric: type[LocalisationMetric]):
        mask = drawn(20, 6, 7) > 0.7
        maps = mask[:, None].double()
        assert scores(metric(), maps, mask).tolist() == [1] * 20
        assert scores(metric(), 1 - maps, mask).tolist() == [0] * 20

    @pytest.mark.parametrize("metric", BY_MASK)
    def test_a_map_that_knows_nothing_scores_by_chance(self, metric: type[LocalisationMetric]):
        count = 4000
        mask = drawn(count, 6, 6) > 0.7
        probe = make_probe(torch.zeros(count, 1, 6, 6), RandomMap(), mask=mask)
        chance = 0.5 if metric is LocalisationAUC else mask.double().mean((1, 2))
        above = metric().per_sample(probe) - chance
        error = above.std() / count**0.5
        assert 0 < error < 0.01
        assert above.mean().abs() < 4 * error

    @pytest.mark.parametrize("metric", BY_MASK)
    def test_a_map_of_equal_pixels_scores_chance_exactly(self, metric: type[LocalisationMetric]):
        mask = drawn(20, 6, 7) > 0.7
        expected = torch.full((20,), 0.5).double() if metric is LocalisationAUC else mask.double().mean((1, 2))
        torch.testing.assert_close(scores(metric(), torch.full((20, 1, 6, 7), 0.3), mask), expected)

    @pytest.mark.parametrize("metric", BY_MASK)
    def test_scale_does_not_matter_and_colours_add_up(self, metric: type[LocalisationMetric]):
        mask, maps = drawn(20, 6, 7) > 0.6, drawn(20, 1, 6, 7, seed=1)
        colours = torch.cat([0.2 * maps, -0.5 * maps, 0.3 * maps], 1)
        torch.testing.assert_close(scores(metric(), 7 * colours, mask), scores(metric(), maps, mask))

    @pytest.mark.parametrize("metric", BY_MASK)
    def test_signed_relevance_ignores_evidence_against_the_label(self, metric: type[LocalisationMetric]):
        mask = drawn(20, 6, 7) > 0.6
        maps = torch.where(mask, 1.0, -2.0)[:, None]
        assert scores(metric(signed=True), maps, mask).tolist() == [1] * 20
        assert (scores(metric(), maps, mask) < 0.6).all()

    @pytest.mark.parametrize("metric", BY_MASK)
    def test_where_there_is_nothing_to_find_nothing_is_scored_and_that_is_counted(
        self, metric: type[LocalisationMetric]
    ):
        maps, mask = drawn(5, 1, 4, 4), drawn(5, 4, 4) > 0.5
        mask[0], mask[1], maps[2], maps[3, 0, 0, 0] = False, True, 0.0, NAN
        made = metric()
        made.update(make_probe(torch.zeros_like(maps), Given(maps=maps), mask=mask))
        assert made.valid_share().item() == pytest.approx(1 / 5)
        torch.testing.assert_close(made.compute(), scores(metric(), maps[4:], mask[4:])[0])
        assert scores(metric(signed=True), -maps, mask).isnan().all(), "no evidence for the label"

    @pytest.mark.parametrize("metric", BY_MASK)
    def test_without_a_mask_the_user_learns_where_to_get_one(self, metric: type[LocalisationMetric]):
        with pytest.raises(UserError, match=rf"{metric.__name__} needs .*data.ground_truth.*data=planted_patch"):
            scores(metric(), drawn(2, 1, 4, 4), None)


class TestPointingGame:
    def test_tied_maxima_count_by_the_share_that_hits(self):
        values = torch.tensor([[[3.0, 3.0, 1.0], [0.0, 3.0, 2.0]]])
        mask = torch.tensor([[[True, False, True], [True, False, True]]])
        assert pointing_game(values, mask).item() == pytest.approx(1 / 3)

    @pytest.mark.parametrize("tolerance", [0, 1, 2, 5])
    def test_a_miss_within_the_tolerance_is_a_hit(self, tolerance: int):
        mask = drawn(30, 9, 7) > 0.97
        row, column = (part.flatten() for part in torch.meshgrid(torch.arange(9), torch.arange(7), indexing="ij"))
        squared = (row[:, None] - row).square() + (column[:, None] - column).square()
        near = (squared <= tolerance**2).double()
        expected = (mask.flatten(1).double() @ near > 0).view(30, 9, 7)
        assert torch.equal(widened(mask, tolerance), expected)
        values = drawn(30, 9, 7, seed=2)
        top = values.flatten(1).argmax(1)
        hits = expected.flatten(1)[torch.arange(30), top]
        assert torch.equal(pointing_game(values, mask, tolerance), hits.double())

    def test_a_negative_tolerance_is_refused(self):
        with pytest.raises(UserError, match=r"PointingGame.tolerance must be .* at least 0, got -1"):
            PointingGame(tolerance=-1)


def test_relevance_mass_is_the_share_inside():
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    mask = torch.tensor([[[False, True], [False, True]]])
    assert relevance_mass(values, mask).item() == pytest.approx(0.6)


class TestRelevanceRank:
    mask = torch.tensor([[True, True, True, False, False, False]])

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([6, 5, 1, 4, 3, 2], 2 / 3),
            ([6, 2, 2, 2, 2, 1], (1 + 2 * 2 / 4) / 3),  # two places for four equal pixels, two of them inside
            ([5, 0, 0, 0, 0, 0], 1 / 3),  # pixels without relevance are in no top
            ([0, 0, 0, 5, 0, 0], 0),
        ],
    )
    def test_counts_the_top_inside_and_shares_out_ties(self, values: list[float], expected: float):
        assert relevance_rank(torch.tensor([values], dtype=torch.float64), self.mask).item() == pytest.approx(expected)


def test_the_area_is_that_of_scikit_learn_with_ties_and_without():
    mask = drawn(30, 50) > 0.8
    for values in (drawn(30, 50, seed=1), (5 * drawn(30, 50, seed=2)).floor()):
        expected = [roc_auc_score(m, v) for m, v in zip(mask.numpy(), values.numpy(), strict=True)]
        np.testing.assert_allclose(roc_auc(values, mask).numpy(), expected)


class TestGridPG:
    def flat(self, count: int, size: int = 12) -> tuple[Tensor, Tensor]:
        """Images of one shade each, label/10."""
        labels = torch.arange(count) % 10
        return (labels / 10).double().view(-1, 1, 1, 1).expand(-1, 1, size, size).contiguous(), labels

    @pytest.mark.parametrize(("side", "size"), [(2, 12), (3, 12), (2, 7), (3, 8)])
    def test_relevance_on_the_own_tile_scores_one_and_anywhere_else_nothing(self, side: int, size: int):
        x, y = self.flat(30, size)
        found, missed = (make_probe(x, Finder(missing=m), y, pool=(x, y)) for m in (False, True))
        assert GridPG(side).per_sample(found).tolist() == [1] * 30
        assert GridPG(side).per_sample(missed).tolist() == [0] * 30

    @pytest.mark.parametrize("side", [2, 3])
    def test_chance_is_the_share_of_the_tile(self, side: int):
        x, y = self.flat(2000)
        values = GridPG(side).per_sample(make_probe(x, RandomMap(), y, pool=(x[:50], y[:50])))
        assert values.std() > 0 and (values.mean() - side**-2).abs() < 4 * values.std() / 2000**0.5
        even = GridPG(side).per_sample(make_probe(x, Given(maps=torch.ones_like(x)), y, pool=(x[:50], y[:50])))
        torch.testing.assert_close(even, torch.full_like(even, side**-2))

    def test_only_evidence_for_the_label_counts_unless_told_otherwise(self):
        x, y = self.flat(30)
        positive = make_probe(x, Given(maps=torch.ones_like(x)), y, pool=(x, y))
        negative = make_probe(x, Given(maps=-torch.ones_like(x)), y, pool=(x, y))
        assert GridPG().per_sample(negative).isnan().all()
        torch.testing.assert_close(GridPG(signed=False).per_sample(negative), GridPG().per_sample(positive))

    def test_a_mosaic_holds_one_image_of_each_of_its_classes_at_random_places(self):
        x, y = self.flat(3000)
        pool_x, pool_y = self.flat(60)
        place, partners = draw_company(y, pool_y, 3, SampleStreams(0, range(3000)))
        mosaic, own = mosaics(x, pool_x, partners, place, 2)
        tiles = (10 * mosaic[:, 0, ::6, ::6]).round().long().flatten(1)
        assert (tiles.sort(1).values.diff(dim=1) > 0).all(), "a class appears twice"
        assert torch.equal(tiles.gather(1, place[:, None])[:, 0], y)
        assert torch.equal(own[:, ::6, ::6].flatten(1), F.one_hot(place, 4).bool())
        assert torch.equal(mosaic, mosaic[:, :, ::6, ::6].repeat_interleave(6, 2).repeat_interleave(6, 3))
        assert (place.bincount() / 3000 - 1 / 4).abs().max() < 0.04
        assert (partners.flatten().bincount(minlength=60) / 9000 - 1 / 60).abs().max() < 0.006

    def test_tiles_are_averages_over_areas(self):
        x, pool = drawn(4, 3, 8, 8), drawn(20, 3, 8, 8, seed=1)
        y, pool_y = torch.arange(4), torch.arange(20) % 10
        place, partners = draw_company(y, pool_y, 3, SampleStreams(0, range(4)))
        mosaic, own = mosaics(x, pool, partners, place, 2)
        half = F.avg_pool2d(x, 2)
        for i in range(4):
            torch.testing.assert_close(mosaic[i][:, own[i]].view(3, 4, 4), half[i])

    def test_a_model_that_sees_the_class_in_its_shade_is_explained_by_its_tile(self):
        """Logit k grows with the area of pixels of the k-th shade: input × gradient must find the tile."""

        class Shades(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                shades = torch.arange(10, dtype=x.dtype)[:, None, None] / 10
                return torch.exp(-1000 * (x - shades - 0.01).square()).sum((2, 3))

        x, y = self.flat(20)
        probe = make_probe(x[1:10], InputXGradient(), y[1:10], pool=(x, y), model=Shades())
        assert (GridPG(3).per_sample(probe) > 0.95).all()

    @pytest.mark.parametrize(
        ("side", "pool", "message"),
        [
            (2, None, "the probe has no pool"),
            (3, 8, "GridPG.side=3 needs images of 9 classes, of which the probe's pool has 8"),
            (3, 10, "GridPG.side=3 needs images of 3 × 3 pixels or more instead of 2 × 2"),
        ],
    )
    def test_a_mosaic_that_cannot_be_made_is_refused(self, side: int, pool: int | None, message: str):
        x, y = self.flat(10, size=2)
        probe = make_probe(x, Finder(), y, pool=None if pool is None else (x[:pool], y[:pool]))
        with pytest.raises(UserError, match=message):
            GridPG(side).per_sample(probe)
        assert (GridPG(side).lacks(probe) is None) == (pool is None)  # which `needs` says
        assert GridPG().lacks(make_probe(x, Finder(), y, pool=(x, y))) is None

    def test_a_mosaic_has_at_least_two_tiles_in_a_row(self):
        with pytest.raises(UserError, match=r"GridPG.side must be .* at least 2, got 1"):
            GridPG(side=1)

    def test_a_pool_of_other_images_is_refused(self):
        x, y = self.flat(10)
        with pytest.raises(UserError, match=r"a pool must have images \(1, 12, 12\) .* got \(10, 1, 5, 5\)"):
            make_probe(x, Finder(), y, pool=(x[..., :5, :5], y))
        with pytest.raises(UserError, match=r"a label for each, got \(10, 1, 12, 12\) and \(9,\)"):
            make_probe(x, Finder(), y, pool=(x, y[:9]))

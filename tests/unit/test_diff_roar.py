"""DiffROAR: which pixels stay, and what networks make of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from xrobust.attributions import Attribution, Gradient, RandomMap
from xrobust.errors import UserError
from xrobust.explanation.diff_roar import diff_roar, pixel_places, unmask
from xrobust.explanation.retraining import Retraining

SIDE = 6
CORNER = (0, 0)


class ShowsTheCorner(nn.Module):
    """Its logits depend on the corner pixel alone; the weight makes it a network that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(SIDE * SIDE, 2)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[1, 0] = 1.0
            self.head.bias.copy_(torch.tensor([0.0, -0.5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def corner_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise, with a corner pixel that is bright in class 1 and dark in class 0."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    images[:, 0, 0, 0] = labels.to(torch.uint8) * 255
    return images, labels


def scores(method: Attribution) -> list:
    parts = corner_images(200, 0), corner_images(100, 1)
    return list(diff_roar(ShowsTheCorner(), *parts, {"it": method}, [0.1], Retraining(epochs=20, learning_rate=0.05)))


def test_a_map_that_finds_the_only_pixel_that_matters_gains_all_that_can_be_gained() -> None:
    (score,) = scores(Gradient())
    assert min(score.most) == 1.0  # seen: the corner
    assert max(score.least) < 0.7  # not seen: a coin
    assert score.diff_roar > 0.3


def test_a_map_without_knowledge_gains_nothing() -> None:
    (score,) = scores(RandomMap())
    assert abs(score.diff_roar) < 0.15


def test_the_places_are_the_ranks_of_the_channels_summed_relevance() -> None:
    weight = torch.tensor([[[1.0, -5.0], [2.0, 0.0]], [[1.0, 0.5], [0.0, -1.0]]])

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, x: Tensor) -> Tensor:
            score = (x * self.weight).flatten(1).sum(1)
            return torch.stack([score, -score], 1)

    places = pixel_places(Linear(), Gradient(), torch.zeros(3, 2, 2, 2, dtype=torch.uint8), batch_size=2)
    # Σ_c |w_c| = [[2, 5.5], [2, 1]]; the two pixels of 2 share the middle places.
    assert places.shape == (3, 2, 2)
    assert (places[:, 0, 1] == 3).all() and (places[:, 1, 1] == 0).all()
    assert {int(places[0, 0, 0]), int(places[0, 1, 0])} == {1, 2}
    assert (places == places[0]).all()


def test_unmasking_keeps_the_share_at_the_end_that_is_asked_for() -> None:
    images = torch.arange(1, 9, dtype=torch.uint8).view(1, 2, 2, 2)
    places = torch.tensor([[[0, 3], [2, 1]]])
    assert unmask(images, places, 0.5, largest=True, fill=0.0).tolist() == [[[[0, 2], [3, 0]], [[0, 6], [7, 0]]]]
    least = [[[[1, 255], [255, 255]], [[5, 255], [255, 255]]]]
    assert unmask(images, places, 0.25, largest=False, fill=1.0).tolist() == least
    assert (unmask(images, places, 0.01, largest=True, fill=0.0) > 0).sum() == 2  # one pixel at least, in each channel


def test_retraining_is_a_function_of_the_seed() -> None:
    model, parts = ShowsTheCorner(), (corner_images(60, 0), corner_images(40, 1))
    retraining = Retraining(epochs=1)
    before = torch.random.get_rng_state()
    first, again, *others = (retraining(model, *parts, seed) for seed in (0, 0, 1, 2, 3, 4))
    assert first == again and set(others) != {first}
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_image_at_the_end_of_an_epoch_is_no_problem_for_batch_norm() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    accuracy = Retraining(epochs=1, batch_size=4)(model, corner_images(9, 0), corner_images(40, 1), seed=0)
    assert 0 <= accuracy <= 1


@pytest.mark.parametrize("values", [{"shares": [0.0]}, {"shares": [1]}, {"shares": []}, {"seeds": 0}, {"fill": 2.0}])
def test_values_out_of_range_are_refused(values: dict) -> None:
    parts = corner_images(4, 0)
    options = {"shares": [0.5], "seeds": 1, "fill": 0.0, **values}
    with pytest.raises(UserError, match=next(iter(values))):
        list(diff_roar(ShowsTheCorner(), parts, parts, {"it": Gradient()}, retraining=Retraining(), **options))

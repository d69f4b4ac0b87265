"""DiffROAR: do the pixels that a map calls important tell the classes apart better than those it calls unimportant?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xrobust.attributions import Attribution
from xrobust.errors import UserError, at_least
from xrobust.explanation.retraining import Retraining

Images = tuple[Tensor, Tensor]  # (N, C, H, W) uint8 and labels (N,)
ENDS = {"most": True, "least": False}


@dataclass(frozen=True)
class Score:
    """How well networks tell the classes apart when they see a share of the pixels, chosen by a map.

    Attributes:
        attribution: the name of the method that ranked the pixels.
        share: of the pixels, in (0, 1).
        most, least: the test accuracy of each retrained network, one for each seed, where the most relevant pixels are
            kept, and where the least relevant ones are.
    """

    attribution: str
    share: float
    most: tuple[float, ...]
    least: tuple[float, ...]

    @property
    def diff_roar(self) -> float:
        """The mean of `most` less the mean of `least`, in [−1, 1]."""
        return sum(self.most) / len(self.most) - sum(self.least) / len(self.least)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        own = {"most": list(self.most), "least": list(self.least)}
        return {"attribution": self.attribution, "share": self.share, "diff_roar": self.diff_roar, **own}


def diff_roar(
    model: nn.Module,
    train: Images,
    test: Images,
    attributions: Mapping[str, Attribution],
    shares: Sequence[float],
    retraining: Retraining,
    *,
    seeds: int = 2,
    fill: float = 0.0,
    batch_size: int = 256,
    watch: Callable[[str], None] = lambda text: None,
) -> Iterator[Score]:
    """PredPower(A, most relevant share) − PredPower(A, least relevant share) (Shah et al. 2021), score by score.

    A network is trained anew on images that keep only a share of their pixels, and tested on test images that keep
    theirs; PredPower is its accuracy. Above 0 the map ranks pixels as they matter for the task, at 0 it says nothing,
    below 0 it is worse than that. Maps explain the logit of the predicted class, so that they do not betray
    labels. Ties are broken by one random order of the pixels.

    Args:
        model: the network whose maps are judged; the retrained ones are of its kind, with fresh weights.
        train, test: images to retrain on, and to measure on.
        attributions: by name.
        shares: of the pixels, each in (0, 1).
        retraining: how networks are trained.
        seeds: how many networks for each share and end.
        fill: in [0, 1], what the other pixels become.
        batch_size: images of which maps are made at once.
        watch: is told what comes next.

    Raises:
        UserError: for a share or fill out of its range.
    """
    check_values(shares, seeds, fill)
    for name, method in attributions.items():
        watch(f"{name}: maps of {len(train[0]) + len(test[0])} images")
        places = [pixel_places(model, method, images, batch_size) for images, _ in (train, test)]
        for share in shares:
            accuracies: dict[str, tuple[float, ...]] = {}
            for end, largest in ENDS.items():
                kept_train, kept_test = (
                    (unmask(images, place, share, largest=largest, fill=fill), labels)
                    for (images, labels), place in zip((train, test), places, strict=True)
                )
                each = []
                for seed in range(seeds):
                    watch(f"{name}: {share:g} of the pixels, {end} relevant, seed {seed}")
                    each.append(retraining(model, kept_train, kept_test, seed))
                accuracies[end] = tuple(each)
            yield Score(name, share, **accuracies)


def check_values(shares: Sequence[float], seeds: int, fill: float) -> None:
    """Refuse values out of their range.

    Raises:
        UserError: naming the value and what is allowed.
    """
    at_least("diff_roar", 1, shares=len(shares), seeds=seeds)
    for share in shares:
        if not 0 < share < 1:
            raise UserError(f"diff_roar.shares must lie between 0 and 1, both excluded, got {share}")
    if not 0 <= fill <= 1:
        raise UserError(f"diff_roar.fill must be a pixel value in [0, 1], got {fill}")


def pixel_places(model: nn.Module, method: Attribution, images: Tensor, batch_size: int) -> Tensor:
    """The place of each pixel in the order of relevance Σ_c |a_c|, from 0, the least: (N, H, W) int32."""
    device = next(model.parameters()).device
    n, _, height, width = images.shape
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(0))
    places = torch.empty(n, height * width, dtype=torch.int32)
    for start in range(0, n, batch_size):
        rows = slice(start, start + batch_size)
        x = images[rows].to(device).float() / 255
        with torch.no_grad():
            predicted = model(x).argmax(1)
        relevance = method(model, x, predicted).abs().sum(1).flatten(1).cpu()
        ascending = order[relevance[:, order].argsort(dim=1, stable=True)]
        places[rows].scatter_(1, ascending, torch.arange(height * width, dtype=torch.int32).expand_as(ascending))
    return places.view(n, height, width)


def unmask(images: Tensor, places: Tensor, share: float, *, largest: bool, fill: float) -> Tensor:
    """Images that keep the share of their pixels with the largest, or smallest, places; the others become `fill`.

    Shapes: (N, C, H, W) uint8, (N, H, W) → (N, C, H, W) uint8. At least one pixel is kept.
    """
    pixels = places[0].numel()
    count = max(round(share * pixels), 1)
    kept = places >= pixels - count if largest else places < count
    return torch.where(kept[:, None], images, torch.tensor(round(255 * fill), dtype=images.dtype))

"""How alike two attributions are: the choices that a metric offers."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from xrobust.errors import one_of
from xrobust.metrics.probe import magnitude
from xrobust.metrics.spearman import spearman_correlation
from xrobust.metrics.structural_similarity import structural_similarity

Similarity = Callable[[Tensor, Tensor], Tensor]
"""Two maps of each image, (N, C, H, W) → (N,); 1 for equal ones, NaN where undefined."""


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation of the pixels' Σ_c |a_c|; NaN if a map is constant or not finite."""
    return spearman_correlation(magnitude(first).flatten(1), magnitude(second).flatten(1))


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """The structural similarity of the pixels' Σ_c |a_c|; NaN if a map is zero or not finite."""
    return structural_similarity(magnitude(first), magnitude(second))


SIMILARITIES: dict[str, Similarity] = {similarity.__name__: similarity for similarity in (spearman, ssim)}


def similarity_named(name: str, place: str) -> Similarity:
    """The similarity of that name.

    Raises:
        UserError: for another name, with the place where it was given.
    """
    if name not in SIMILARITIES:
        raise one_of(place, name, list(SIMILARITIES))
    return SIMILARITIES[name]

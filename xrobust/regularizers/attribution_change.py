"""The largest change of an attribution in the ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from xrobust.attacks.softplus import smoothed
from xrobust.attributions import Attribution, IntegratedGradients
from xrobust.errors import UserError, one_of
from xrobust.frame import hard_labels
from xrobust.randomness import Generator, SampleStreams, uniform_like
from xrobust.regularizers.ball import WorstCase
from xrobust.regularizers.gradients import cosine


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation over the entries of each sample, (N, ...) → (N,); 1 where a or b is constant."""
    return cosine(*(_centred(each.flatten(1)) for each in (a, b)))


def _centred(a: Tensor) -> Tensor:
    """a minus its mean, (N, d); 0 where it is constant, although its mean is rounded."""
    constant = a.amax(1, keepdim=True) == a.amin(1, keepdim=True)
    return (a - a.mean(1, keepdim=True)).masked_fill(constant, 0)


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"pearson": pearson, "cosine": cosine}


@dataclass(frozen=True, kw_only=True)
class AttributionChange(WorstCase):
    """R(x) = max_{x' ∈ B} [1 − similarity(a(x), a(x'))], a the signed attribution of the label's logit; in [0, 2].

    FAR takes Pearson's correlation (Ivankay et al. 2020), IGR the cosine (Wang & Kong 2022), both of integrated
    gradients. An image with a zero map pays nothing. An attribution that draws random numbers draws the same ones at
    each point.

    Args:
        attribution: a, differentiable.
        similarity: "pearson" or "cosine".
        softplus: β of the softplus network that the search for x' follows; none for the network as it is. The gradient
            of a ReLU network has no slope that could be followed; its integrated gradients have some.
        threat, steps, step_size: of the search for x'.
    """

    attribution: Attribution = field(default_factory=lambda: IntegratedGradients(steps=6))
    similarity: str = "pearson"
    softplus: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.similarity not in SIMILARITIES:
            raise one_of(f"{name}.similarity", self.similarity, list(SIMILARITIES))
        if self.softplus is not None and not self.softplus > 0:
            raise UserError(f"{name}.softplus must be above 0 or none, got {self.softplus!r}")
        check_differentiable(name, self.attribution)

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        similarity = SIMILARITIES[self.similarity]
        seeds = (uniform_like(x.flatten(1)[:, 0], generator) * 2**24).long().tolist()

        def maps(images: Tensor, create_graph: bool = True) -> Tensor:
            same_draws = SampleStreams(0, seeds)
            return self.attribution(model, images, hard_labels(y), create_graph=create_graph, generator=same_draws)

        with smoothed(model, self.softplus):
            here = maps(x, create_graph=False)
            found = self.worst(model, lambda point: -similarity(here, maps(point)), x, generator)
        return 1 - similarity(maps(x), maps(found))


def check_differentiable(place: str, attribution: Attribution) -> None:
    """Refuse an attribution that has no derivative."""
    if not attribution.differentiable:
        raise UserError(f"{place}.attribution must be differentiable, got {type(attribution).__name__}")

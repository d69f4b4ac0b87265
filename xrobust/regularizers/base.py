"""What every regulariser shares: the frame around `penalty`, its weight over the run, its memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Self, final

import torch
from torch import Tensor, nn

from xrobust.attributions.base import slices
from xrobust.errors import at_least, one_of
from xrobust.frame import logits_of, untouched
from xrobust.randomness import Generator, default_generator, subset

IMAGES = ("clean", "adversarial")


class MeanPenalty(NamedTuple):
    """The mean of a penalty over a batch and its gradient.

    Attributes:
        value: the scalar, detached.
        gradients: one tensor for each weight of the model that is trained, in the order of `trained_weights`.
    """

    value: Tensor
    gradients: list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Regularizer(ABC):
    """(model, x, y, logits, generator) → a penalty for each image, differentiable with respect to the weights.

    A frozen value whose hyper-parameters are its fields; a subclass writes `penalty`. What it does to a loss is
    L + λ(t) · (1/N) Σ_n R(x_n).

    Args:
        weight: λ ≥ 0.
        schedule: share of the run that is done → factor on λ; none for a constant.
        images: which images of a training step are x, "clean" or "adversarial".
        batch_size: how many images at most are in one second-order graph, ≥ 1. The memory of `mean` grows with it,
            times the passes that the penalty makes, and not with the size of the batch.
    """

    weight: float = 1.0
    schedule: Callable[[float], float] | None = None
    images: str = "clean"
    batch_size: int = 128

    def __post_init__(self) -> None:
        name = type(self).__name__
        at_least(name, 0.0, weight=self.weight)
        at_least(name, 1, batch_size=self.batch_size)
        if self.images not in IMAGES:
            raise one_of(f"{name}.images", self.images, IMAGES)

    @final
    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        logits: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """The penalty of each image, with one graph to the weights for the whole batch.

        Args:
            model: images in [0, 1] → logits (N, K).
            x: (N, C, H, W).
            y: labels (N,), or class probabilities (N, K).
            logits: (N, K), f(x) where the loss has computed it; a constant that may say which class is meant. None
                computes it.
            generator: the only source of randomness; none means a fresh one with seed 0.

        Returns:
            (N,), float32 (float64 for float64 images).

        The model is regularised in eval mode and without autocast: the explanations of the network that is used are
        at stake. Module modes, batch-norm statistics, `requires_grad` flags, `.grad` and the global random state are
        afterwards as before.
        """
        with untouched(model, x, parameter_gradients=True):
            return torch.cat(list(self._parts(model, x, y, logits, generator)))

    @final
    def mean(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        logits: Tensor | None = None,
        generator: Generator | None = None,
    ) -> MeanPenalty:
        """The mean over the batch and its gradient, within the memory of one internal batch.

        Each part's graph is differentiated and freed before the next is built. The arguments are those of a call.
        """
        weights = trained_weights(model)
        total = torch.zeros((), device=x.device)
        gradients = [torch.zeros_like(weight) for weight in weights]
        with untouched(model, x, parameter_gradients=True):
            for penalty in self._parts(model, x, y, logits, generator):
                part = penalty.sum() / len(x)
                total = total + part.detach()
                if part.requires_grad:  # a penalty that no weight can change has no graph
                    found = torch.autograd.grad(part, weights, allow_unused=True)
                    gradients = [old if new is None else old + new for old, new in zip(gradients, found, strict=True)]
        return MeanPenalty(total, gradients)

    @abstractmethod
    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        """The penalty of each image of an internal batch: (N,), finite, also where a gradient vanishes.

        If x requires gradients, it can be differentiated with respect to x, too.
        """

    def at_share_of_eps(self, share: Fraction) -> Self:
        """The same regulariser while the radius of training is that share of the full one; by default there is none."""
        return self

    def weight_at(self, progress: float) -> float:
        """λ(t) when that share of the run is done."""
        return self.weight if self.schedule is None else self.weight * self.schedule(progress)

    def _parts(
        self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor | None, generator: Generator | None
    ) -> Iterator[Tensor]:
        """The penalties of consecutive internal batches, inside the frame."""
        x = x.detach() if x.dtype == torch.float64 else x.detach().float()
        generator = default_generator(x.device) if generator is None else generator
        parts = slices(len(x), self.batch_size)
        if logits is None:
            with torch.no_grad():
                logits = torch.cat([logits_of(model, x[rows]) for rows in parts])
        logits = logits.detach().to(x.dtype)
        for rows in parts:
            yield self.penalty(model, x[rows], y[rows], logits[rows], subset(generator, rows))


def trained_weights(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are differentiated."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]

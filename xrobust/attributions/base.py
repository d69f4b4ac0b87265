"""What every attribution method shares: the frame around `attribute`, the target, and the input gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import index
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from xrobust.errors import UserError, at_least
from xrobust.frame import logits_of, untouched
from xrobust.randomness import Generator

Score = Callable[[Tensor], Tensor]
"""A scalar function of each sample's logits: (N, K) → (N,)."""

Target = Tensor | int | Score
"""What is explained: (N,) labels or one class (the score is that logit), or any score."""


@dataclass(frozen=True, kw_only=True)
class Attribution(ABC):
    """(model, x, target) → a signed relevance for every entry of x; a frozen value.

    Args:
        batch_size: how many images at most go through the model at once, ≥ 1.

    Class attributes:
        differentiable: whether `create_graph` is supported; a method whose map is no differentiable function of
            the image (or whose derivative is zero almost everywhere) says false.
        demands: what it asks of the model beyond logits, in words.
    """

    differentiable: ClassVar[bool] = True
    demands: ClassVar[str] = "a gradient"

    batch_size: int = 256

    def __post_init__(self) -> None:
        at_least(type(self).__name__, 1, batch_size=self.batch_size)

    @final
    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Target,
        *,
        create_graph: bool = False,
        generator: Generator | None = None,
    ) -> Tensor:
        """The attribution of each image.

        Args:
            model: images → logits (N, K).
            x: (N, C, H, W).
            target: (N,) int64 labels, one class, or a score (N, K) → (N,) such as a margin. A score sees
                the logits of all N samples, in order, so that it may hold a value for each.
            create_graph: whether the result can be differentiated, with respect to the weights and, where x
                requires gradients, to x. The whole graph is kept then, which no batch size can bound.
            generator: the source of a random method's draws; none means streams keyed by the method's seed
                and the position in the batch.

        Returns:
            (N, C, H, W), signed, float32 (float64 for float64 images); detached unless `create_graph`.

        Raises:
            UserError: if the target does not fit, the model does not return (N, K) logits, or `create_graph` is
                asked of a method that is not differentiable.

        The model is explained in eval mode, without autocast, also under `no_grad` and `inference_mode`.
        Module modes, `requires_grad` flags, `.grad` and the global random state are afterwards as before.
        """
        if create_graph and not self.differentiable:
            raise UserError(f"{type(self).__name__} cannot be differentiated; attack or regularise another attribution")
        with untouched(model, x, parameter_gradients=create_graph):
            if not create_graph:
                x = x.detach()
            if x.is_inference():
                x = x.clone()  # autograd cannot record tensors made in inference mode
            x = x if x.dtype == torch.float64 else x.float()
            generator = self.default_generator(len(x)) if generator is None else generator
            return self.attribute(model, x, _score(target, x), create_graph, generator)

    @abstractmethod
    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        """The method itself: x's shape, built from `gradient`; x is float and may require gradients."""

    def settings(self) -> Mapping[str, Attribution]:
        """The same method with other settings that one might have chosen as well, by what is different."""
        return {}

    def default_generator(self, count: int) -> Generator | None:
        """What a caller that gives no generator gets: none, unless the method draws."""
        return None

    def gradient(self, model: nn.Module, points: Tensor, score: Score, create_graph: bool) -> Tensor:
        """`input_gradient` within the method's batch size: (S, N, ...) → (S, N, ...)."""
        return input_gradient(model, points, score, batch_size=self.batch_size, create_graph=create_graph)

    def passes(self, versions: int, count: int) -> list[slice]:
        """Slices of range(versions), each of as many versions of `count` images as fit in a batch."""
        return slices(versions, max(1, self.batch_size // max(1, count)))


def input_gradient(
    model: nn.Module, points: Tensor, score: Score, *, batch_size: int, create_graph: bool = False
) -> Tensor:
    """∇ score(f(·)) at S points for each of N samples, with at most `batch_size` points in the model at once.

    Args:
        points: (S, N, ...); S versions of the same N samples.
        score: (N, K) logits → (N,), applied to each version.
        create_graph: whether the gradient is itself differentiable; all points share one graph then.

    Returns:
        (S, N, ...).
    """
    if not points.requires_grad:
        points = points.detach().requires_grad_()
    flat, versions = points.flatten(0, 1), len(points)
    if create_graph or len(flat) <= batch_size:
        total = _total(score, logits_of(model, flat), versions)
        return torch.autograd.grad(total, points, create_graph=create_graph)[0]
    # By the chain rule in two steps: how the score depends on all logits, then how those depend on each part.
    parts = [part.detach().requires_grad_() for part in flat.split(batch_size)]
    with torch.no_grad():
        logits = torch.cat([logits_of(model, part) for part in parts])
    (weights,) = torch.autograd.grad(_total(score, logits.requires_grad_(), versions), logits)
    gradients = [
        torch.autograd.grad(logits_of(model, part), part, weight)[0]
        for part, weight in zip(parts, weights.split(batch_size), strict=True)
    ]
    return torch.cat(gradients).view_as(points)


def _total(score: Score, logits: Tensor, versions: int) -> Tensor:
    """The sum of the scores of all samples in all versions."""
    if logits.dim() != 2:
        raise UserError(f"the model must return logits of shape (N, K), got {tuple(logits.shape)}")
    count = len(logits) // versions
    scores = [score(version) for version in logits.unflatten(0, (versions, count))]
    if scores[0].shape != (count,):
        raise UserError(f"the target must map logits to shape ({count},), got {tuple(scores[0].shape)}")
    return torch.stack(scores).sum()


def _score(target: Target, x: Tensor) -> Score:
    """The target as a score; labels are copied to x's device."""
    if callable(target):
        return target
    labels = target if isinstance(target, Tensor) else torch.full((len(x),), index(target))
    if labels.shape != (len(x),) or labels.dtype != torch.int64:
        raise UserError(
            f"target must be one int64 label for each image: images {tuple(x.shape)}, "
            f"labels {tuple(labels.shape)} of {labels.dtype}"
        )
    column = labels.to(x.device, copy=True)[:, None]
    return lambda logits: logits.gather(1, column)[:, 0]


def slices(count: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` that cover range(count); one empty slice for an empty range."""
    return [slice(start, start + size) for start in range(0, max(1, count), size)]

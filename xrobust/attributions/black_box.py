"""What methods share that explain a model by its answers to changed images alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score, slices
from xrobust.attributions.baselines import AnyBaseline, Constant
from xrobust.errors import UserError
from xrobust.frame import logits_of
from xrobust.randomness import Generator, SampleStreams


@dataclass(frozen=True, kw_only=True)
class BlackBox(Attribution):
    """The base of methods that put a baseline in the place of parts of the image and look at the score.

    They need no gradient of the model, and give none: they cannot be differentiated.

    Args:
        baseline: images → x', such as those in `attributions.baselines`; one that draws is drawn from once.
        seed: of the method's and the baseline's draws, when the call gives no generator.
    """

    differentiable: ClassVar[bool] = False
    demands: ClassVar[str] = "nothing"

    baseline: AnyBaseline = field(default_factory=Constant)
    seed: int = 0

    def default_generator(self, count: int) -> Generator:
        return SampleStreams(self.seed, range(count))

    def scores(
        self, model: nn.Module, x: Tensor, baseline: Tensor, score: Score, kept: Callable[[slice], Tensor], count: int
    ) -> Tensor:
        """The score of each image where only a part of it is kept, in `count` versions: (count, N).

        Args:
            kept: versions → (S, N, H, W) or (S, 1, H, W) bool, where the image is kept rather than the baseline.
        """
        parts = []
        for versions in self.passes(count, len(x)):
            points = torch.where(kept(versions)[:, :, None], x, baseline)
            parts.append(scores_at(model, points, score, self.batch_size))
        return torch.cat(parts)


@torch.no_grad()
def scores_at(model: nn.Module, points: Tensor, score: Score, batch_size: int) -> Tensor:
    """The score at S versions of N images, with at most `batch_size` of them in the model at once: (S, N).

    Args:
        points: (S, N, C, H, W).
    """
    versions, count = points.shape[:2]
    flat = points.flatten(0, 1)
    logits = torch.cat([logits_of(model, flat[rows]) for rows in slices(len(flat), batch_size)])
    if logits.dim() != 2:
        raise UserError(f"the model must return logits of shape (N, K), got {tuple(logits.shape)}")
    scores = [score(version) for version in logits.unflatten(0, (versions, count))]
    if scores[0].shape != (count,):
        raise UserError(f"the target must map logits to shape ({count},), got {tuple(scores[0].shape)}")
    return torch.stack(scores)

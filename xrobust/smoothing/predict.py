"""PREDICT: the class of the smoothed classifier, with fresh noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.frame import untouched
from xrobust.smoothing.bounds import check_level, votes_needed
from xrobust.smoothing.classifier import prediction_of
from xrobust.smoothing.noise import Noise
from xrobust.smoothing.votes import count_votes, require_independent, streams_of


def predict(
    model: nn.Module,
    x: Tensor,
    noise: Noise,
    *,
    n: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    index: Sequence[int] | None = None,
    batch_size: int = 1000,
) -> Tensor:
    """The class of g for each image, or `ABSTAIN`; wrong with probability at most α (Cohen et al. 2019).

    Arguments as in `Procedure`; n is the number of samples. (N, C, H, W) → (N,) int64.
    """
    require_independent(model)
    at_least("predict", 1, n=n, batch_size=batch_size)
    needed = torch.from_numpy(votes_needed(n, check_level("predict", alpha))).to(x.device)
    with untouched(model, x):
        streams = streams_of(seed, range(len(x)) if index is None else index, x.device)
        return prediction_of(count_votes(model, x, n, noise, streams, batch_size), needed)

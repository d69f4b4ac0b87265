"""The smoothed classifier as a network: it can be attacked, explained and exported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.errors import at_least, one_of
from xrobust.smoothing.averaged import mean_log_probability, noisy_logits
from xrobust.smoothing.bounds import check_level, votes_needed
from xrobust.smoothing.noise import Noise
from xrobust.smoothing.procedure import ABSTAIN


class SmoothedClassifier(nn.Module):
    """g(x) from n fixed draws of noise, the same for each image: (N, C, H, W) → (N, K).

    A deterministic network, with "log_probability" a differentiable one, so that attacks, attributions and exports take
    it as they take any model. Since the noise is known, a guarantee holds for images that were chosen without looking
    at it; certificates for reports are made with fresh noise (`Certify`).

    Args:
        model: the base classifier f.
        noise: which noise; its draws are a buffer.
        image_shape: (C, H, W).
        samples: n ≥ 1.
        output: "log_probability" for log (1/n) Σ softmax f(x + δ_k), "votes" for how many draws name each class.
        denoiser: images → images, put in front of f (Salman et al. 2020, denoised smoothing).
        draws_at_once: noisy copies of each image in a pass, ≥ 1; this bounds the memory.
        seed: of the draws.
    """

    draws: Tensor

    def __init__(
        self,
        model: nn.Module,
        noise: Noise,
        image_shape: Sequence[int],
        *,
        samples: int = 100,
        output: str = "log_probability",
        denoiser: nn.Module | None = None,
        draws_at_once: int = 100,
        seed: int = 0,
    ):
        super().__init__()
        at_least(type(self).__name__, 1, samples=samples, draws_at_once=draws_at_once)
        if output not in _OUTPUTS:
            raise one_of(f"{type(self).__name__}.output", output, _OUTPUTS)
        self.model = model if denoiser is None else nn.Sequential(denoiser, model)
        self.output, self.draws_at_once = output, draws_at_once
        like = next(model.parameters(), torch.empty(0))
        drawn = noise.fill(torch.empty(samples, 1, *image_shape), torch.Generator().manual_seed(seed))
        self.register_buffer("draws", drawn.to(like.device))

    @property
    def samples(self) -> int:
        """n."""
        return len(self.draws)

    def forward(self, x: Tensor) -> Tensor:
        logits = [noisy_logits(self.model, x, part) for part in self.draws.split(self.draws_at_once)]
        return _OUTPUTS[self.output](torch.cat(logits))


class SmoothedPrediction(nn.Module):
    """The class of g, or `ABSTAIN` where n draws do not tell: (N, C, H, W) → (N,) int64 (Cohen et al. 2019, PREDICT).

    Abstains unless the two-sided binomial test says at level α that the class with most votes is more probable than the
    runner-up. Then it is another class than g's with probability at most α.

    Args:
        smoothed: with output "votes".
        alpha: α in (0, 1/2).
    """

    needed: Tensor

    def __init__(self, smoothed: SmoothedClassifier, *, alpha: float = 0.001):
        super().__init__()
        if smoothed.output != "votes":
            raise one_of(f"{type(self).__name__}: smoothed.output", smoothed.output, ["votes"])
        self.smoothed = smoothed
        table = torch.from_numpy(votes_needed(smoothed.samples, check_level(type(self).__name__, alpha)))
        self.register_buffer("needed", table.to(smoothed.draws.device))

    def forward(self, x: Tensor) -> Tensor:
        return prediction_of(self.smoothed(x), self.needed)


def prediction_of(votes: Tensor, needed: Tensor) -> Tensor:
    """The class with most votes if these are enough against the runner-up, or `ABSTAIN`: (N, K) → (N,) int64.

    Args:
        votes: of n draws.
        needed: `votes_needed(n, α)`.
    """
    most, classes = votes.topk(2, dim=1)
    enough = most[:, 0] >= needed[most.sum(1).long()]
    return torch.where(enough, classes[:, 0], ABSTAIN)


def _votes(logits: Tensor) -> Tensor:
    return F.one_hot(logits.argmax(2), logits.shape[2]).sum(0).to(torch.promote_types(logits.dtype, torch.float32))


_OUTPUTS = {"log_probability": mean_log_probability, "votes": _votes}

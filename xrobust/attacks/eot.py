"""Expectation over transformation: attacks on models that draw random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.standing import require_at_least
from xrobust.attacks.wrapper import Wrapper
from xrobust.errors import one_of
from xrobust.randomness import Generator, uniform_like


@dataclass(frozen=True, kw_only=True)
class EOT(Wrapper):
    """An attack on the mean of n forward passes of a model with random numbers inside (Athalye et al. 2018).

    The model's own draws come from the global random state, which is set from `generator` and put back
    afterwards: equal calls give equal results, but these depend on the batch as a whole.

    Args:
        attack: what attacks the averaged model.
        draws: n ≥ 1.
        average: "logits" for the mean of f(x), "probabilities" for log of the mean of softmax f(x).
    """

    draws: int = 20
    average: str = "logits"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, draws=1)
        if self.average not in _AVERAGES:
            raise one_of("EOT.average", self.average, list(_AVERAGES))

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        seed = int(uniform_like(x.flatten(1)[:, 0], generator)[0] * 2**24)
        cuda = x.device.type == "cuda"
        with torch.random.fork_rng([x.device] if cuda else []):
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(x.device):
                    torch.cuda.manual_seed(seed)
            return self.attack(AveragedModel(model, self.draws, self.average), x, y, generator=generator)


class AveragedModel(nn.Module):
    """The mean of several forward passes: images (N, C, H, W) → logits (N, K)."""

    def __init__(self, model: nn.Module, draws: int, average: str = "logits"):
        super().__init__()
        self.model, self.draws, self.average = model, draws, average

    def forward(self, x: Tensor) -> Tensor:
        return _AVERAGES[self.average](torch.stack([self.model(x) for _ in range(self.draws)]))


def _mean_logits(logits: Tensor) -> Tensor:
    return logits.mean(0)


def _mean_probabilities(logits: Tensor) -> Tensor:
    # A constant log n is left out, which no loss and no prediction sees.
    return logits.log_softmax(2).logsumexp(0)


_AVERAGES = {"logits": _mean_logits, "probabilities": _mean_probabilities}

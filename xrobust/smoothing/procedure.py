"""What the ways to certify a smoothed classifier share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xrobust.errors import at_least, one_of
from xrobust.frame import untouched
from xrobust.smoothing.bounds import check_level
from xrobust.smoothing.noise import ORDERS, Noise
from xrobust.smoothing.votes import count_votes, require_independent, streams_of

ABSTAIN = -1


@dataclass(frozen=True, eq=False)
class SmoothedCertificate:
    """What is known of N images.

    Attributes:
        prediction: the class of the smoothed classifier, or `ABSTAIN`: (N,) int64.
        radius: no perturbation of at most this norm changes that class, with probability 1 − α for each image; 0 where
            it abstains: (N,) float64.
        probability: a lower bound of the class's probability under noise; 0 where it abstains: (N,) float64.
        votes: for the class that was selected, among the estimation samples: (N,) int64.
        samples: noisy copies that were classified, (N,) int64.
        seconds: the image's share of the time, (N,) float64.
    """

    prediction: Tensor
    radius: Tensor
    probability: Tensor
    votes: Tensor
    samples: Tensor
    seconds: Tensor


@dataclass(frozen=True, kw_only=True)
class Procedure(ABC):
    """(model, images) → what is certain, up to the failure probability α for each image, of the smoothed classifier.

    The smoothed classifier is g(x) = argmax_c P(f(x + noise) = c). Which class to ask for is selected with n0 samples,
    its probability is estimated with others.

    Args:
        noise: which noise.
        norm: of the radius: "l2", "linf" or "l1".
        n0: selection samples, ≥ 1.
        n: estimation samples, ≥ 1.
        alpha: α in (0, 1/2), the probability that a certificate is wrong.
        batch_size: noisy copies that go through the model at once, ≥ 1.
    """

    noise: Noise
    norm: str = "l2"
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    batch_size: int = 1000

    def __post_init__(self) -> None:
        place = type(self).__name__
        at_least(place, 1, n0=self.n0, n=self.n, batch_size=self.batch_size)
        check_level(place, self.alpha)
        if self.norm not in ORDERS:
            raise one_of(f"{place}.norm", self.norm, ORDERS)

    def __call__(
        self, model: nn.Module, x: Tensor, *, seed: int = 0, index: Sequence[int] | None = None
    ) -> SmoothedCertificate:
        """Certificates for a batch.

        Args:
            model: the base classifier f, images → logits (N, K); noise takes it out of [0, 1].
            x: (N, C, H, W), N ≥ 1, on the device of the model.
            seed: of the noise, together with the position of the image.
            index: positions in the data set; by default 0 … N − 1.

        Raises:
            UserError: if the network normalises by the batch.
            RuntimeError: if a logit is not finite.

        Results depend neither on the batch size nor on which images come together. The model is in evaluation mode
        meanwhile, and afterwards as before.
        """
        require_independent(model)
        begun = time.perf_counter()
        with untouched(model, x), torch.no_grad():
            streams = streams_of(seed, range(len(x)) if index is None else index, x.device)
            selected = count_votes(model, x, self.n0, self.noise, streams, self.batch_size).argmax(1)
            certificate = self.estimate(model, x, selected, streams)
        certificate.samples.add_(self.n0)
        certificate.seconds.fill_((time.perf_counter() - begun) / len(x))
        return certificate

    @abstractmethod
    def estimate(
        self, model: nn.Module, x: Tensor, selected: Tensor, streams: Sequence[torch.Generator]
    ) -> SmoothedCertificate:
        """What further samples show of the selected classes (N,); `samples` are those drawn here."""

    def count(
        self, model: nn.Module, x: Tensor, copies: int, selected: Tensor, streams: Sequence[torch.Generator]
    ) -> Tensor:
        """Votes of `copies` new samples for the selected classes: (N,) int64."""
        votes = count_votes(model, x, copies, self.noise, streams, self.batch_size)
        return votes.gather(1, selected[:, None])[:, 0]

    def describe(self) -> dict[str, Any]:
        """The protocol as plain containers: names, every parameter that a result depends on, and a line to show."""
        parameters = {name: value for name, value in asdict(self).items() if name != "batch_size"}
        noise = {"name": type(self.noise).__name__, **asdict(self.noise)}
        return {"name": type(self).__name__, **parameters, "noise": noise, "summary": str(self)}

    def __str__(self) -> str:
        noise = f"{type(self.noise).__name__} σ={self.noise.sigma:g}"
        return f"{type(self).__name__} ({self.norm}, {noise}, n0 {self.n0}, n {self.n}, α {self.alpha:g})"


def certificate(
    prediction: Tensor, radius: Tensor, probability: Tensor, votes: Tensor, samples: Tensor | int
) -> SmoothedCertificate:
    """A certificate whose abstentions have radius and probability 0, before the time is known."""
    abstains = prediction == ABSTAIN
    radius, probability = (value.masked_fill(abstains, 0.0) for value in (radius, probability))
    samples = torch.as_tensor(samples, device=votes.device).expand_as(votes).clone()
    return SmoothedCertificate(prediction, radius, probability, votes, samples, torch.zeros_like(radius))

"""CERTIFY: the largest radius that a fixed number of samples proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.smoothing.bounds import lower_bound
from xrobust.smoothing.procedure import ABSTAIN, Procedure, SmoothedCertificate, certificate


@dataclass(frozen=True, kw_only=True)
class Certify(Procedure):
    """R = radius(p̲), p̲ the Clopper–Pearson lower bound from n samples; abstains for p̲ ≤ 1/2 (Cohen et al. 2019)."""

    def estimate(
        self, model: nn.Module, x: Tensor, selected: Tensor, streams: Sequence[torch.Generator]
    ) -> SmoothedCertificate:
        votes = self.count(model, x, self.n, selected, streams)
        probability = lower_bound(votes.cpu().numpy(), self.n, self.alpha)
        radius = torch.from_numpy(self.noise.radius(probability, self.norm, x[0].numel())).to(x.device)
        prediction = torch.where(radius > 0, selected, ABSTAIN)
        return certificate(prediction, radius, torch.from_numpy(probability).to(x.device), votes, self.n)

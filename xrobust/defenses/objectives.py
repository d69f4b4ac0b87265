"""What training methods add up: (N, K) logits → one value for each sample. In float32 at least, finite logits give
finite values and gradients, however saturated the softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.defenses.base import at_least_float32


def kl_divergence(logits: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(logits) ‖ softmax(other)), summed over the classes, gradients on both sides: 2 × (…, K) → (…)."""
    log_p, log_q = at_least_float32(logits).log_softmax(-1), at_least_float32(other).log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def boosted_term(logits: Tensor, y: Tensor) -> Tensor:
    """−log(1 − max_{k≠y} p_k): what MART adds to the cross entropy (Wang et al. 2020), (N, K), (N,) → (N,).

    1 − p_j is taken as the sum of the other probabilities, so its logarithm needs no clamp.
    """
    logits = at_least_float32(logits)
    rival = logits.detach().scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
    without_rival = logits.scatter(1, rival, -torch.inf)
    return logits.logsumexp(1) - without_rival.logsumexp(1)


def squared_distance(p: Tensor, q: Tensor) -> Tensor:
    """‖p − q‖² for each sample: (N, K), (N, K) → (N,)."""
    return (p - q).square().sum(1)


def smoothed_target(y: Tensor, classes: int, label_smoothing: float) -> Tensor:
    """(1 − s) · e_y + s/K, as `torch.nn.functional.cross_entropy` smooths labels: (N,) or probabilities → (N, K)."""
    target = y if y.is_floating_point() else F.one_hot(y, classes)
    return target * (1 - label_smoothing) + label_smoothing / classes

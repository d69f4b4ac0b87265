"""How far away the decision boundary looks from the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xrobust.frame import logits_of, untouched
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe


def linearised_robustness(model: nn.Module, x: Tensor) -> Tensor:
    """ρ̃(x) = min_{j≠i*} (f_i*(x) − f_j(x)) / ‖∇f_i*(x) − ∇f_j(x)‖₂, i* the predicted class: (N, ...) → (N,).

    In [0, ∞]: the Euclidean distance to the boundary of the model's first-order expansion, and exactly to the
    boundary of a linear model. ∞ if the gradients of all classes agree (or there is only one class); NaN if
    those of two tied classes do. K backward passes through one forward pass.
    """
    with untouched(model, x):
        x = x.detach().clone().requires_grad_()
        logits = logits_of(model, x)
        values, predicted = logits.detach().double(), logits.argmax(1)

        def gradient(scores: Tensor) -> Tensor:
            return torch.autograd.grad(scores.sum(), x, retain_graph=True)[0].flatten(1).double()

        own_value = values.gather(1, predicted[:, None])[:, 0]
        own_gradient = gradient(logits.gather(1, predicted[:, None]))
        nearest = torch.full_like(own_value, torch.inf)
        for rival in range(logits.shape[1]):
            distance = (own_value - values[:, rival]) / (own_gradient - gradient(logits[:, rival])).norm(dim=1)
            nearest = torch.minimum(nearest, distance.where(predicted != rival, torch.inf))
        return nearest


class LinearisedRobustness(ExplanationMetric):
    """ρ̃(x), in pixel units (Etmann et al. 2019); a property of the model, for its own prediction."""

    higher_is_better, group, cost = True, "alignment", "moderate"
    uses_attribution = False

    def per_sample(self, probe: Probe) -> Tensor:
        return probe.in_batches(lambda rows: linearised_robustness(probe.model, probe.x[rows]))

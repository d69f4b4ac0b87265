"""What methods of training by Lipschitz constants share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from xrobust.attacks import FGSM, Attack
from xrobust.certification import PowerIteration, batch_statistics, pairwise_constants
from xrobust.defenses.base import Loss, RobustClassifier, at_least_float32
from xrobust.defenses.traced_graph import TracedGraph
from xrobust.errors import at_least, one_of
from xrobust.threat import ThreatModel


class LipschitzTraining(RobustClassifier):
    """Training on logits that are moved by what an L2 ball could move them at most, ε·K‖w_i − w_j‖₂.

    K, of all layers before the last one, is a product of operator norms by power iteration, in float32 at least, and
    gradients go through it; a method is a subclass that writes `loss_on`. Batch norm counts as it normalised the
    batch. The vectors of the iterations travel in the checkpoint. The radius is that of `attack`, which attacks
    nothing here, so `callbacks.EpsilonSchedule` moves it.

    Args:
        threat: the ball that accuracy is to be certified in, of norm "l2".
        train_eps: the radius in training, if it is not that of the threat model: a number or a fraction ("36/255").
        iterations: of the power iteration of each layer in each step.
    """

    attack: Attack
    attacks_images = False

    def __init__(self, *, threat: ThreatModel, train_eps: float | str | None = None, iterations: int = 10, **base: Any):
        super().__init__(**base)
        if threat.norm != "l2":
            raise one_of("defense.threat.norm", threat.norm, ["l2"])
        at_least("defense", 1, iterations=iterations)
        self.attack = FGSM(threat=threat if train_eps is None else threat.with_eps(train_eps, "defense.train_eps"))
        self.norms = PowerIteration(iterations, seed=self._seed)
        self._graph = TracedGraph()

    @abstractmethod
    def loss_on(self, logits: Tensor, slopes: Tensor, y: Tensor) -> Loss:
        """The loss of the method.

        Args:
            logits: z of the images as they are, (N, K).
            slopes: Lipschitz constants of z_i − z_j, (K, K), differentiable.
            y: labels, (N,), or class probabilities (N, K).
        """

    @property
    def eps(self) -> float:
        """The present radius."""
        return self.attack.threat.radius

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        with batch_statistics(self.model) as statistics:
            logits = at_least_float32(self.model(x))
        with torch.autocast(x.device.type, enabled=False):
            slopes = pairwise_constants(self._graph(self.model, x).network(statistics), self.norms)
            loss = self.loss_on(logits, slopes.to(logits.dtype), y)
        return replace(loss, terms={"largest_slope": slopes.amax(), **loss.terms})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["power_iteration"] = dict(self.norms.vectors)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.norms.vectors = dict(checkpoint["power_iteration"])


def moved_logits(logits: Tensor, slopes: Tensor, classes: Tensor, eps: float) -> Tensor:
    """z_i + ε·K‖w_c − w_i‖₂, with z_c as it is: the most that class i can gain on c in the ball.

    Args:
        logits: (N, K).
        slopes: (K, K).
        classes: c, (N,).
        eps: the radius.

    Returns:
        (N, K). That of c is above all others, strictly, if and only if c is certified.
    """
    return logits + eps * slopes[classes]

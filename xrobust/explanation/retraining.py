"""A network of the same kind, trained from fresh weights without an adversary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.errors import UserError, at_least
from xrobust.metrics.model_randomisation import randomised_network


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """(model, training images, test images, seed) → the test accuracy of a network like the model, trained anew.

    Adam with a one-cycle schedule on the cross entropy, in float32; the seed decides the weights, the order of the
    images, and what layers such as dropout draw.

    Args:
        epochs: over the training images.
        batch_size: images in a batch.
        learning_rate: the largest.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        at_least("retraining", 1, epochs=self.epochs, batch_size=self.batch_size)
        if not self.learning_rate > 0:
            raise UserError(f"retraining.learning_rate must be above 0, got {self.learning_rate}")

    def __call__(self, model: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int) -> float:
        device = next(model.parameters()).device
        images, labels = (part.to(device) for part in train)
        network = randomised_network(model, seed).train().requires_grad_(True)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        batches = len(_batches(torch.arange(len(images)), self.batch_size))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, self.epochs * batches)
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]), torch.enable_grad():
            torch.manual_seed(seed)
            for _ in range(self.epochs):
                for rows in _batches(torch.randperm(len(images)).to(device), self.batch_size):
                    loss = F.cross_entropy(network(_unit(images[rows])), labels[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
        return self._accuracy(network.eval(), *test, device)

    @torch.no_grad()
    def _accuracy(self, network: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> float:
        right = 0
        for x, y in zip(images.split(512), labels.split(512), strict=True):
            right += int((network(_unit(x.to(device))).argmax(1).cpu() == y).sum())
        return right / len(labels)


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """In this order; a single one at the end, which batch norm may refuse, joins the batch before it."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255

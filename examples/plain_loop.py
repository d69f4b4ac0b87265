"""Adversarial training in a plain PyTorch loop: an attack is a function of model, images and labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.models import SmallCNN
from xrobust.threat import ThreatModel


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (N, 1, 8, 8) in [0, 1] and labels, of 1,400 for training and 397 for test."""
    data = load_digits()
    x, y = torch.from_numpy(data.images).float().unsqueeze(1) / 16, torch.from_numpy(data.target).long()
    return x[:1400], y[:1400], x[1400:], y[1400:]


def trained(attack: Callable[..., Tensor] | None, epochs: int = 12) -> nn.Module:
    """A small network; with an attack, it only sees the images that the attack makes."""
    torch.manual_seed(0)
    model, generator = SmallCNN(num_classes=10, in_channels=1, image_size=8), torch.Generator().manual_seed(0)
    x, y, _, _ = digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(100):
            images = x[rows] if attack is None else attack(model, x[rows], y[rows], generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(images), y[rows]).backward()
            optimizer.step()
    return model.eval()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


if __name__ == "__main__":
    threat = ThreatModel("linf", 0.15)
    _, _, x, y = digits()
    for name, attack in {"standard": None, "adversarial": PGD(threat=threat, steps=5)}.items():
        model = trained(attack)
        x_adv = PGD(threat=threat, steps=40, keep="worst")(model, x, y)
        print(f"{name}: clean {accuracy(model, x, y):.1%}, under PGD-40 {accuracy(model, x_adv, y):.1%}")

"""Shared by all tests: one torch thread a process, and small trained models on real images."""

from __future__ import annotations

import os

os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from xrobust.models import SmallCNN

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """The same global random numbers in each test, and no determinism that a trainer before it asked for."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """The 1,797 real 8×8 digits: images (N, 1, 8, 8) in [0, 1], labels."""
    data = load_digits()
    return torch.from_numpy(data.images).float().unsqueeze(1) / 16, torch.from_numpy(data.target).long()


@pytest.fixture(scope="session")
def _trained_digits_model(digits: tuple[Tensor, Tensor]) -> nn.Module:
    x, y = digits
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallCNN(num_classes=10, in_channels=1, image_size=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for batch in torch.randperm(len(x), generator=generator).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@pytest.fixture
def digits_model(_trained_digits_model: nn.Module) -> nn.Module:
    """A standard model on the digits (clean accuracy above 95%), in eval mode; each test has its own copy."""
    import copy

    return copy.deepcopy(_trained_digits_model)

"""How the attacks of several libraries are measured: passes, processor time, robust accuracy, distances."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from xrobust.config.build import build
from xrobust.data.split import balanced_choice
from xrobust.export.loading import load, read_config
from xrobust.threat import ThreatModel


class Counted(nn.Module):
    """The model, counting the images that pass through it forwards and backwards."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.passes += len(gradient)


@dataclass(frozen=True)
class Subject:
    """What is attacked: a model and those of `images` images that it gets right."""

    model: Counted
    x: Tensor
    y: Tensor
    images: int
    classes: int


class Run(NamedTuple):
    """One call of an attack: what it made, processor and wall seconds, images passed through the model."""

    x_adv: Tensor
    seconds: float
    wall_seconds: float
    passes: int


def run(attack: Callable[[], Tensor], model: Counted, seed: int = 0) -> Run:
    """Call an attack with the global generators seeded; processor time is that of all threads of this process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    model.passes = 0
    began, wall_began = time.process_time(), time.perf_counter()
    x_adv = attack().detach()
    seconds, wall_seconds = time.process_time() - began, time.perf_counter() - wall_began
    return Run(x_adv, seconds, wall_seconds, model.passes)


@torch.no_grad()
def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    """Whether the model, asked once more, gets each example wrong: (N,) bool."""
    return model(x_adv).argmax(1) != y


def standing(model: nn.Module, threat: ThreatModel, x_adv: Tensor, x: Tensor, y: Tensor) -> int:
    """How many samples the model still gets right after what an attack returned is projected onto the ball."""
    return int((~fooled(model, threat.project(x_adv, x), y)).sum())


def distances(model: nn.Module, threat: ThreatModel, x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """‖x_adv − x‖_p, (N,); inf where x_adv, put into the pixel box, does not fool the model."""
    x_adv = x_adv.clamp(*threat.clip)
    return threat.distance(x_adv, x).where(fooled(model, x_adv, y), torch.inf)


def load_subject(bundle: Path, images: int) -> Subject:
    """The bundle's model and test images of its data set, balanced over the classes, that it gets right."""
    config = read_config(bundle)
    model = Counted(load(bundle)).eval().requires_grad_(False)
    test = build(config["training"]["data"], "data").test_dataloader()
    chosen = balanced_choice(test.labels, images, seed=0)
    x, y = test.images[chosen].float() / 255, test.labels[chosen]
    with torch.no_grad():
        right = model(x).argmax(1) == y
    return Subject(model, x[right], y[right], len(x), len(config["class_names"]))

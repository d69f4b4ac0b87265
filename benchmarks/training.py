"""What the framework costs: a training epoch against a hand-written PyTorch loop on the same work.

    python benchmarks/training.py

Prints a table of ratios (ours / the loop's; below 1 is faster or smaller). Each ratio is the median of alternating
measurements in one process; peak memory is that of a fresh process each.
"""

from __future__ import annotations

import argparse
import logging
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.data.loader import TrainingLoader
from xrobust.data.mnist5k import MNIST5k
from xrobust.defenses import PGDAdversarialTraining
from xrobust.models import MadryCNN, ResNet, SmallCNN
from xrobust.schedules import Constant
from xrobust.threat import ThreatModel

EPS, STEPS = 0.2, 7
warnings.filterwarnings("ignore")


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """PGD adversarial training as one writes it by hand."""
    model.eval()
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
        x_adv = x_adv.detach() + 2.5 * EPS / STEPS * gradient.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    model.train()
    optimizer.zero_grad()
    F.cross_entropy(model(x_adv), y).backward()
    optimizer.step()


def plain_epochs(model: nn.Module, images: Tensor, labels: Tensor, batch: int, epochs: int) -> list[float]:
    """Seconds of each epoch of the hand-written loop; the images are float tensors in memory."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        order = torch.randperm(len(images))
        for start in range(0, len(images) - batch + 1, batch):
            rows = order[start : start + batch]
            plain_step(model, optimizer, images[rows], labels[rows])
        seconds.append(time.perf_counter() - began)
    return seconds


class EpochTimes(pl.Callback):
    """Seconds of each training epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def our_epochs(model: nn.Module, loader: TrainingLoader, epochs: int, precision: str = "32-true") -> list[float]:
    """Seconds of each epoch of `PGDAdversarialTraining` under Lightning, without callbacks."""
    attack = PGD(threat=ThreatModel("linf", EPS), steps=STEPS, autocast=True)
    module = PGDAdversarialTraining(
        model=model, optimizer=lambda p: torch.optim.Adam(p, 2e-3), schedule=Constant(), attack=attack
    )
    times = EpochTimes()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        precision=precision,  # type: ignore[arg-type]
        callbacks=[times],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    return times.seconds


def alternating(
    ours: Callable[[], list[float]], plain: Callable[[], list[float]], rounds: int
) -> tuple[float, float, float]:
    """(ratio, our seconds, the loop's seconds): medians over rounds that alternate; the first epoch warms up."""
    measured = {"ours": [], "plain": []}  # type: dict[str, list[float]]
    for _ in range(rounds):
        measured["plain"] += plain()[1:]
        measured["ours"] += ours()[1:]
    mine, theirs = statistics.median(measured["ours"]), statistics.median(measured["plain"])
    return mine / theirs, mine, theirs


def digits(count: int) -> tuple[Tensor, Tensor]:
    """uint8 digits (N, 1, 28, 28) and labels of the default data set."""
    data = MNIST5k(num_classes=10, channels=1, image_size=28)
    arrays = data.load()
    return arrays.x_train[:count], arrays.y_train[:count]


def time_default(rounds: int, epochs: int) -> tuple[float, float, float]:
    images, labels = digits(3600)
    floats = images.float() / 255

    def model() -> nn.Module:
        return SmallCNN(num_classes=10, in_channels=1, image_size=28)

    return alternating(
        lambda: our_epochs(model(), TrainingLoader(images, labels, batch_size=100), epochs),
        lambda: plain_epochs(model(), floats, labels, 100, epochs),
        rounds,
    )


def time_bf16(rounds: int, epochs: int) -> tuple[float, float, float]:
    images, labels = digits(512)
    floats = images.float() / 255

    def model() -> nn.Module:
        return MadryCNN(num_classes=10, in_channels=1, image_size=28)

    def ours() -> list[float]:
        channels_last = model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return our_epochs(channels_last, TrainingLoader(images, labels, batch_size=128), epochs, "bf16-mixed")

    return alternating(ours, lambda: plain_epochs(model(), floats, labels, 128, epochs), rounds)


def peak_memory(which: str) -> float:
    """MiB at the peak of two steps of ResNet-18 at batch 128 on 32×32 images, in a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--memory-of", which], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def train_for_memory(which: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (256,), generator=generator)
    model = ResNet(num_classes=10, in_channels=3, image_size=32)
    if which == "ours":
        our_epochs(model, TrainingLoader(images, labels, batch_size=128), 1)
    else:
        plain_epochs(model, images.float() / 255, labels, 128, 1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds of each measurement")
    parser.add_argument("--memory-of", choices=["ours", "plain"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        return train_for_memory(arguments.memory_of)
    logging.disable(logging.INFO)
    ratio, ours, plain = time_default(arguments.rounds, epochs=4)
    rows = [("epoch, PGD-7, 2C2F, 3,600 digits, batch 100, fp32", f"{ours:.2f} s", f"{plain:.2f} s", ratio)]
    ratio, ours, plain = time_bf16(arguments.rounds, epochs=3)
    work = "epoch, PGD-7, Madry CNN, 512 digits, batch 128: bf16 + channels_last / fp32 loop"
    rows.append((work, f"{ours:.2f} s", f"{plain:.2f} s", ratio))
    ours, plain = peak_memory("ours"), peak_memory("plain")
    rows.append(("peak memory, PGD-7, ResNet-18, batch 128", f"{ours:.0f} MiB", f"{plain:.0f} MiB", ours / plain))
    print(f"\n{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| work | xrobust | plain loop | ratio |\n|---|---|---|---|")
    for name, mine, theirs, value in rows:
        print(f"| {name} | {mine} | {theirs} | {value:.2f} |")


if __name__ == "__main__":
    main()

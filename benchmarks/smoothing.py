"""What certificates by smoothing cost: CERTIFY against a plain loop of Cohen's procedure, and the sequential version.

python benchmarks/smoothing.py --images 20 --n 10000 --output runs/benchmark_smoothing

The network is a bundle, or LeNet after a few steps of training under noise on the 5,000 images of MNIST. Both sides see
the same network, images, batch and device, and take turns image by image.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tables import Row, save, show
from torch import Tensor, nn

import xrobust
from xrobust.data import MNIST5k
from xrobust.errors import UserError, at_least
from xrobust.models import LeNet
from xrobust.smoothing import ABSTAIN, Certify, CertifyAt, GaussianNoise, lower_bound


def plain_certify(
    model: nn.Module, image: Tensor, sigma: float, n0: int, n: int, alpha: float, batch: int
) -> tuple[int, float]:
    """Cohen's procedure for one image as one would write it down; the class (−1: abstain) and the probability."""

    def counts(samples: int) -> Tensor:
        total = torch.zeros(10, dtype=torch.int64)
        with torch.no_grad():
            while samples > 0:
                now = min(batch, samples)
                copies = image.repeat(now, 1, 1, 1)
                predicted = model(copies + torch.randn_like(copies) * sigma).argmax(1)
                total += torch.bincount(predicted.cpu(), minlength=10)
                samples -= now
        return total

    guess = int(counts(n0).argmax())
    probability = float(lower_bound(int(counts(n)[guess]), n, alpha))
    return (guess, probability) if probability > 0.5 else (ABSTAIN, probability)


def trained(sigma: float, steps: int, device: str) -> nn.Module:
    """LeNet after so many steps under noise."""
    torch.manual_seed(0)
    loader = MNIST5k(num_classes=10, channels=1, image_size=28).train_dataloader()
    images, labels = loader.images.float().to(device) / 255, loader.labels.to(device)
    model = LeNet(num_classes=10, in_channels=1, image_size=28).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(steps):
        rows = torch.randint(len(images), (64,), device=device)
        noisy = images[rows] + sigma * torch.randn_like(images[rows])
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(noisy), labels[rows]).backward()
        optimizer.step()
    return model.eval()


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begun, result


def measured(model: nn.Module, x: Tensor, chosen: argparse.Namespace) -> list[Row]:
    """Seconds of the plain loop, of CERTIFY and of the sequential version at each radius, image by image."""
    shared = {"n0": chosen.n0, "n": chosen.n, "alpha": chosen.alpha, "batch_size": chosen.batch}
    noise = GaussianNoise(sigma=chosen.sigma)
    ours = {"CERTIFY": Certify(noise=noise, **shared)}
    ours |= {f"sequential at {at:g}": CertifyAt(noise=noise, at=at, **shared) for at in chosen.radii}
    plain = (chosen.sigma, chosen.n0, chosen.n, chosen.alpha, chosen.batch)
    seconds: dict[str, list[float]] = {"plain loop": [], **{name: [] for name in ours}}
    samples: dict[str, list[int]] = {name: [] for name in ours}
    radius: list[float] = []
    certified: dict[str, list[bool]] = {name: [] for name in ours}
    plain_certify(model, x[0], *plain)  # warms up
    for i, image in enumerate(x):
        seconds["plain loop"].append(timed(lambda: plain_certify(model, image, *plain), chosen.device)[0])  # noqa: B023
        for name, procedure in ours.items():
            spent, found = timed(lambda: procedure(model, image[None], index=[i]), chosen.device)  # noqa: B023
            seconds[name].append(spent)
            samples[name].append(int(found.samples))
            certified[name].append(bool(found.prediction != ABSTAIN))
            if name == "CERTIFY":
                radius.append(float(found.radius))
    rows: list[Row] = []
    for name, each in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(seconds["plain loop"], each, strict=True)]
        row: Row = {"procedure": name, "images a second": len(x) / sum(each), "times the plain loop": median(ratios)}
        row["samples an image"] = sum(samples[name]) / len(x) if name in ours else chosen.n0 + chosen.n
        row["certified"] = sum(certified[name]) if name in ours else None
        at = getattr(ours.get(name), "at", None)
        row["of them by CERTIFY"] = None if at is None else sum(r >= at for r in radius)
        rows.append(row)
    return rows


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="of a network on MNIST")
    parser.add_argument("--steps", type=int, default=200, help="of training, without a bundle")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--radii", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="that are asked for")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--n0", type=int, default=100)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--batch", type=int, default=1000, help="noisy copies in the model at once")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_smoothing"), help="folder of CSV and JSON")
    chosen = parser.parse_args(arguments)
    at_least("smoothing", 1, images=chosen.images, steps=chosen.steps, threads=chosen.threads)
    return chosen


def main(arguments: Sequence[str]) -> None:
    chosen = parsed(arguments)
    torch.set_num_threads(chosen.threads)
    loaded = chosen.bundle and xrobust.load(chosen.bundle, chosen.device)
    model = loaded or trained(chosen.sigma, chosen.steps, chosen.device)
    x = MNIST5k(num_classes=10, channels=1, image_size=28).test_dataloader().images[: chosen.images]
    rows = measured(model, x.float().to(chosen.device) / 255, chosen)
    context: Row = {
        "processor": platform.machine(),
        "threads": chosen.threads,
        "device": chosen.device,
        "protocol": {name: getattr(chosen, name) for name in ("sigma", "n0", "n", "alpha", "batch", "images")},
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "versions": {"xrobust": xrobust.__version__, "torch": torch.__version__},
    }
    show("smoothing", rows)
    save(chosen.output, "smoothing", rows, context)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))

"""What bounds cost: a training step as a multiple of a standard one, and IBP and CROWN against auto_LiRPA.

python benchmarks/bounds.py --models cnn7 dm_small --batch 64 --output runs/benchmark_bounds

The comparison with auto_LiRPA (from its repository; the package on PyPI is of 2022) needs it to be importable, and is
left out with a message otherwise.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tables import Row, save, show
from torch import Tensor, nn

import xrobust
from xrobust.certification import (
    batch_statistics,
    crown_bounds,
    input_box,
    interval_bounds,
    interval_lower_bound,
    lower_bound,
    margins,
    trace,
)
from xrobust.errors import UserError, at_least
from xrobust.models import CNN7, DMLarge, DMMedium, DMSmall
from xrobust.threat import ThreatModel

MODELS = {"cnn7": CNN7, "dm_small": DMSmall, "dm_medium": DMMedium, "dm_large": DMLarge}
MNIST = {"num_classes": 10, "in_channels": 1, "image_size": 28}
THREAT = ThreatModel("linf", "0.1")


def fastest(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least seconds of each work; they take turns, and the first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return {name: min(each) for name, each in seconds.items()}


def training_steps(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Callable[[], Any]]:
    """A standard step, and steps on half the clean loss and half that of the bounds."""
    graph = trace(model, x[0])
    forms, box = margins(y, 10), input_box(THREAT, x)
    optimizer = torch.optim.Adam(model.parameters(), 5e-4)

    def step(bound: Callable[..., Tensor] | None) -> None:
        model.train()
        optimizer.zero_grad()
        with batch_statistics(model) as recorded:
            logits = model(x)
        loss = nn.functional.cross_entropy(logits, y)
        if bound is not None:
            lower = bound(interval_bounds(graph.network(recorded), box, all_nodes=False), forms)
            worst = torch.cat([torch.zeros(len(x), 1, device=x.device), -lower], 1)
            loss = (loss + nn.functional.cross_entropy(worst, torch.zeros_like(y))) / 2
        loss.backward()
        optimizer.step()

    def standard() -> None:
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return {"standard": standard, "IBP": lambda: step(interval_lower_bound), "CROWN-IBP": lambda: step(lower_bound)}


def evaluations(model: nn.Module, x: Tensor, y: Tensor, full: bool) -> dict[str, Callable[[], Any]]:
    """The bounds alone, without rounding, as auto_LiRPA computes them."""
    network, forms, box = trace(model.eval(), x[0]).network(), margins(y, 10), input_box(THREAT, x)

    @torch.no_grad()
    def ibp() -> Tensor:
        return interval_lower_bound(interval_bounds(network, box, all_nodes=False), forms)

    @torch.no_grad()
    def crown_ibp() -> Tensor:
        return lower_bound(interval_bounds(network, box, all_nodes=False), forms)

    @torch.no_grad()
    def crown() -> Tensor:
        return lower_bound(crown_bounds(interval_bounds(network, box)), forms)

    return {"IBP": ibp, "CROWN-IBP": crown_ibp} | ({"CROWN": crown} if full else {})


def theirs(model: nn.Module, x: Tensor, y: Tensor, full: bool) -> dict[str, Callable[[], Any]]:
    """The same bounds by auto_LiRPA; empty if it cannot be imported."""
    try:
        from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm
    except ImportError:
        return {}
    bounded = BoundedModule(model.eval(), x[:1], device=x.device)
    forms, box = margins(y, 10), input_box(THREAT, x)
    image = BoundedTensor(x, PerturbationLpNorm(norm=float("inf"), x_L=box.lower, x_U=box.upper))

    def by(method: str) -> Callable[[], Any]:
        @torch.no_grad()
        def compute() -> Tensor:
            return bounded.compute_bounds(x=(image,), C=forms, method=method, bound_upper=False)[0]

        return compute

    methods = ["IBP", "CROWN-IBP", *(["CROWN"] if full else [])]
    return {method: by(method) for method in methods}


def measured(name: str, batch: int, width: float, rounds: int, device: str, full: bool) -> tuple[list[Row], list[Row]]:
    """Training steps and bounds of one network: rows of two tables."""
    torch.manual_seed(0)
    model = MODELS[name](**MNIST, width=width).to(device)
    x, y = torch.rand(batch, 1, 28, 28, device=device), torch.randint(0, 10, (batch,), device=device)
    head: Row = {"model": name, "width": width, "batch": batch}
    steps = fastest(training_steps(model, x, y), rounds)
    training = [
        {**head, "step": work, "ms": 1000 * s, "multiple of standard": s / steps["standard"]}
        for work, s in steps.items()
    ]
    ours, other = evaluations(model, x, y, full), theirs(model, x, y, full)
    seconds = fastest({**ours, **{f"their {work}": call for work, call in other.items()}}, rounds)
    bounds = []
    for work in ours:
        row: Row = {**head, "bound": work, "ms": 1000 * seconds[work]}
        if other:
            row |= {
                "auto_LiRPA, ms": 1000 * seconds[f"their {work}"],
                "ours / theirs": seconds[work] / seconds[f"their {work}"],
                "largest difference": float((ours[work]() - other[work]()).abs().max()),
            }
        bounds.append(row)
    return training, bounds


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["cnn7", "dm_small"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0, help="a factor of all widths")
    parser.add_argument("--rounds", type=int, default=5, help="of which the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--crown", action="store_true", help="also CROWN for all preactivations: slow")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_bounds"), help="folder of CSV and JSON")
    chosen = parser.parse_args(arguments)
    at_least("bounds", 1, batch=chosen.batch, rounds=chosen.rounds, threads=chosen.threads)
    return chosen


def main(arguments: Sequence[str]) -> None:
    chosen = parsed(arguments)
    torch.set_num_threads(chosen.threads)
    training: list[Row] = []
    bounds: list[Row] = []
    for name in chosen.models:
        steps, values = measured(name, chosen.batch, chosen.width, chosen.rounds, chosen.device, chosen.crown)
        training += steps
        bounds += values
    context: Row = {
        "processor": platform.machine(),
        "threads": chosen.threads,
        "device": chosen.device,
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "versions": {"xrobust": xrobust.__version__, "torch": torch.__version__},
    }
    for title, rows in (("training_steps", training), ("bounds", bounds)):
        show(title, rows)
        save(chosen.output, title, rows, context)
    if "auto_LiRPA, ms" not in bounds[0]:
        print("\nauto_LiRPA cannot be imported here, so nothing was compared with it; install it from its repository.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))

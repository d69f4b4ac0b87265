"""What bounds cost, and how they compare with those of auto_LiRPA: time, memory, and the numbers themselves.

    python benchmarks/bounds.py --models cnn7 dm_small --batch 64 --output runs/benchmark_bounds

Lower bounds of all differences of logits, in float32 and without the allowance for rounding, on networks with random
weights, where nearly every unit is unstable: the dearest case. All take turns in one process; the least time of the
rounds counts. Memory is what a forked process needs on top of what it began with. The comparison with auto_LiRPA (from
its repository; the package on PyPI is of 2022) needs it to be importable, and is left out with a message otherwise.
What a training step costs is in `certified_training.py`.
"""

from __future__ import annotations

import argparse
import os
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


def needed_memory(work: Callable[[], Any]) -> float:
    """MiB that a process needs for it beyond what it began with."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
        work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        os.write(writer, f"{max(0.0, peak - before)}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    return float(os.read(reader, 64))


def ours(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, full: bool) -> dict[str, Callable[[], Tensor]]:
    """The bounds of this project."""
    network, forms, box = trace(model.eval(), x[0]).network(), margins(y, 10), input_box(threat, x)

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


def theirs(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, full: bool) -> dict[str, Callable[[], Tensor]]:
    """The same by auto_LiRPA; empty if it cannot be imported."""
    try:
        from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm
    except ImportError:
        return {}
    bounded = BoundedModule(model.eval(), x[:1], device=x.device)
    forms, box = margins(y, 10), input_box(threat, x)
    image = BoundedTensor(x, PerturbationLpNorm(norm=float("inf"), x_L=box.lower, x_U=box.upper))

    def by(method: str) -> Callable[[], Tensor]:
        @torch.no_grad()
        def compute() -> Tensor:
            return bounded.compute_bounds(x=(image,), C=forms, method=method, bound_upper=False)[0]

        return compute

    methods = ["IBP", "CROWN-IBP", *(["CROWN"] if full else [])]
    return {method: by(method) for method in methods}


def measured(name: str, chosen: argparse.Namespace) -> list[Row]:
    """The bounds of one network."""
    torch.manual_seed(0)
    model = MODELS[name](**MNIST, width=chosen.width).to(chosen.device)
    x = torch.rand(chosen.batch, 1, 28, 28, device=chosen.device)
    y = torch.randint(0, 10, (chosen.batch,), device=chosen.device)
    given = (model, x, y, ThreatModel("linf", chosen.eps), chosen.crown)
    own, other = ours(*given), theirs(*given)
    seconds = fastest({**own, **{f"their {work}": call for work, call in other.items()}}, chosen.rounds)
    rows = []
    for work in own:
        row: Row = {"model": name, "width": chosen.width, "batch": chosen.batch, "ε": chosen.eps, "bound": work}
        row |= {"ms": 1000 * seconds[work]}
        if other:
            lower = own[work]()
            row |= {
                "auto_LiRPA, ms": 1000 * seconds[f"their {work}"],
                "ours / theirs": seconds[work] / seconds[f"their {work}"],
                "largest difference": float((lower - other[work]()).abs().max()),
                "largest bound": float(lower.abs().max()),
            }
        if chosen.device == "cpu":
            row |= {"MiB": needed_memory(own[work])}
            row |= {"auto_LiRPA, MiB": needed_memory(other[work])} if other else {}
        rows.append(row)
    return rows


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["cnn7", "dm_small"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0, help="a factor of all widths")
    parser.add_argument("--eps", default="0.1", help="the radius in Linf")
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
    bounds = [row for name in chosen.models for row in measured(name, chosen)]
    context: Row = {
        "processor": platform.machine(),
        "threads": chosen.threads,
        "device": chosen.device,
        "versions": {"xrobust": xrobust.__version__, "torch": torch.__version__},
    }
    show("bounds", bounds)
    save(chosen.output, "bounds", bounds, context)
    if "auto_LiRPA, ms" not in bounds[0]:
        print("\nauto_LiRPA cannot be imported here, so nothing was compared with it; install it from its repository.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))

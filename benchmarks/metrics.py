"""What each explanation metric costs, and the suite that the explanation callback measures in every epoch.

    python benchmarks/metrics.py --bundle runs/<run>/bundle --images 128

The metrics are those of conf/metrics; attribution, attacks and threat model are those of the default run. What the
metrics share (maps, adversarial examples, logits …) is listed first, each without what it is made from; a metric is
timed with all of it there. The mask is that of the pixels above ½. Time is that of the processor, on one thread unless
told otherwise, and the least of the rounds; shares are of the sum.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from measure import load_subject
from tables import Row, save, show

import xrobust
from xrobust.config.build import build, build_all, plain
from xrobust.config.schema import register
from xrobust.errors import UserError, at_least
from xrobust.metrics import ExplanationMetric, Probe
from xrobust.metrics.probe import _Shared

CONF = Path(__file__).resolve().parents[1] / "conf"
SHARED = [name for name, made in vars(Probe).items() if isinstance(made, _Shared | cached_property)]


def composed(*overrides: str) -> dict[str, Any]:
    """The configuration of the default run with some overrides."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose("train", ["run_dir=runs/none", "hydra.run.dir=runs/none", *overrides]))


def made_probe(bundle: Path, images: int, config: dict[str, Any]) -> Probe:
    """The bundle's model and test images that it gets right, attacked and explained as the configuration says."""
    subject = load_subject(bundle, images)
    (method,) = build_all(config["attribution"], "attribution").values()
    attack = build(config["val_attack"], "val_attack")
    return Probe(
        model=subject.model.model,
        x=subject.x,
        y=subject.y,
        index=torch.arange(len(subject.x)),
        method=method,
        threat=attack.threat,
        attack=attack,
        map_attack=build(config["map_attack"], "map_attack"),
        mask=subject.x.mean(1) > 0.5,
        pool=(subject.x, subject.y),
    )


def bare(probe: Probe) -> Probe:
    """The probe with nothing computed yet."""
    return replace(probe, shared={})


def like(probe: Probe) -> Probe:
    """A copy that has what the probe has; what is computed on it stays with it."""
    twin = copy.copy(probe)
    object.__setattr__(twin, "shared", dict(probe.shared))
    return twin


def seconds_of(metric: ExplanationMetric, probe: Probe) -> float:
    began = time.process_time()
    metric.per_sample(probe)
    return time.process_time() - began


def seconds_of_shared(probe: Probe) -> dict[str, float]:
    """What each shared quantity costs once those that it is made from are there; the probe has all of them then."""
    seconds = {}
    for name in SHARED:
        began = time.process_time()
        getattr(probe, name)
        seconds[name] = time.process_time() - began
    return seconds


def rows_of_all(metrics: dict[str, ExplanationMetric], probe: Probe, rounds: int) -> list[Row]:
    """One row for each shared quantity and each metric."""
    full = bare(probe)
    seconds_of_shared(full)
    least: dict[str, float] = {}
    for _ in range(rounds):
        turn = seconds_of_shared(bare(probe))
        turn |= {name: seconds_of(metric, like(full)) for name, metric in metrics.items()}
        least = {name: min(spent, least.get(name, spent)) for name, spent in turn.items()}
    total = sum(least.values())

    def row(name: str) -> Row:
        group, cost = (metrics[name].group, metrics[name].cost) if name in metrics else ("shared", "")
        return {
            "quantity": name,
            "group": group,
            "declared cost": cost,
            "ms": 1000 * least[name],
            "share %": 100 * least[name] / total,
        }

    return [row(name) for name in least]


def rows_of_suite(metrics: dict[str, ExplanationMetric], probe: Probe, rounds: int) -> list[Row]:
    """One row for each metric of the suite, in its order, with what it is the first to need; the last is the sum.

    All rows are those of the quickest round.
    """
    seconds_of(next(iter(metrics.values())), bare(probe))  # warms up
    turns = []
    for _ in range(rounds):
        fresh = bare(probe)
        turns.append({name: seconds_of(metric, fresh) for name, metric in metrics.items()})
    quickest = min(turns, key=lambda turn: sum(turn.values()))
    total = sum(quickest.values())
    quickest["all"] = total
    return [{"metric": name, "ms": 1000 * spent, "share %": 100 * spent / total} for name, spent in quickest.items()]


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of a bundle, as train.py writes it")
    parser.add_argument("--images", type=int, default=128, help="test images, balanced over the classes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--only", nargs="+", help="names in conf/metrics; all of them if none is given")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_metrics"), help="folder of CSV and JSON")
    chosen = parser.parse_args(arguments)
    at_least("metrics", 1, images=chosen.images, rounds=chosen.rounds, threads=chosen.threads)
    return chosen


def main(arguments: Sequence[str]) -> None:
    chosen = parsed(arguments)
    register()
    torch.set_num_threads(chosen.threads)
    config = composed()
    probe = made_probe(chosen.bundle, chosen.images, config)
    names = chosen.only or sorted(file.stem for file in (CONF / "metrics").glob("*.yaml"))
    metrics = build_all(composed(f"metrics=[{','.join(names)}]")["metrics"], "metrics")
    context = {
        "bundle": str(chosen.bundle),
        "images": len(probe),
        "shape": "×".join(map(str, probe.x.shape[1:])),
        "threat": str(probe.threat),
        "rounds": chosen.rounds,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "versions": {"xrobust": xrobust.__version__, "torch": torch.__version__},
    }
    print("\n".join(f"{name}: {value}" for name, value in context.items()))
    tables = {
        "every_epoch": rows_of_suite(build_all(config["metrics"], "metrics"), probe, chosen.rounds),
        "metrics": rows_of_all(metrics, probe, chosen.rounds),
    }
    for name, rows in tables.items():
        show(name, rows)
        save(chosen.output, name, rows, context)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))

"""xrobust's attacks against those of other libraries: the same model, images, budgets and threads.

    python benchmarks/attacks.py --bundle runs/<run>/bundle --images 500 --threads 1

Prints tables and writes them as CSV and JSON. The libraries take turns in one process, in rounds with a seed each, on
the images that the model gets right. Robust accuracy is the mean of the rounds and a share of all images; time is that
of the processor and the least of the rounds. A library that is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import platform
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import Run, Subject, distances, load_subject, run, standing
from peers import PEERS, Foolbox, Library, Xrobust
from tables import Row, save, show
from torch import Tensor

import xrobust
from xrobust.errors import UserError, at_least
from xrobust.threat import ThreatModel

NEAREST = "nearest"
PARTS = ("fgsm", "pgd", "apgd", "fab", "square", "autoattack", NEAREST)


@dataclass(frozen=True)
class Line:
    """An attack with its budget, for every library that has it.

    Attributes:
        title: what the table calls it.
        method: of the libraries.
        budget: arguments for all of them.
        ours: further arguments for xrobust.
        warm_up: on how many images it is run once before it is measured.
    """

    title: str
    method: str
    budget: dict[str, Any]
    ours: dict[str, Any] = field(default_factory=dict)
    warm_up: int = 10

    def attack(self, library: Library, x: Tensor, y: Tensor) -> partial[Tensor]:
        more = self.ours if isinstance(library, Xrobust) else {}
        return partial(getattr(library, self.method), x, y, **self.budget, **more)


def lines_in_a_ball(balls: dict[str, float]) -> Iterator[Line]:
    """The attacks that stay within ε, for each norm and its ε."""
    for norm, eps in balls.items():
        ball = {"norm": norm, "eps": eps}
        steps = {**ball, "steps": 40, "step_size": 2.5 * eps / 40}
        if norm == "linf":
            yield Line("FGSM", "fgsm", ball)
        yield Line("PGD-40", "pgd", steps)
        yield Line("PGD-40, ours stops early", "pgd", steps, ours={"keep": "worst"})
        yield Line("APGD-CE-50", "apgd", {**ball, "steps": 50})
        # So near to the images that none falls: nobody can stop early.
        yield Line("APGD-CE-50, none falls", "apgd", {"norm": norm, "eps": eps / 50, "steps": 50})
        yield Line("FAB-20", "fab", {**ball, "steps": 20})
        yield Line("Square-500", "square", {**ball, "queries": 500})
        yield Line("AutoAttack standard", "autoattack", ball, warm_up=0)  # it takes minutes


def compare(line: Line, subject: Subject, peers: Sequence[type[Library]], rounds: int) -> list[Row]:
    """One row for each library that has the attack, xrobust first."""
    model, x, y = subject.model, subject.x, subject.y
    threat = ThreatModel(line.budget["norm"], line.budget["eps"])
    libraries: list[type[Library]] = [Xrobust, *peers]
    able = [library for library in libraries if hasattr(library, line.method)]
    runs: dict[str, list[Run]] = {library.name: [] for library in able}
    left: dict[str, list[float]] = {library.name: [] for library in able}
    for library in able if line.warm_up else []:
        run(line.attack(library(model, subject.classes, 0), x[: line.warm_up], y[: line.warm_up]), model)
    for seed in range(rounds):
        for library in able:
            done = run(line.attack(library(model, subject.classes, seed), x, y), model, seed)
            runs[library.name].append(done)
            left[library.name].append(100 * standing(model, threat, done.x_adv, x, y) / subject.images)

    def row(name: str) -> Row:
        mine, theirs = (min(each.seconds for each in runs[which]) for which in (Xrobust.name, name))
        return {
            "attack": line.title,
            "threat": str(threat),
            "library": name,
            "robust %": statistics.mean(left[name]),
            "ours − theirs": statistics.mean(left[Xrobust.name]) - statistics.mean(left[name]),
            "passes/image": statistics.mean(each.passes for each in runs[name]) / len(x),
            "ms/image": 1000 * theirs / len(x),
            "time, ours / theirs": mine / theirs,
        }

    return [row(library.name) for library in able]


def lines_to_the_nearest(norm: str, passes: int) -> Iterator[Line]:
    """The attacks that look for the nearest adversarial example, in about so many passes for each image."""
    single = {"norm": norm, "steps": passes // 2}
    searched = {"norm": norm, "searches": 9}
    yield Line("FMN", "fmn", single)
    if norm == "l1":
        yield Line("EAD", "ead", {**searched, "steps": passes // 27})
    else:
        yield Line("DeepFool", "deepfool", {"norm": norm, "steps": 50})
    if norm == "l2":
        yield Line("DDN", "ddn", single)
        # The usual learning rate of 0.01 gets nowhere in so few steps.
        yield Line("C&W", "carlini_wagner", {**searched, "steps": passes // 18, "learning_rate": 0.1})


def compare_nearest(norm: str, passes: int, subject: Subject) -> list[Row]:
    """One row for each attack of xrobust and foolbox, ours with their ratios to the same attack and to the best one."""
    model, threat = subject.model, ThreatModel(norm, 1)
    spent: dict[tuple[str, str], float] = {}
    far: dict[tuple[str, str], Tensor] = {}
    for library in (Xrobust, Foolbox):
        for line in lines_to_the_nearest(norm, passes):
            if hasattr(library, line.method):
                attack = line.attack(library(model, subject.classes, 0), subject.x, subject.y)
                done = run(attack, model)
                spent[library.name, line.title] = done.passes / len(subject.x)
                far[library.name, line.title] = distances(model, threat, done.x_adv, subject.x, subject.y)
    best = min((key for key in far if key[0] == Foolbox.name), key=lambda key: float(far[key].median()))

    def ratio(mine: tuple[str, str], theirs: tuple[str, str]) -> float | None:
        """Of the medians over the samples for which both found an example."""
        if mine[0] == Foolbox.name or theirs not in far:
            return None
        both = far[mine].isfinite() & far[theirs].isfinite()
        return float(far[mine][both].median() / far[theirs][both].median())

    return [
        {
            "norm": norm,
            "budget": passes,
            "library": library,
            "attack": title,
            "passes/image": spent[library, title],
            "median distance": float(distance.median()),
            "missed": int(distance.isinf().sum()),
            "ours / same": ratio((library, title), (Foolbox.name, title)),
            "ours / best": ratio((library, title), best),
        }
        for (library, title), distance in far.items()
    ]


def autoattack_cost(subject: Subject, norm: str, eps: float) -> Row:
    """The time of our AutoAttack standard as a multiple of that of 100 steps of PGD."""
    library = Xrobust(subject.model, subject.classes, 0)
    ball = {"norm": norm, "eps": eps}
    steps = {**ball, "steps": 100, "step_size": 2.5 * eps / 100}
    attacks = {"PGD-100": Line("", "pgd", steps), "AutoAttack": Line("", "autoattack", ball)}
    done = {name: run(line.attack(library, subject.x, subject.y), subject.model) for name, line in attacks.items()}
    row: Row = {"threat": str(ThreatModel(norm, eps)), "images": len(subject.x)}
    for name, each in done.items():
        row |= {f"{name}, CPU s": each.seconds, f"{name}, s": each.wall_seconds}
    pgd, autoattack = done.values()
    multiples = (autoattack.seconds / pgd.seconds, autoattack.wall_seconds / pgd.wall_seconds)
    return row | dict(zip(("multiple, CPU", "multiple"), multiples, strict=True))


def installed(libraries: Sequence[type[Library]]) -> tuple[dict[str, str], list[str]]:
    """The versions of the libraries that are installed, and the names of the others."""
    versions, missing = {}, []
    for library in libraries:
        try:
            versions[library.name] = importlib.metadata.version(library.package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(library.name)
    return versions, missing


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of a bundle, as train.py writes it")
    parser.add_argument("--images", type=int, default=500, help="test images, balanced over the classes")
    parser.add_argument("--linf", type=float, default=0.2, help="ε of the Linf ball")
    parser.add_argument("--l2", type=float, default=1.5, help="ε of the L2 ball")
    parser.add_argument(
        "--passes", type=int, nargs="+", default=[200, 2000], help="budgets of the minimum-norm attacks"
    )
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds, a seed each")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some of the attacks")
    parser.add_argument("--autoattack-cost", action="store_true", help="AutoAttack's time over PGD-100's, nothing else")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_attacks"), help="folder of CSV and JSON")
    chosen = parser.parse_args(arguments)
    at_least("attacks", 1, images=chosen.images, rounds=chosen.rounds, threads=chosen.threads)
    return chosen


def main(arguments: Sequence[str]) -> None:
    chosen = parsed(arguments)
    torch.set_num_threads(chosen.threads)
    versions, missing = installed(PEERS)
    peers = [library for library in PEERS if library.name in versions]
    subject = load_subject(chosen.bundle, chosen.images)
    context = {
        "bundle": str(chosen.bundle),
        "images": subject.images,
        "attacked": len(subject.x),
        "rounds": chosen.rounds,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "versions": {"xrobust": xrobust.__version__, "torch": torch.__version__, **versions},
        "not installed": missing,
    }
    print("\n".join(f"{name}: {value}" for name, value in context.items()))

    def finish(name: str, rows: list[Row]) -> None:
        show(name, rows)
        save(chosen.output, name, rows, context)

    balls = {"linf": chosen.linf, "l2": chosen.l2}
    if chosen.autoattack_cost:
        return finish("autoattack_cost", [autoattack_cost(subject, norm, eps) for norm, eps in balls.items()])
    for part in chosen.only:
        if part != NEAREST:
            lines = [line for line in lines_in_a_ball(balls) if line.method == part]
            finish(part, [row for line in lines for row in compare(line, subject, peers, chosen.rounds)])
        elif Foolbox in peers:
            budgets = [(norm, passes) for norm in ("linf", "l2", "l1") for passes in chosen.passes]
            finish(part, [row for norm, passes in budgets for row in compare_nearest(norm, passes, subject)])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # those of the other libraries
    logging.disable(logging.WARNING)
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))

"""What a step of certified training costs, in steps of standard training.

    python benchmarks/certified_training.py --width 0.5 --output runs/benchmark_certified_training

The model is CNN7 (or `--model dm_small`) on 28 × 28 images, with the methods as `conf/defense` has them at the full
radius; TAPS attacks in the latent box there. CROWN-IBP is measured half way, too, where its backward pass counts
(β = 0.5). All take turns in one process; time is the processor's, the least of the rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from defenses import CONF, least_seconds
from hydra import compose, initialize_config_dir
from tables import Row, save, show
from torch import Tensor

from xrobust.config.build import build, plain
from xrobust.config.schema import register
from xrobust.data.mnist5k import MNIST5k
from xrobust.defenses import RobustClassifier
from xrobust.schedules import Constant

METHODS = ("ibp", "crown_ibp", "sabr", "mtl_ibp", "cc_ibp", "exp_ibp", "taps", "staps")
Step = Callable[[], None]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=5e-4)


def built(name: str, network: Sequence[str], *overrides: str) -> RobustClassifier:
    """The method of that name on a fresh network, which overrides choose."""
    without = ["metrics=[]", "metrics@card_metrics=[]", "callbacks=[]", "run_dir=runs/none", "hydra.run.dir=runs/none"]
    given = [f"defense={name}", *network, "threat=linf_0_1"]
    config = plain(compose("train", [*without, *given, *overrides]))
    torch.manual_seed(0)
    model = build(config["model"], "model")
    return build(config["defense"], "defense", model=model, optimizer=adam, schedule=Constant(), seed=0)


def step_of(defense: RobustClassifier, x: Tensor, y: Tensor) -> Step:
    """One batch of training."""
    optimizer = adam(defense.model.parameters())
    defense.train()

    def step() -> None:
        optimizer.zero_grad()
        defense.training_loss(x, y).value.backward()
        optimizer.step()

    return step


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cnn7", help="cnn7, dm_small, dm_medium or dm_large")
    parser.add_argument("--width", type=float, default=1.0, help="a factor of its widths")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=METHODS, help="names in conf/defense")
    parser.add_argument("--output", type=Path, help="a folder for the table")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    register()
    arrays = MNIST5k(num_classes=10, channels=1, image_size=28).load()
    x, y = arrays.x_train[: given.batch].float() / 255, arrays.y_train[: given.batch]
    network = [f"model={given.model}", f"model.width={given.width}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        defenses = {"standard": built("standard", network)}
        for name in given.only:
            defenses[name] = built(name, network)
            if name == "crown_ibp":
                defenses["crown_ibp, β = 0.5"] = built(name, network, "defense.beta=0.5")
    seconds = least_seconds({name: step_of(defense, x, y) for name, defense in defenses.items()}, given.rounds)
    rows: list[Row] = [
        {"method": name, "seconds": each, "multiple of standard": each / seconds["standard"]}
        for name, each in seconds.items()
    ]
    show("A step of certified training", rows)
    if given.output:
        context = {
            "model": given.model,
            "width": given.width,
            "batch": given.batch,
            "rounds": given.rounds,
            "torch": torch.__version__,
        }
        save(given.output, "certified_training", rows, context)


if __name__ == "__main__":
    main()

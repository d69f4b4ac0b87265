"""What a training step of each method costs, against standard training and against its bare passes.

    python benchmarks/defenses.py

The model is 2C2F on 28 × 28 images, the batch 128, one thread. All take turns in rounds; time is that of the processor,
and the least of the rounds. Passes are counted while a method runs. The limit is as many bare passes of the same kinds,
one after the other with nothing but the optimiser's step between them: forward alone, or forward and backward to the
images, to the weights, to both, or to the weights through the gradient of the images. A last line has TRADES against a
loop that computes the clean logits anew in every step of the attack. Methods that propagate bounds or norms through the
layers do more than passes; `certified_training.py` has the cost of theirs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf
from tables import show
from torch import Tensor, nn

from xrobust.config.build import build, plain
from xrobust.config.schema import register
from xrobust.data.mnist5k import MNIST5k
from xrobust.defenses import CertifiedTraining, LipschitzTraining, RobustClassifier
from xrobust.export.bundle import save_bundle
from xrobust.schedules import Constant

CONF = Path(__file__).resolve().parents[1] / "conf"
BATCH = 128
STEPS, EPS, BETA = 10, 0.3, 6.0
Step = Callable[[], None]


class Passes:
    """What passes through a model: for each forward pass its kind, its images, the backward passes that began at it."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.seen: list[dict[str, Any]] = []
        self.end = model.register_forward_hook(self._note).remove

    def _note(self, module: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
        weights = torch.is_grad_enabled() and any(p.requires_grad for p in self.model.parameters())
        made = {"images": inputs[0].requires_grad, "weights": weights, "batch": len(logits), "backward": 0}
        self.seen.append(made)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: made.update(backward=made["backward"] + 1))

    def forward(self) -> float:
        return sum(made["batch"] for made in self.seen) / BATCH

    def backward(self) -> float:
        return sum(made["batch"] * made["backward"] for made in self.seen) / BATCH

    def kinds(self) -> Counter[str]:
        """How many batches passed in each of the ways of `bare_passes`."""
        counted: Counter[str] = Counter()
        for made in self.seen:
            ends = [end for end in ("images", "weights") if made[end]]
            kind = "twice" if made["backward"] > 1 else " and ".join(ends) if made["backward"] else "forward"
            counted[kind] += made["batch"] / BATCH
        return counted


def bare_passes(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Step]:
    """One pass of each kind, and a step of the optimiser."""
    optimizer = sgd(model.parameters())
    leaf = x.clone().requires_grad_()

    def loss(images: Tensor) -> Tensor:
        return F.cross_entropy(model(images), y)

    def to_images() -> None:
        model.requires_grad_(False)
        torch.autograd.grad(loss(leaf), leaf)
        model.requires_grad_(True)

    def twice() -> None:
        torch.autograd.grad(loss(leaf), leaf, create_graph=True)[0].square().sum().backward()

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return {
        "forward": torch.no_grad()(lambda: model(x)),
        "images": to_images,
        "weights": lambda: loss(x).backward(),
        "images and weights": lambda: loss(leaf).backward(),
        "twice": twice,
        "update": update,
    }


def one_after_another(bare: dict[str, Step], counts: Counter[str]) -> Step:
    """So many passes of each kind."""

    def step() -> None:
        for kind, count in counts.items():
            for _ in range(round(count)):
                bare[kind]()

    return step


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


def made_of_passes() -> list[str]:
    """The names in conf/defense of methods that call the model and do nothing with its layers."""
    names = sorted(file.stem for file in (CONF / "defense").glob("*.yaml"))
    targets = {name: get_class(OmegaConf.load(CONF / "defense" / f"{name}.yaml")["_target_"]) for name in names}
    return [name for name in names if not issubclass(targets[name], CertifiedTraining | LipschitzTraining)]


def built(name: str, folder: Path) -> tuple[RobustClassifier, dict[str, Any]]:
    """The method of that name on a fresh 2C2F."""
    given = [f"run_dir={folder}", f"hydra.run.dir={folder}", "model=small_cnn", f"threat.eps={EPS}"]
    helper = [f"defense.helper={folder / 'bundle'}"] if name == "hat" else []
    config = plain(compose("train", [f"defense={name}", *given, *helper]))
    torch.manual_seed(0)
    model = build(config["model"], "model")
    return build(config["defense"], "defense", model=model, optimizer=sgd, schedule=Constant(), seed=0), config


def step_of(defense: RobustClassifier, x: Tensor, y: Tensor) -> Step:
    """One batch of training, with all its replays."""
    optimizer = sgd(defense.model.parameters())
    defense.train()

    def step() -> None:
        for _ in range(updates(defense)):
            optimizer.zero_grad()
            defense.training_loss(x, y).value.backward()
            defense.on_after_backward()
            optimizer.step()

    return step


def passes_of(defense: RobustClassifier, x: Tensor, y: Tensor) -> Passes:
    """What one batch of training passes through the model."""
    passes = Passes(defense.model)
    step_of(defense, x, y)()
    passes.end()
    return passes


def updates(defense: RobustClassifier) -> int:
    """Optimiser steps of a batch."""
    return getattr(defense, "replays", 1)


def naive_trades(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """TRADES as one writes it when the divergence is a function of both images."""
    optimizer = sgd(model.parameters())

    def divergence(x_adv: Tensor) -> Tensor:
        return F.kl_div(model(x_adv).log_softmax(1), model(x).softmax(1), reduction="batchmean")

    def step() -> None:
        model.eval()
        x_adv = x + 0.001 * torch.randn_like(x)
        for _ in range(STEPS):
            x_adv = x_adv.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(divergence(x_adv), x_adv)
            x_adv = x_adv.detach() + 2.5 * EPS / STEPS * gradient.sign()
            x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
        model.train()
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + BETA * divergence(x_adv)).backward()
        optimizer.step()

    return step


def least_seconds(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """The least processor time of each step over rounds in which they take turns; a round before them warms up."""
    least = dict.fromkeys(steps, float("inf"))
    for turn in range(rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if turn:
                least[name] = min(least[name], time.process_time() - began)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="names in conf/defense; by default all that are made of passes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    register()
    arrays = MNIST5k(num_classes=10, channels=1, image_size=28).load()
    x, y = arrays.x_train[:BATCH].float() / 255, arrays.y_train[:BATCH]
    names = arguments.only or made_of_passes()
    with tempfile.TemporaryDirectory() as temporary, initialize_config_dir(str(CONF), version_base="1.3"):
        folder = Path(temporary)
        standard, config = built("standard", folder)
        save_bundle(folder / "bundle", standard.model, config["model"], class_names=list("0123456789"), training=config)
        defenses = {name: built(name, folder)[0] for name in names}
        trades = built("trades", folder)[0]
    counted = {name: passes_of(defense, x, y) for name, defense in defenses.items()}
    bare = bare_passes(standard.model, x, y)
    steps = {"standard training": step_of(standard, x, y)}
    for name, defense in defenses.items():
        steps[name] = step_of(defense, x, y)
        steps[f"{name}, limit"] = one_after_another(bare, counted[name].kinds() + Counter(update=updates(defense)))
    pair = {"hoisted": step_of(trades, x, y), "naive": naive_trades(trades.model, x, y)}
    least = least_seconds({**steps, **pair}, arguments.rounds)
    unit = least["standard training"]
    rows = []
    for name, passes in counted.items():
        step, limit = least[name], least[f"{name}, limit"]
        row = {"method": name, "forward": passes.forward(), "backward": passes.backward()}
        rows.append({**row, "limit": limit / unit, "step": step / unit, "step / limit": step / limit})
    show("A training step, in steps of standard training", rows)
    show("TRADES", [{"clean logits": "once / in every step of the attack", "ratio": least["hoisted"] / least["naive"]}])


if __name__ == "__main__":
    main()

"""What a training step with each regulariser costs, against standard training.

    python benchmarks/regularizers.py

The model is 2C2F on 28 × 28 images, the batch 50 (that of RAR), one thread. All take turns in rounds; time is that of
the processor, and the least of the rounds. A second table has the integrated gradients of RAR: few Gauss points in one
batch, against the published mean over 50 points (10 in the search), written as a loop over the points.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from defenses import CONF, Step, least_seconds, sgd
from hydra import compose, initialize_config_dir
from tables import show
from torch import Tensor, nn

from xrobust.config.build import build, build_all, plain
from xrobust.config.schema import register
from xrobust.data.mnist5k import MNIST5k
from xrobust.defenses.regularization import Regularization
from xrobust.regularizers import IGNorm
from xrobust.schedules import Constant
from xrobust.threat import ThreatModel

BATCH, EPS = 50, 0.3
THREAT = ThreatModel("linf", "0.3")


def network(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return build(config["model"], "model")


def regularized_step(config: dict[str, Any], regularizers: dict[str, Any], x: Tensor, y: Tensor) -> Step:
    """A step of CE on clean images and the regularisers, without the comparison of gradients of an epoch's first."""
    descent: dict[str, Any] = {"optimizer": sgd, "schedule": Constant()}
    defense = build(config["defense"], "defense", model=network(config), seed=0, **descent).train()
    defense.regularization = Regularization(defense, regularizers)
    optimizer = sgd(defense.model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        defense.training_step((x, y), 0).backward()
        optimizer.step()

    step()
    return step


def naive_ig(model: nn.Module, x: Tensor, other: Tensor, y: Tensor, points: int) -> Tensor:
    """‖IG^ℓ(x → x')‖₁ by the mean over the right ends of equal intervals, one pass for each."""
    total = torch.zeros_like(x)
    for k in range(1, points + 1):
        point = x + k / points * (other - x)
        if not point.requires_grad:
            point.requires_grad_()
        loss = F.cross_entropy(model(point), y, reduction="sum")
        total = total + torch.autograd.grad(loss, point, create_graph=True)[0]
    return ((other - x) * total / points).flatten(1).abs().sum(1)


def naive_step(config: dict[str, Any], x: Tensor, y: Tensor, steps: int) -> Step:
    """CE + IG-NORM as one writes it down: 10 points in the search, 50 in the penalty."""
    model = network(config)
    optimizer = sgd(model.parameters())

    def step() -> None:
        other = THREAT.random_start(x, torch.Generator().manual_seed(0))
        model.requires_grad_(False)
        for _ in range(steps):
            other = other.detach().requires_grad_()
            (slope,) = torch.autograd.grad(naive_ig(model, x, other, y, 10).sum(), other)
            other = THREAT.project(other.detach() + 2.5 * EPS / steps * slope.sign(), x)
        model.requires_grad_(True)
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + naive_ig(model, x, other.detach(), y, 50).mean()).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names in conf/regularizers; all of them if none is given")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    register()
    arrays = MNIST5k(num_classes=10, channels=1, image_size=28).load()
    x, y = arrays.x_train[:BATCH].float() / 255, arrays.y_train[:BATCH]
    every = sorted(file.stem for file in (CONF / "regularizers").glob("*.yaml"))
    names = every if arguments.only is None else arguments.only
    teacher = {"gradient_to_teacher": ["regularizers.gradient_to_teacher.target.model.path=none"]}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"regularizers=[{','.join(names)}]", *(o for name in names for o in teacher.get(name, []))]
        given = ["run_dir=none", "hydra.run.dir=none", "defense=gradient_regularized", f"threat.eps={EPS}"]
        config = plain(compose("train", [*given, *overrides]))
    if "gradient_to_teacher" in names:  # an untrained network will do, where a run asks for a bundle
        config["regularizers"]["gradient_to_teacher"]["target"]["model"] = config["model"]
    built = build_all(config["regularizers"], "regularizers")
    steps = {"standard": regularized_step(config, {}, x, y)}
    steps |= {name: regularized_step(config, {name: regularizer}, x, y) for name, regularizer in built.items()}
    quick = IGNorm(threat=THREAT, steps=10)
    pair = {
        "few Gauss points": regularized_step(config, {"ig_norm": quick}, x, y),
        "fifty": naive_step(config, x, y, 10),
    }
    least = least_seconds({**steps, **pair}, arguments.rounds)
    unit = least["standard"]
    show("A training step, in steps of standard training", [{"regulariser": n, "step": least[n] / unit} for n in built])
    ratio = least["few Gauss points"] / least["fifty"]
    show("IG-NORM, 10 steps of search", [{"points": "6 and 3 / 50 and 10, one at a time", "ratio": ratio}])


if __name__ == "__main__":
    main()

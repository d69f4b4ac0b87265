"""What the commands on finished models share: where they find conf/, a device, a model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xrobust.config import cli, schema
from xrobust.errors import UserError, at_least, one_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from xrobust.threat import ThreatModel

CONF = Path(__file__).resolve().parents[1] / "conf"
STAGES = {"test": "test", "validation": "val"}  # the split → the first part of the log keys


def start(job: Callable[[Any], None], config_name: str) -> None:
    """Run the job of `conf/<config_name>.yaml` from the command line."""
    if not (CONF / f"{config_name}.yaml").is_file():
        print(f"error: {CONF} is missing: install xrobust from its repository with pip install -e .", file=sys.stderr)
        sys.exit(2)
    schema.register()
    cli.run(job, CONF, config_name)


def check_model_choice(config: dict[str, Any]) -> None:
    """Refuse a configuration that names no model, or two.

    Raises:
        UserError: saying what must be given.
    """
    if (config["bundle"] is None) == (config["model"] is None):
        raise UserError("exactly one must be given: bundle=<folder or checkpoint>, or model=<choice> weights=<file>")
    if config["bundle"] is not None and config["weights"] is not None:
        raise UserError(f"weights={config['weights']} go with model=…; a bundle has its own weights")


def check_image_choice(command: str, config: dict[str, Any]) -> None:
    """Refuse a `split` that is not there, and a `limit` below 1.

    Raises:
        UserError: naming the value, its place and what is allowed.
    """
    if config.get("limit") is not None:
        at_least(command, 1, limit=config["limit"])
    if config["split"] not in STAGES:
        raise one_of("split", config["split"], STAGES)


def chosen_images(config: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and positions of the split, or of `limit` of its images that are balanced over the classes."""
    import torch

    from xrobust.config.build import build
    from xrobust.data.split import balanced_choice

    datamodule = build(config["data"], "data")
    loader = datamodule.test_dataloader() if config["split"] == "test" else datamodule.val_dataloader()
    index = torch.arange(len(loader.labels))
    if config["limit"] is not None:
        index = balanced_choice(loader.labels, config["limit"], seed=0).sort().values  # whatever the attack's seed
    return loader.images[index], loader.labels[index], index


def chosen_model(config: dict[str, Any]) -> nn.Module:
    """The network of the bundle, or the model with its weights."""
    from xrobust.config.build import build
    from xrobust.export.bundle import load
    from xrobust.export.weights import load_weights

    if config["bundle"] is not None:
        return load(config["bundle"])
    pretrained = config["model"].get("pretrained") or config["model"].get("weights")
    if config["weights"] is None and not pretrained:
        raise UserError("weights=<file> must be given: the model would have random weights")
    model = build(config["model"], "model")
    if config["weights"] is not None:
        load_weights(model, config["weights"])
    return model


def chosen_device(name: str) -> torch.device:
    """The device of that name; for "auto", a GPU if there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device={name} cannot be used here ({reason}); allowed: auto, cpu, cuda, cuda:1, …") from error


def ball_name(threat: ThreatModel) -> str:
    """The threat model in the name of a folder: linf_8_255."""
    return f"{threat.norm}_{threat.written_eps.replace('/', '_')}"


def beside(config: dict[str, Any], kind: str, name: str) -> Path:
    """`output`, or <kind>/<name> beside the bundle or the weights."""
    if config["output"] is not None:
        return Path(config["output"])
    source = config["bundle"] or config["weights"]
    place = Path(source).resolve() if source else Path.cwd() / "pretrained"
    of = [] if place.is_dir() else [place.stem]
    return place.parent / kind / "_".join([*of, name])

"""What the commands on finished models share: where they find conf/, a device, a model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xrobust.config import cli, schema
from xrobust.errors import UserError, at_least, one_of
from xrobust.files import why_not_writable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from xrobust.threat import ThreatModel

CONF = Path(__file__).resolve().parents[1] / "conf"
DATA = "xrobust.data."  # what the description of a model may name as its data
STAGES = {"test": "test", "validation": "val"}  # the split → the first part of the log keys


def start(job: Callable[[Any], None], config_name: str) -> None:
    """Run the job of `conf/<config_name>.yaml` from the command line."""
    if not (CONF / f"{config_name}.yaml").is_file():
        print(f"error: {CONF} is missing: install xrobust from its repository with pip install -e .", file=sys.stderr)
        sys.exit(2)
    schema.register()

    def with_one_model(cfg: Any) -> None:
        if "bundle" in cfg:
            check_model_choice(cfg)  # before values are taken from it
        job(cfg)

    cli.run(with_one_model, CONF, config_name)


def check_model_choice(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that names no model, or two.

    Raises:
        UserError: saying what must be given.
    """
    if (config["bundle"] is None) == (config["model"] is None):
        raise UserError("exactly one must be given: bundle=<folder or checkpoint>, or model=<choice> weights=<file>")
    if config["bundle"] is not None and config["weights"] is not None:
        raise UserError(f"weights={config['weights']} go with model=…; a bundle has its own weights")
    if config["bundle"] is None and config["data"] is None:
        raise UserError("data=… must be given: only a bundle says what it was trained on")


def check_output(config: dict[str, Any]) -> None:
    """Refuse an `output` that cannot be a folder, and a place where nothing can be written.

    Raises:
        UserError: naming the file that is in its place, or the folder and the reason.
    """
    if config["output"] is not None:
        output = Path(config["output"])
    elif "bundle" in config and measured(config).exists():
        output = measured(config).parent
    else:
        return
    there = next(place for place in (output, *output.absolute().parents) if place.exists())
    if not there.is_dir():
        what = "is a file" if there == output else f"lies below {there}, which is a file"
        raise UserError(f"output={output} {what}, it must be a folder")
    reason = why_not_writable(there)
    if reason is not None:
        raise UserError(f"nothing can be written to {there} ({reason}): output=<folder> chooses another place")


def bundle_folder(config: Mapping[str, Any]) -> Path | None:
    """The folder of the bundle; none for a checkpoint and for other models."""
    folder = None if config["bundle"] is None else Path(config["bundle"])
    return folder if folder is not None and folder.is_dir() else None


def bundle_to_update(config: dict[str, Any], folder: Path) -> Path | None:
    """The folder of the bundle, which keeps what is measured of it; none for other models, or if it is read-only.

    Args:
        config: with `bundle`.
        folder: where the results are anyway, for the warning.
    """
    bundle = bundle_folder(config)
    reason = None if bundle is None else why_not_writable(bundle)
    if reason is not None:
        warnings.warn(f"bundle={config['bundle']} stays as it is ({reason}): the results are in {folder}", stacklevel=2)
        return None
    return bundle


def check_image_choice(command: str, config: dict[str, Any]) -> None:
    """Refuse a `split` that is not there, and a `limit` below 1.

    Raises:
        UserError: naming the value, its place and what is allowed.
    """
    if config.get("limit") is not None:
        at_least(command, 1, limit=config["limit"])
    if config["split"] not in STAGES:
        raise one_of("split", config["split"], STAGES)


class Images(NamedTuple):
    """Images to measure on.

    Attributes:
        x, y, positions: images, labels, and where they are in their split.
        data: the data set, and the first digits of the SHA-256 of the whole split.
    """

    x: Tensor
    y: Tensor
    positions: Tensor
    data: str


def chosen_data(config: dict[str, Any]) -> dict[str, Any]:
    """The node of the data that was chosen, or that of the bundle's training.

    Raises:
        UserError: if there is neither.
    """
    from xrobust.export.loading import load_described, read_config

    bundle = config["bundle"]
    if config["data"] is not None:
        return config["data"]
    description = load_described(bundle)[1] if bundle_folder(config) is None else read_config(bundle)
    return recorded_data(description, f"bundle={bundle}")


def recorded_data(description: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The node of the data that a model was trained on, as its description says.

    Raises:
        UserError: if it does not say, or names anything but data sets: a description may come from anywhere.
    """
    from xrobust.config.check import targets_below

    data = description["training"].get("data")
    if data is None:
        raise UserError(f"data=… must be given: {source} does not say which images the model is for")
    for _, node in targets_below(data, "data"):
        target = str(node["_target_"])
        if not target.startswith(DATA):
            raise UserError(f"{source} names {target} as its data, allowed is {DATA}*; data=… chooses others")
    return data


def require_images(name: str, limit: int | None, there: int) -> None:
    """Refuse a limit above the number of images there are.

    Raises:
        UserError: naming both.
    """
    if limit is not None and limit > there:
        raise UserError(f"{name}={limit} are more images than there are: {there}")


def chosen_rows(labels: Tensor, name: str, limit: int | None) -> Tensor:
    """The positions of all images with these labels, or of `limit` of them that are balanced over the classes.

    Raises:
        UserError: naming how many there are, if they are fewer.
    """
    import torch

    from xrobust.data.split import balanced_choice

    if limit is None:
        return torch.arange(len(labels))
    require_images(name, limit, len(labels))
    return balanced_choice(labels, limit, seed=0)  # whatever the attack's seed


def chosen_images(config: dict[str, Any]) -> Images:
    """The split, or `limit` of its images that are balanced over the classes."""
    from xrobust.config.build import build

    datamodule = build(chosen_data(config), "data")
    loader = datamodule.test_dataloader() if config["split"] == "test" else datamodule.val_dataloader()
    index = chosen_rows(loader.labels, "limit", config["limit"]).sort().values
    return Images(loader.images[index], loader.labels[index], index, datamodule.identity(config["split"]))


def chosen_model(config: dict[str, Any]) -> nn.Module:
    """The network of the bundle, or the model with its weights."""
    from xrobust.config.build import build
    from xrobust.export.loading import load
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


def measured(config: Mapping[str, Any]) -> Path:
    """Where the model is that is measured; for weights that a library brings, a name in the working directory."""
    source = config["bundle"] or config["weights"]
    return Path(source).resolve() if source else Path.cwd() / "pretrained"


def beside(config: dict[str, Any], kind: str, name: str) -> Path:
    """`output`, or <kind>/<name> beside the bundle or the weights."""
    if config["output"] is not None:
        return Path(config["output"])
    place = measured(config)
    of = [] if place.is_dir() else [place.stem]
    return place.parent / kind / "_".join([*of, name])

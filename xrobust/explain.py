"""Measure how good the explanations of a trained model are.

python -m xrobust.explain bundle=runs/2026-01-31_12-00-00/bundle 'attribution=[gradient,smooth_grad]'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xrobust.command import (
    ball_name,
    beside,
    bundle_folder,
    bundle_to_update,
    check_image_choice,
    check_output,
    chosen_data,
    chosen_device,
    chosen_model,
    start,
)
from xrobust.errors import UserError, at_least, require_some

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from xrobust.data.base import ImageDataModule
    from xrobust.metrics import Probe

CONFIG_NAME = "explain"


def explain(cfg: Any) -> None:
    """Check, load, measure, report: the job of a composed configuration."""
    # Heavy imports come here, so that `--cfg job` and `--help` answer at once.
    from xrobust.attacks.attribution import require_attack_on_maps
    from xrobust.config.build import build, build_all, plain, save_yaml
    from xrobust.config.check import check_run
    from xrobust.explanation import answer, check_attributions, check_plan
    from xrobust.explanation.output import write_outputs
    from xrobust.export.bundle import add_explanation_card
    from xrobust.export.loading import read_config
    from xrobust.report.explanations import print_explanations
    from xrobust.report.progress import busy

    config = plain(cfg)
    check_run(config)
    check_values(config)
    for part in ("threat", "attack"):
        build(config[part], part)
    require_attack_on_maps(build(config["map_attack"], "map_attack"), "map_attack")
    attributions = build_all(config["attribution"], "attribution")
    metrics = build_all(config["metrics"], "metrics")
    device = chosen_device(config["device"])
    model = chosen_model(config).to(device).eval()
    datamodule = build(chosen_data(config), "data")
    probes = chosen_probes(config, datamodule, model, device)
    check_plan(attributions, metrics, probes[0])
    check_attributions(attributions, model, probes[0].x, probes[0].y)
    described = bundle_folder(config)
    results = [] if described is None else read_config(described).get("results", [])
    with busy("measuring explanations") as status:
        measurements, card = answer(
            probes,
            attributions,
            metrics,
            split=config["split"],
            data=datamodule.identity(config["split"]),
            results=results,
            with_references=config["references"],
            watch=status.update,
        )
    folder = beside(config, "explanations", ball_name(probes[0].threat))
    folder.mkdir(parents=True, exist_ok=True)
    save_yaml(config, folder / "config.yaml")
    write_outputs(folder, probes, attributions, measurements, card, config["panel_images"])
    bundle = bundle_to_update(config, folder)
    if bundle is not None:
        add_explanation_card(bundle, card)
    print_explanations(card, folder)


def check_values(config: dict[str, Any]) -> None:
    """Refuse what the schema lets pass.

    Raises:
        UserError: naming the value, its place and what is allowed.
    """
    counts = ("images", "batch_size", "part_size")
    at_least("explain", 1, **{name: config[name] for name in counts})
    at_least("explain", 0, panel_images=config["panel_images"])
    require_some(attribution=config["attribution"], metrics=config["metrics"])
    check_image_choice(CONFIG_NAME, config)
    check_output(config)


def chosen_probes(
    config: dict[str, Any], datamodule: ImageDataModule, model: nn.Module, device: torch.device
) -> list[Probe]:
    """The images of the split in parts, each with its labels, masks and adversaries."""
    from xrobust.attributions import Gradient
    from xrobust.config.build import build
    from xrobust.evaluation import require_fit
    from xrobust.metrics import Probe

    attack, map_attack = build(config["attack"], "attack"), build(config["map_attack"], "map_attack")
    split, count = config["split"], config["images"]
    if config["correct_only"]:
        count = len(datamodule.test_dataloader().labels if split == "test" else datamodule.val_dataloader().labels)
    x, y, index = (part.to(device) for part in datamodule.probe_set(count, split=split))
    require_fit(model, x, y)
    mask = datamodule.probe_masks(count, split=split)
    if config["correct_only"]:
        right = right_among(model, x, y, config["images"], config["batch_size"])
        x, y, index, mask = x[right], y[right], index[right], None if mask is None else mask[right.cpu()]
    rows = [slice(start, start + config["part_size"]) for start in range(0, len(x), config["part_size"])]
    return [
        Probe(
            model=model,
            x=x[part],
            y=y[part],
            index=index[part],
            method=Gradient(batch_size=config["batch_size"]),
            threat=attack.threat,
            attack=attack,
            map_attack=map_attack,
            mask=None if mask is None else mask[part].to(device),
            pool=(x, y),
            seed=config["seed"],
            batch_size=config["batch_size"],
        )
        for part in rows
    ]


def right_among(model: nn.Module, x: Tensor, y: Tensor, count: int, batch_size: int) -> Tensor:
    """The positions of the first `count` images that the model gets right: (count,).

    Raises:
        UserError: if there are fewer.
    """
    import torch

    from xrobust.attacks.standing import fresh_predictions

    found: list[int] = []
    for first in range(0, len(x), batch_size):
        rows = slice(first, first + batch_size)
        found += (first + (fresh_predictions(model, x[rows]) == y[rows]).nonzero().flatten()).tolist()
        if len(found) >= count:
            return torch.tensor(found[:count], device=x.device)
    raise UserError(f"images={count} with correct_only=true, but the model gets only {len(found)} of {len(x)} right")


def main() -> None:
    """The command."""
    start(explain, CONFIG_NAME)


if __name__ == "__main__":
    main()

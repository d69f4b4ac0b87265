"""Measure by retraining whether a model's maps find the pixels that tell the classes apart.

python -m xrobust.diff_roar bundle=runs/2026-01-31_12-00-00/bundle data=block_mnist 'attribution=[gradient,random_map]'
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xrobust.command import (
    beside,
    check_output,
    chosen_data,
    chosen_device,
    chosen_model,
    chosen_rows,
    start,
)
from xrobust.errors import at_least, require_some

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_NAME = "diff_roar"


def diff_roar(cfg: Any) -> None:
    """Check, load, retrain, report: the job of a composed configuration."""
    # Heavy imports come here, so that `--cfg job` and `--help` answer at once.
    from xrobust.config.build import build, build_all, plain, save_yaml
    from xrobust.config.check import check_run
    from xrobust.evaluation import require_fit
    from xrobust.evaluation.images import unit
    from xrobust.explanation import check_attributions
    from xrobust.explanation.diff_roar import check_values
    from xrobust.explanation.diff_roar import diff_roar as scores_of
    from xrobust.files import replace_file
    from xrobust.report.diff_roar import draw_scores, print_scores, scores_csv
    from xrobust.report.panel import png
    from xrobust.report.progress import busy

    config = plain(cfg)
    check_run(config)
    check_output(config)
    check_values(config["shares"], config["seeds"], config["fill"])
    require_some(attribution=config["attribution"])
    at_least("diff_roar", 1, batch_size=config["batch_size"])
    for part in ("train_images", "test_images"):
        at_least("diff_roar", 1, **{part: 1 if config[part] is None else config[part]})
    attributions = build_all(config["attribution"], "attribution")
    retraining = build(config["retraining"], "retraining")
    data = chosen_data(config)
    datamodule = build(data, "data")
    device = chosen_device(config["device"])
    model = chosen_model(config).to(device).eval()

    def chosen(loader: Any, part: str) -> tuple[Tensor, Tensor]:
        rows = chosen_rows(loader.labels, part, config[part])
        return loader.images[rows].cpu(), loader.labels[rows].cpu()

    train = chosen(datamodule.train_dataloader(), "train_images")
    test = chosen(datamodule.test_dataloader(), "test_images")
    require_fit(model, *test)
    check_attributions(attributions, model, unit(test[0][:1]).to(device), test[1][:1].to(device))
    options = {name: config[name] for name in ("seeds", "fill", "batch_size")}
    with busy("retraining") as status:
        shares, watch = config["shares"], status.update
        found = list(scores_of(model, train, test, attributions, shares, retraining, watch=watch, **options))
    folder = beside(config, "diff_roar", str(data["_target_"]).rpartition(".")[2])
    folder.mkdir(parents=True, exist_ok=True)
    save_yaml(config, folder / "config.yaml")
    record = {"train_images": len(train[1]), "test_images": len(test[1]), "fill": config["fill"]}
    record |= {"retraining": config["retraining"], "scores": [score.as_dict() for score in found]}
    replace_file(folder / "diff_roar.json", json.dumps(record, indent=2) + "\n")
    replace_file(folder / "diff_roar.csv", scores_csv(found))
    replace_file(folder / "diff_roar.png", png(draw_scores(found)))
    print_scores(found, folder)


def main() -> None:
    """The command."""
    start(diff_roar, CONFIG_NAME)


if __name__ == "__main__":
    main()

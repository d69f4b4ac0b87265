"""Certify the smoothed version of a trained model: within which radius noise keeps its vote.

python -m xrobust.smooth bundle=runs/2026-01-31_12-00-00/bundle data=mnist sigma=0.5 n=10000 limit=500
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xrobust.command import (
    STAGES,
    beside,
    bundle_to_update,
    check_image_choice,
    check_output,
    chosen_device,
    chosen_images,
    chosen_model,
    start,
)
from xrobust.errors import UserError, at_least

if TYPE_CHECKING:
    from xrobust.smoothing import Procedure

CONFIG_NAME = "smooth"
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


def smooth(cfg: Any) -> None:
    """The job of a composed configuration: check, load, certify, report."""
    # Heavy imports come here, so that `--cfg job` and `--help` answer at once.
    from xrobust.config.build import plain, save_yaml
    from xrobust.config.check import check_run
    from xrobust.evaluation import require_fit, smoothing
    from xrobust.evaluation.output import NORMS
    from xrobust.export.bundle import add_results
    from xrobust.files import replace_file
    from xrobust.report.certification import CertificationProgress
    from xrobust.report.panel import png
    from xrobust.report.radii import draw_radii
    from xrobust.report.smoothing import print_smoothing

    config = plain(cfg)
    check_run(config)
    check_values(config)
    procedure = chosen_procedure(config)
    model = chosen_model(config).to(chosen_device(config["device"])).eval()
    x, y, index, data = chosen_images(config)
    require_fit(model, x, y)
    folder = beside(config, "smoothing", _name(config))
    options = {"index": index, "seed": config["seed"], "batch_size": config["save_every"], "folder": folder}

    with CertificationProgress(len(x)) as watch:
        smoothed = smoothing.certify(model, x, y, procedure, watch=watch, **options)
    stage = STAGES[config["split"]]
    radii = (RADII if config["radii"] is None else config["radii"]) if config["radius"] is None else [config["radius"]]
    protocol = stage, config["seed"], data
    results = [smoothing.certified_accuracy(smoothed, procedure, radius, *protocol) for radius in radii]
    summary = {
        "results": [result.as_dict() for result in results],
        **smoothing.smoothing_summary(smoothed, procedure),
    }
    if config["radius"] is None:
        summary["average_certified_radius"] = smoothing.average_certified_radius(smoothed)
        curve = draw_radii(smoothed.radius, smoothed.correct, str(procedure), f"radius ({NORMS[config['norm']]})")
        replace_file(folder / "curve.png", png(curve))
    save_yaml(config, folder / "config.yaml")
    replace_file(folder / "samples.csv", smoothing.samples_csv(smoothed))
    replace_file(folder / "cohen.tsv", smoothing.cohen_tsv(smoothed))
    replace_file(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    bundle = bundle_to_update(config, folder)
    if bundle is not None:
        add_results(bundle, results)
    print_smoothing(summary, folder)


def chosen_procedure(config: dict[str, Any]) -> Procedure:
    """CERTIFY, or its sequential version for the one radius that is asked for."""
    from xrobust.config.build import build
    from xrobust.smoothing import Certify, CertifyAt

    noise = build(config["noise"], "noise")
    options = {name: config[name] for name in ("norm", "n0", "n", "alpha", "batch_size")}
    if config["radius"] is None:
        return Certify(noise=noise, **options)
    return CertifyAt(noise=noise, at=config["radius"], **options)


def check_values(config: dict[str, Any]) -> None:
    """Refuse what the schema lets pass.

    Raises:
        UserError: naming the value, its place and what is allowed.
    """
    at_least("smooth", 1, save_every=config["save_every"])
    if config["radius"] is not None and config["radii"] is not None:
        radius, radii = config["radius"], config["radii"]
        raise UserError(f"radius={radius:g} asks for one radius, so radii={radii} cannot be given, too")
    for radius in config["radii"] or ():
        at_least("smooth", 0.0, radii=radius)
    check_image_choice(CONFIG_NAME, config)
    check_output(config)


def _name(config: dict[str, Any]) -> str:
    at = "" if config["radius"] is None else f"_at_{config['radius']:g}"
    return f"{config['noise_name']}_{config['sigma']:g}_{config['norm']}_n{config['n']}{at}"


def main() -> None:
    """The command."""
    start(smooth, CONFIG_NAME)


if __name__ == "__main__":
    main()

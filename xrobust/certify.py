"""Certify a trained model: which images no perturbation within the threat model can make wrong.

python -m xrobust.certify bundle=runs/2026-01-31_12-00-00/bundle threat=linf_0_1 certifier=cascade
"""

from __future__ import annotations

import json
from typing import Any

from xrobust.command import (
    STAGES,
    ball_name,
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

CONFIG_NAME = "certify"


def certify(cfg: Any) -> None:
    """The job of a composed configuration: check, load, attack, certify, compare, report."""
    # Heavy imports come here, so that `--cfg job` and `--help` answer at once.
    from xrobust import evaluation as room
    from xrobust.config.build import build, plain, save_yaml
    from xrobust.config.check import check_run
    from xrobust.evaluation import certification
    from xrobust.evaluation.radii import certified_radii, radii_csv, radii_summary
    from xrobust.evaluation.results import accuracies
    from xrobust.export.bundle import add_results
    from xrobust.files import replace_file
    from xrobust.report.certification import CertificationProgress, print_certification
    from xrobust.report.panel import png
    from xrobust.report.progress import EvaluationProgress
    from xrobust.report.radii import draw_radii

    config = plain(cfg)
    check_run(config)
    check_values(config)
    build(config["threat"], "threat")
    certifier, ladder = build(config["certifier"], "certifier"), room.Ladder(build(config["attack"], "attack"))
    if ladder.threat != certifier.threat:
        raise UserError(
            f"attack.threat is {ladder.threat}, but the certifier is for {certifier.threat}: nothing to check"
        )
    model = chosen_model(config).to(chosen_device(config["device"])).eval()
    x, y, index, data = chosen_images(config)
    threat = certifier.threat
    folder = beside(config, "certification", f"{config['certifier_name']}_{ball_name(threat)}")
    options = {"index": index, "seed": config["seed"], "batch_size": config["batch_size"]}
    room.require_fit(model, x, y)
    certification.require_support(model, x, certifier)

    with EvaluationProgress(len(x) * len(ladder.members)) as progress:
        evaluation = room.evaluate(model, x, y, [ladder], watch=progress, folder=folder / "attack", **options)
    with CertificationProgress(len(x)) as watch:
        verdicts = certification.certify(model, x, y, certifier, watch=watch, folder=folder, **options)
    stage = STAGES[config["split"]]
    certification.require_order(verdicts, evaluation)
    certified = certification.certified_accuracy(verdicts, certifier, stage, config["seed"], data)
    results = [*accuracies(evaluation, stage, data), certified]
    summary = {
        "results": [result.as_dict() for result in results],
        **certification.verdict_summary(verdicts, certifier),
    }
    radii = certified_radii(verdicts)
    if radii is not None:
        summary["radii"] = radii_summary(radii, threat.radius)
        replace_file(folder / "radii.csv", radii_csv(radii))
        figure = draw_radii(radii, radii > 0, str(certifier), f"radius ({threat.norm})")
        replace_file(folder / "radii.png", png(figure))
    save_yaml(config, folder / "config.yaml")
    replace_file(folder / "samples.csv", certification.verdicts_csv(verdicts, certifier, evaluation))
    replace_file(folder / "counter_examples.npz", certification.counter_examples(verdicts))
    replace_file(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    bundle = bundle_to_update(config, folder)
    if bundle is not None:
        add_results(bundle, [certified])
    print_certification(summary, folder)


def check_values(config: dict[str, Any]) -> None:
    """Refuse what the schema lets pass.

    Raises:
        UserError: naming the value, its place and what is allowed.
    """
    at_least("certify", 1, batch_size=config["batch_size"])
    check_image_choice(CONFIG_NAME, config)
    check_output(config)


def main() -> None:
    """The command."""
    start(certify, CONFIG_NAME)


if __name__ == "__main__":
    main()

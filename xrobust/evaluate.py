"""Evaluate a trained model so that the numbers can be believed.

python -m xrobust.evaluate bundle=runs/2026-01-31_12-00-00/bundle threat=linf_0_2 attack=autoattack_standard
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xrobust.command import (
    CONF,
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
from xrobust.errors import UserError, at_least, within

if TYPE_CHECKING:
    from xrobust.threat import ThreatModel

CONFIG_NAME = "evaluate"


def evaluate(cfg: Any) -> None:
    """The job of a composed configuration."""
    from xrobust.config.threats import for_each_threat

    configs = for_each_threat(cfg, CONF, CONFIG_NAME)
    run_evaluation(checked(configs))


def checked(configs: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The same configurations, after a search for all mistakes that can be found before the model is loaded.

    Raises:
        UserError: naming the value, its place and what is allowed.
    """
    from xrobust.config.build import build, build_all
    from xrobust.config.check import check_run
    from xrobust.evaluation import Ladder
    from xrobust.export.loading import load_described

    for config in configs:
        check_run(config)
        check_values(config)
        build(config["threat"], "threat")
        ladder = Ladder(build(config["attack"], "attack"), config["eps"] or ())
        with within("eps"):
            _ = ladder.rungs  # reads the radii
        build(config["white_box"], "white_box")
        build_all(config["check"], "check")
        if config["surrogate"] is not None:
            with within("surrogate"):
                load_described(config["surrogate"])
    return configs


def run_evaluation(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Load, attack, look for gradient masking, report; returns the summary.

    Args:
        configs: checked; they differ in their threat models alone.
    """
    # Heavy imports come here, so that `--cfg job` and `--help` answer at once.
    from xrobust import evaluation as room
    from xrobust.config.build import build, build_all, save_yaml
    from xrobust.evaluation.masking import check_evaluation
    from xrobust.evaluation.output import write_outputs
    from xrobust.export.bundle import add_results
    from xrobust.export.loading import load
    from xrobust.report.evaluation import print_evaluation
    from xrobust.report.progress import EvaluationProgress, busy

    config = configs[0]
    ladders = [room.Ladder(build(each["attack"], "attack"), config["eps"] or ()) for each in configs]
    white_boxes = [build(each["white_box"], "white_box") for each in configs]
    checks = build_all(config["check"], "check")
    device = chosen_device(config["device"])
    model = chosen_model(config).to(device).eval()
    surrogate = None if config["surrogate"] is None else load(config["surrogate"], device)
    x, y, index, data = chosen_images(config)
    if surrogate is not None:
        with within("surrogate"):
            room.require_fit(surrogate, x, y)
    folder = chosen_folder(config, [ladder.threat for ladder in ladders])
    options = {"index": index, "seed": config["seed"], "batch_size": config["batch_size"], "folder": folder}

    with EvaluationProgress(len(x) * sum(len(ladder.rungs) * len(ladder.members) for ladder in ladders)) as progress:
        evaluation = room.evaluate(model, x, y, ladders, watch=progress, **options)
    subset = {"count": config["check_images"], "surrogate": surrogate}
    with busy("looking for gradient masking"):
        findings = check_evaluation(evaluation, model, x, y, white_boxes, checks, **subset)
    stage = STAGES[config["split"]]
    save_yaml(config, folder / "config.yaml")
    summary = write_outputs(folder, evaluation, findings, stage, str(device), data)
    bundle = bundle_to_update(config, folder)
    if bundle is not None:
        add_results(bundle, room.accuracies(evaluation, stage, data), summary["warnings"])
    print_evaluation(summary, folder)
    return summary


def check_values(config: dict[str, Any]) -> None:
    """Refuse what the schema lets pass.

    Raises:
        UserError: naming the value, its place and what is allowed.
    """
    at_least("evaluate", 1, batch_size=config["batch_size"], check_images=config["check_images"])
    check_image_choice(CONFIG_NAME, config)
    if config["threats"] is not None and len(config["threats"]) > 1 and config["eps"] is not None:
        raise UserError(f"eps={config['eps']} goes with one threat model, but threats={config['threats']} are several")
    check_output(config)


def chosen_folder(config: dict[str, Any], threats: Sequence[ThreatModel]) -> Path:
    """`output`, or evaluation/<attack>_<threat models> beside what is evaluated."""
    return beside(config, "evaluation", "_".join([config["attack_name"], *map(ball_name, threats)]))


def main() -> None:
    """The command."""
    start(evaluate, CONFIG_NAME)


if __name__ == "__main__":
    main()

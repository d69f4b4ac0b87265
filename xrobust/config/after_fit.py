"""The evaluation that follows a training run: the evaluation's configuration, with the run's data, ball and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from xrobust.config.build import plain
from xrobust.config.cli import explain
from xrobust.errors import UserError

CONFIG_NAME = "evaluate"


def after_fit(cfg: DictConfig, conf: Path) -> list[dict[str, Any]]:
    """What `evaluate.after_fit=true` asks for: one plain configuration for each threat model, or none at all.

    Raises:
        UserError: if `evaluate.attack` or `evaluate.threats` names a choice that there is not.
    """
    if not cfg.evaluate.after_fit:
        return []
    if cfg.evaluate.threats is not None and not cfg.evaluate.threats:
        raise UserError("evaluate.threats=[] must name at least one choice of threat")
    return [_evaluation(cfg, conf, threat) for threat in cfg.evaluate.threats or [None]]


def _evaluation(cfg: DictConfig, conf: Path, threat: str | None) -> dict[str, Any]:
    options = dict(cfg.evaluate)
    attack = options.pop("attack")
    choices = [f"attack={attack}", *([] if threat is None else [f"threat={threat}"])]
    try:
        composed = compose(CONFIG_NAME, choices)
    except HydraException as error:
        raise UserError(f"evaluate.{explain(error, conf, CONFIG_NAME)}") from error
    del options["after_fit"]
    with open_dict(composed):
        composed.update(
            **options,
            attack_name=attack,
            bundle=str(Path(cfg.run_dir) / "bundle"),
            data=_resolved(cfg.data),
            seed=cfg.seed,
        )
        if threat is None:
            composed.threat = _resolved(cfg.threat)
    return plain(composed)


def _resolved(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True)

"""One command line, composed once for each of several threat models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from xrobust.config.build import plain
from xrobust.config.cli import explain
from xrobust.errors import UserError


def for_each_threat(cfg: DictConfig, conf: Path, config_name: str) -> list[dict[str, Any]]:
    """The plain configuration, or one for each name in `threats`, as if that were the choice of `threat`.

    Raises:
        UserError: if both `threats` and `threat` are given, or there is no such choice.
    """
    if cfg.threats is None:
        return [plain(cfg)]
    overrides = list(HydraConfig.get().overrides.task)
    also = [override for override in overrides if override.lstrip("+~").startswith(("threat=", "threat."))]
    if also:
        raise UserError(f"threats={list(cfg.threats)} takes the place of threat, so {also[0]} cannot be given, too")
    if not cfg.threats:
        raise UserError("threats=[] must name at least one choice of threat")
    try:
        return [plain(compose(config_name, [*overrides, f"threat={name}"])) for name in cfg.threats]
    except HydraException as error:
        raise UserError(explain(error, conf, config_name)) from error

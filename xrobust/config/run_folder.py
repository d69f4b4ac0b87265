"""The folder of a run: opened once, gone on with when a run is resumed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from hydra.core.hydra_config import HydraConfig

from xrobust.config.build import load_yaml, save_yaml
from xrobust.errors import UserError

LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
MAY_DIFFER = ("resume", "debug", "run_dir", "logger", "evaluate")


def open_run_folder(config: dict[str, Any]) -> Path | None:
    """Make the run folder with its config.yaml, or check the one to resume. A Slurm job that was requeued resumes.

    Returns:
        The checkpoint to go on from, if there is one.

    Raises:
        UserError: as `resumed_checkpoint`.
    """
    if _goes_on(config):
        return resumed_checkpoint(config)
    folder = Path(config["run_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    save_yaml(config, folder / "config.yaml")
    return None


def _goes_on(config: dict[str, Any]) -> bool:
    requeued = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
    return config["resume"] is not None or (requeued and (Path(config["run_dir"]) / "config.yaml").is_file())


def resumed_checkpoint(config: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from, if a run is resumed and has one; makes nothing.

    Raises:
        UserError: if the folder to resume is no run folder, its configuration is another one, or a file is damaged.
    """
    if not _goes_on(config):
        return None
    folder = Path(config["resume"] or config["run_dir"])
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"resume={folder} is not a run folder: it has no config.yaml")
    if folder.resolve() != Path(config["run_dir"]).resolve():
        raise UserError(
            f"resume={folder} goes on in its own folder, not in {config['run_dir']}: without hydra.run.dir, -m"
        )
    changed = sorted(_differences(load_yaml(file), config))
    if changed:
        raise UserError(f"resume={folder} was started with another configuration; these differ: {', '.join(changed)}")
    checkpoint = folder / LAST_CHECKPOINT
    if not checkpoint.is_file():
        return None
    if not is_zipfile(checkpoint):  # as torch writes it; the directory of the archive is at its end
        raise UserError(
            f"resume={folder}: {checkpoint} is damaged, so the run cannot go on; without it, it begins anew"
        )
    return checkpoint


def run_title(config: dict[str, Any]) -> str:
    """What the run is, in a line: "trades + grad_align · linf ε=0.2 · mnist5k · small_cnn"."""
    choice = HydraConfig.get().runtime.choices
    threat = f"{config['threat']['norm']} ε={config['threat']['eps']}"
    method = " + ".join([choice["defense"], *config["regularizers"]])
    return " · ".join([method, threat, choice["data"], choice["model"]])


def _differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            if place or key not in MAY_DIFFER:
                yield from _differences(before.get(key), now.get(key), f"{place}.{key}".lstrip("."))
    elif before != now and not _same_place(before, now, place):
        yield place


def _same_place(before: Any, now: Any, place: str) -> bool:
    """Paths below the run folder may be spelled differently, relative to another working directory."""
    return place.split(".")[-1] in ("folder", "dirpath", "save_dir")

"""The top-level keys of each command's configuration; anything else is refused when the configuration is composed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import MISSING, OmegaConf

from xrobust.errors import UserError


@dataclass
class AfterFit:
    """Whether and how `train.py` evaluates the best checkpoint; the keys are those of `EvaluateConfig`."""

    after_fit: bool = False
    attack: str = "autoattack_standard"
    threats: list[str] | None = None
    eps: list[Any] | None = None
    limit: int | None = None
    surrogate: str | None = None
    check_images: int = 200
    batch_size: int = 500


@dataclass
class TrainConfig:
    """What `train.py` reads; one field a Hydra group or a plain switch."""

    threat: Any = MISSING
    data: Any = MISSING
    model: Any = MISSING
    train_attack: Any = MISSING
    val_attack: Any = MISSING
    test_attack: Any = MISSING
    defense: Any = MISSING
    regularizers: dict[str, Any] = field(default_factory=dict)
    optim: Any = MISSING
    map_attack: Any = MISSING
    certifier: Any = MISSING
    attribution: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    card_metrics: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    trainer: Any = MISSING
    evaluate: AfterFit = field(default_factory=AfterFit)

    seed: int = 0
    channels_last: bool = True
    resume: str | None = None
    debug: bool = False
    run_dir: str | None = MISSING


@dataclass
class _Command:
    """What the commands that take a finished model share."""

    data: Any = None
    model: Any = None
    bundle: str | None = None
    weights: str | None = None
    device: str = "auto"
    output: str | None = None
    debug: bool = False


@dataclass
class EvaluateConfig(_Command):
    """What `python -m xrobust.evaluate` reads; one field a Hydra group or a plain switch."""

    threat: Any = MISSING
    attack: Any = MISSING
    white_box: Any = MISSING
    check: dict[str, Any] = field(default_factory=dict)

    surrogate: str | None = None
    split: str = "test"
    limit: int | None = None
    threats: list[str] | None = None
    eps: list[Any] | None = None
    check_images: int = 200
    batch_size: int = 500
    seed: int = 0
    attack_name: str = MISSING


@dataclass
class CertifyConfig(_Command):
    """What `python -m xrobust.certify` reads; one field a Hydra group or a plain switch."""

    threat: Any = MISSING
    certifier: Any = MISSING
    attack: Any = MISSING

    split: str = "test"
    limit: int | None = None
    batch_size: int = 50
    seed: int = 0
    certifier_name: str = MISSING


@dataclass
class SmoothConfig(_Command):
    """What `python -m xrobust.smooth` reads; one field a Hydra group or a plain switch."""

    noise: Any = MISSING

    split: str = "test"
    limit: int | None = None
    sigma: float = 0.5
    norm: str = "l2"
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    radius: float | None = None
    radii: list[float] | None = None
    batch_size: int = 1000
    save_every: int = 10
    seed: int = 0
    noise_name: str = MISSING


@dataclass
class ExplainConfig(_Command):
    """What `python -m xrobust.explain` reads; one field a Hydra group or a plain switch."""

    threat: Any = MISSING
    attack: Any = MISSING
    map_attack: Any = MISSING
    attribution: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    split: str = "test"
    images: int = 128
    correct_only: bool = False
    references: bool = True
    panel_images: int = 8
    batch_size: int = 256
    part_size: int = 128
    seed: int = 0


@dataclass
class DiffRoarConfig(_Command):
    """What `python -m xrobust.diff_roar` reads; one field a Hydra group or a plain switch."""

    attribution: dict[str, Any] = field(default_factory=dict)
    retraining: Any = MISSING

    shares: list[float] = field(default_factory=list)
    seeds: int = 2
    fill: float = 0.0
    train_images: int | None = None
    test_images: int | None = None
    batch_size: int = 256


@dataclass
class CompareConfig:
    """What `python -m xrobust.compare` reads."""

    runs: Any = MISSING
    group: Any = "defense"
    output: str | None = None
    panel_images: int = 4
    bootstrap: int = 2000
    seed: int = 0
    debug: bool = False


@dataclass
class ExportConfig:
    """What `python -m xrobust.export` reads; one field a Hydra group or a plain switch."""

    run: str = MISSING
    data: Any = None
    formats: dict[str, Any] = field(default_factory=dict)
    check_images: int = 64
    output: str | None = None
    debug: bool = False


def register() -> None:
    """Make the schema and the resolvers available to the files in conf/."""
    ConfigStore.instance().store(name="train_schema", node=TrainConfig)
    ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)
    ConfigStore.instance().store(name="certify_schema", node=CertifyConfig)
    ConfigStore.instance().store(name="smooth_schema", node=SmoothConfig)
    ConfigStore.instance().store(name="explain_schema", node=ExplainConfig)
    ConfigStore.instance().store(name="diff_roar_schema", node=DiffRoarConfig)
    ConfigStore.instance().store(name="compare_schema", node=CompareConfig)
    ConfigStore.instance().store(name="export_schema", node=ExportConfig)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("multirun", _multirun, replace=True)


def _run_folder(resume: str | None) -> str:
    """A new folder, unless a run is resumed.

    Raises:
        UserError: in one of several processes that something else started: each would have a folder of its own; or if
            the run to resume is a file.
    """
    if resume is not None and Path(resume).is_file():
        raise UserError(f"resume={resume} is a file, it must be a run folder")
    count = "WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_NTASKS"
    if resume is None and int(os.environ.get(count, 1)) > 1:
        raise UserError("with torchrun or srun the processes need one folder: give hydra.run.dir=runs/<a new name>")
    return resume or datetime.now().strftime("runs/%Y-%m-%d_%H-%M-%S")


def _multirun() -> str | None:
    """The name of the multirun's folder; none in a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name

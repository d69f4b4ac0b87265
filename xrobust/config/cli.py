"""The frame around a command: a user's mistake ends in one sentence, not in a traceback."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir, main
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xrobust.config.check import did_you_mean, parameters_of, resolve_target
from xrobust.config.offers import help_text, owner_of, refuse_values
from xrobust.errors import UserError

JOB = "XROBUST_JOB"  # in the environment of a process that helps with a job of a multirun: the overrides of this job


def run(job: Callable[[DictConfig], Any], conf: Path, config_name: str) -> None:
    """Compose the configuration from the command line and run the job, or the jobs of a multirun.

    A mistake of the user's is printed in one sentence and exits with status 2; with `debug=true` among the arguments
    its traceback is shown. A process that Lightning starts for a job of a multirun runs this job alone.
    """
    if JOB in os.environ:
        sys.argv[1:] = json.loads(os.environ[JOB])
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(conf, config_name))
        return
    debug = "debug=true" in [argument.lower() for argument in sys.argv]
    if not debug:
        _quiet()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, and the sentence is ours

    begun = False

    def guarded(cfg: DictConfig) -> Any:
        nonlocal begun
        begun = True
        try:
            check_keys(cfg)
            with _own_environment():
                return job(cfg)
        except UserError as error:
            if debug:
                raise
            _remove_if_empty(Path(HydraConfig.get().runtime.output_dir))
            sys.exit(_say(str(error)))

    try:
        refuse_values(conf, sys.argv[1:])
        main(version_base="1.3", config_path=str(conf), config_name=config_name)(guarded)()
    except (HydraException, OmegaConfBaseException, UserError) as error:
        if debug:
            raise
        sys.exit(_say(explain(error, conf, config_name)))
    except OSError as error:
        if debug or begun:
            raise
        if isinstance(error, FileExistsError | NotADirectoryError):
            sys.exit(_say(f"{error.filename} is a file, so no folder of a run can be made there"))
        sys.exit(_say(f"no folder of a run can be made at {error.filename}: {error.strerror}"))


def check_keys(cfg: DictConfig, place: str = "") -> None:
    """Refuse keys that the schema does not have; on the command line, `+foo=3` adds such a key.

    Raises:
        UserError: naming the key, the nearest one and all.
    """
    schema = OmegaConf.get_type(cfg)
    assert schema is not None and is_dataclass(schema)
    known = [each.name for each in fields(schema)]
    for key in map(str, cfg):
        if key not in known:
            hint = did_you_mean(key, known)
            raise UserError(f"{place}{key} is not a key of this configuration{hint}; allowed: {', '.join(known)}")
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and is_dataclass(OmegaConf.get_type(node)):
            check_keys(node, f"{place}{key}.")
        elif isinstance(node, DictConfig) and "_target_" not in node:  # a group of which several can be chosen
            for name in map(str, node):
                below = node._get_node(name)
                left_out = below is None or below._is_none()
                if not left_out and not (isinstance(below, DictConfig) and "_target_" in below):
                    raise UserError(f"{key}.{name} is given, but not chosen: add it to {key}=[…], or ~{key}.{name}")


@contextmanager
def _own_environment() -> Iterator[None]:
    """What a job sets in the environment ends with it, as does what it tells the processes that it starts."""
    before = dict(os.environ)
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        os.environ[JOB] = json.dumps([*hydra.overrides.task, f"hydra.run.dir={hydra.runtime.output_dir}"])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _say(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


def _quiet() -> None:
    """Leave the terminal to progress, results and errors."""
    logging.disable(logging.INFO)
    # Lightning 2.6 calls what torch 2.14 deprecates, at every epoch.
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    # That of a run which goes on has to have them.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def explain(error: Exception, conf: Path, config_name: str) -> str:
    """One sentence for an error of composition: the value, its place, what is allowed."""
    text = str(error)
    if isinstance(error, UserError):
        return text
    ours = re.search(r"UserError raised while resolving interpolation: (.*)", text)
    if ours:
        return ours[1]
    choice = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if choice:
        group, _, name = choice[1].rpartition("/")
        if group.startswith("hydra/"):
            return f'{group}={name} comes with a plugin of Hydra: pip install -e ".[sweep]", or another plugin'
        options = sorted(file.stem for file in (conf / group).glob("*.yaml"))
        return f"{group}={name}: there is no such choice{did_you_mean(name, options)}; allowed: {', '.join(options)}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        owned = owner_of(conf, config_name, unknown[1])
        if _is_parameter(conf, config_name, unknown[1]):
            return f"{owned or f'{unknown[1]} is left to its default'}; +{unknown[1]}=… gives it a value"
        if owned is not None:
            return owned
        hint = did_you_mean(unknown[1], list(_dotted_keys(_compose_defaults(conf, config_name))))
        return f"{unknown[1]} is not a key of this configuration{hint} (--cfg job lists the keys)"
    foreign = re.search(r"In '([^']+)'.*Key '([^']+)' not in", text, re.DOTALL)
    if foreign:
        known = list(_compose_defaults(conf, config_name))
        hint = did_you_mean(foreign[2], known)
        return f"{foreign[2]} in conf/{foreign[1]}.yaml is not a top-level key{hint}; allowed: {', '.join(known)}"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        text = f"{text}: {str(error.__cause__).splitlines()[0]}"
    listed = re.search(r"override ((\S+)=(.*?)): .* is not a ListConfig", text)
    if listed:
        return f"{listed[1]} must be a list, as in {listed[2]}=[{listed[3]}]"
    return " ".join(line.strip() for line in text.splitlines() if "hydra.cc" not in line)


def _is_parameter(conf: Path, config_name: str, key: str) -> bool:
    """Whether a key that the chosen file does not have is a parameter of what it describes."""
    place, _, name = key.rpartition(".")
    others = [each for each in sys.argv[1:] if "=" in each and each.lstrip("+").partition("=")[0] != key]
    try:
        node = OmegaConf.select(_compose_defaults(conf, config_name, others), place) if place else None
        if not isinstance(node, DictConfig) or "_target_" not in node:
            return False
        return name in parameters_of(resolve_target(node["_target_"], place))[0]
    except (HydraException, OmegaConfBaseException, UserError):  # others are wrong as well
        return False


def _compose_defaults(conf: Path, config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose(config_name, list(overrides))


def _dotted_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted path of every key, without resolving anything."""
    if isinstance(node, DictConfig):
        for key in map(str, node):
            yield f"{prefix}{key}"
            child = None if OmegaConf.is_missing(node, key) else node._get_node(key)
            yield from _dotted_keys(child, f"{prefix}{key}.")

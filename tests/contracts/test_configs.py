"""Every file in conf/ composes and fits the signatures it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conf_walk import CONF, GIVEN, WITHOUT_METRICS, choices, composed
from hydra.errors import HydraException
from torch import nn

from xrobust.config import cli
from xrobust.config.build import build, build_all
from xrobust.config.check import check_run, resolve_target
from xrobust.config.values import check_values
from xrobust.errors import UserError
from xrobust.schedules import Constant

MOUNTS = {"attack": "attack@train_attack"}
LISTS = ("attribution", "metrics", "regularizers", "callbacks", "pieces", "logger", "check", "formats")
COMMANDS = {"check": "evaluate", "noise": "smooth", "formats": "export"}  # groups of other commands than train.py


def command_of(group: str, name: str) -> str:
    """The command that a choice is for; an experiment says so in its second line, if it is not train.py."""
    lines = (CONF / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    called = re.search(r"python -m xrobust\.(\w+) experiment=", lines[1])
    return called[1] if called else COMMANDS.get(group, "train")


TOGETHER = {"attribution", "metrics", "check"}  # all of them at once: composing is what takes time
EVERY_CHOICE = [
    (group, names)
    for group in sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
    for names in ([choices(group)] if group in TOGETHER else [[name] for name in choices(group)])
]


@pytest.mark.parametrize(
    ("group", "names"), EVERY_CHOICE, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_every_choice_composes_and_passes_the_signature_check(group: str, names: list[str]) -> None:
    for kind, plugin in re.findall(r"override /hydra/(\w+): (\w+)", (CONF / group / f"{names[0]}.yaml").read_text()):
        pytest.importorskip(f"hydra_plugins.hydra_{plugin}_{kind}")
    mount = MOUNTS.get(group, group)
    choice = f"{mount}=[{','.join(names)}]" if group in LISTS else f"{mount}={names[0]}"
    given = [override for name in names for override in GIVEN.get(f"{group}={name}", [])]
    overrides = [override.replace("test_attack", mount.partition("@")[2] or group) for override in given]
    command = command_of(group, names[0])
    if command == "train" and group not in ("metrics", "experiment"):
        overrides += WITHOUT_METRICS
    config = composed(choice, *overrides, command=command)
    check_run(config)
    check_values(config, "")
    if group == "experiment" and command == "train" and not given:  # what is given are files that are not there
        accepts_its_values(config)


def accepts_its_values(config: dict[str, Any]) -> None:
    """A signature says nothing of ranges."""
    build(config["defense"], "defense", model=nn.Linear(1, 1), optimizer=None, schedule=Constant(), seed=0)
    build_all(config["callbacks"], "callbacks")
    build(config["optim"], "optim")


def test_every_file_begins_with_a_comment_that_says_what_it_is() -> None:
    for file in CONF.rglob("*.yaml"):
        assert file.read_text(encoding="utf-8").startswith("# "), file


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+train_attack.stpes=3", ["train_attack.stpes=3", "xrobust.attacks.PGD", "did you mean 'steps'"]),
        ("+defense.batchnorm=clean", ["defense.batchnorm", "did you mean 'batch_norm'"]),
        ("+trainer.max_epoch=1", ["trainer.max_epoch", "did you mean 'max_epochs'"]),
        ("+metrics.gini_index.bins=3", ["metrics.gini_index.bins"]),
        ("+trainer.logger=false", ["trainer.logger=False", "the program gives it"]),
        ("model._target_=xrobust.models.SmalCNN", ["model._target_", "did you mean 'SmallCNN'"]),
        ("model._target_=os.system", ["os.system", "may only name"]),
        ("model._target_=torch.hub.load", ["torch.hub.load", "may only name"]),
        ("~threat.norm", ["threat.norm is missing"]),
    ],
)
def test_planted_mistakes_are_found_with_their_place(override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        check_run(composed(override))
    assert all(word in str(error.value) for word in words), error.value


def test_an_unknown_top_level_key_in_an_experiment_file_is_refused(tmp_path: Path) -> None:
    experiment = tmp_path / "experiment"
    experiment.mkdir()
    (experiment / "typo.yaml").write_text("# @package _global_\nsede: 3\n")
    with pytest.raises(HydraException) as error:
        composed(f"hydra.searchpath=[file://{tmp_path}]", "experiment=typo")
    sentence = cli.explain(error.value, CONF, "train")
    assert "sede" in sentence and "did you mean 'seed'" in sentence and "experiment/typo" in sentence


def test_an_unknown_choice_names_the_near_ones() -> None:
    with pytest.raises(HydraException) as error:
        composed("model=madri_cnn")
    sentence = cli.explain(error.value, CONF, "train")
    assert "model=madri_cnn" in sentence and "did you mean 'madry_cnn'" in sentence and "resnet18" in sentence


def test_mandatory_values_are_asked_for_by_name() -> None:
    with pytest.raises(UserError, match=r"data.path, .* must be given on the command line"):
        composed("data=arrays")


def test_a_target_that_lacks_a_dependency_is_not_called_misspelt() -> None:
    with pytest.raises(UserError, match="does not exist"):
        resolve_target("xrobust.no_such_module.Thing", "x")

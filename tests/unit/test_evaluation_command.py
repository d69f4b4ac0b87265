"""The parts of python -m xrobust.evaluate: what it refuses, where it writes, what conf/ offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conf_walk import CONF, choices
from hydra import compose, initialize_config_dir

import xrobust.command
from xrobust import evaluate as command
from xrobust.attacks import WorstOf
from xrobust.command import check_model_choice, recorded_data
from xrobust.config.build import build, build_all, plain
from xrobust.config.check import check_run
from xrobust.errors import UserError
from xrobust.evaluation.masking import Check
from xrobust.threat import ThreatModel


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose("evaluate", ["attack_name=pgd", *overrides]))


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return composed("data=digits", "bundle=run/bundle")


NETWORK = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bundle": None}, ["exactly one", "bundle=", "model="]),
        ({"model": NETWORK}, ["exactly one", "bundle=", "model="]),
        ({"weights": "mine.pt"}, ["weights=mine.pt", "a bundle has its own"]),
        ({"bundle": None, "model": NETWORK, "data": None}, ["data=… must be given"]),
    ],
)
def test_a_choice_of_several_models_or_none_is_refused(
    changes: dict[str, Any], words: list[str], config: dict[str, Any]
) -> None:
    check_model_choice(config)
    with pytest.raises(UserError) as error:
        check_model_choice({**config, **changes})
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "train"}, ["split", "'test'", "'validation'", "'train'"]),
        ({"limit": 0}, ["limit", "at least 1", "0"]),
        ({"batch_size": 0}, ["batch_size", "at least 1", "0"]),
        ({"check_images": -1}, ["check_images", "at least 1", "-1"]),
        ({"threats": ["l2_1_5", "linf_0_1"], "eps": [0, 1]}, ["eps=[0, 1]", "threats="]),
    ],
)
def test_values_that_the_schema_lets_pass_are_refused(
    changes: dict[str, Any], words: list[str], config: dict[str, Any]
) -> None:
    command.check_values(config)
    with pytest.raises(UserError) as error:
        command.check_values({**config, **changes})
    assert all(word in str(error.value) for word in words), error.value


def test_a_network_needs_weights(config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"weights=<file> must be given.*random weights"):
        command.chosen_model({**config, "bundle": None, "model": NETWORK})
    with pytest.raises(UserError, match=r"weights=none.pt does not exist"):
        command.chosen_model({**config, "bundle": None, "model": NETWORK, "weights": "none.pt"})


def test_an_unknown_device_is_refused() -> None:
    assert command.chosen_device("cpu") == torch.device("cpu")
    assert command.chosen_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match=r"device=tpu9 .* allowed: auto, cpu"):
        command.chosen_device("tpu9")


def test_the_output_lies_beside_what_is_evaluated(config: dict[str, Any], tmp_path: Path) -> None:
    threats = [ThreatModel("linf", "8/255"), ThreatModel("l2", "0.2")]
    bundle = tmp_path / "run" / "bundle"
    bundle.mkdir(parents=True)
    assert command.chosen_folder({**config, "bundle": str(bundle)}, threats) == (
        tmp_path / "run" / "evaluation" / "pgd_linf_8_255_l2_0.2"
    )
    (tmp_path / "run" / "best.ckpt").touch()
    assert command.chosen_folder({**config, "bundle": str(tmp_path / "run" / "best.ckpt")}, threats[:1]) == (
        tmp_path / "run" / "evaluation" / "best_pgd_linf_8_255"
    )
    assert command.chosen_folder({**config, "output": "here"}, threats) == Path("here")


def test_a_limit_takes_the_same_balanced_images_whatever_the_seed(config: dict[str, Any]) -> None:
    x, y, index, data = command.chosen_images({**config, "limit": 50, "seed": 7})
    assert data.startswith("Digits ") and data == command.chosen_images(config).data  # of the whole split
    assert data != command.chosen_images({**config, "split": "validation"}).data
    assert x.dtype == torch.uint8 and x.shape == (50, 1, 8, 8)
    assert y.bincount().tolist() == [5] * 10 and (index.diff() > 0).all()
    whole = command.chosen_images(config)
    assert torch.equal(whole[0][index], x) and torch.equal(whole[1][index], y)
    assert torch.equal(command.chosen_images({**config, "limit": 50})[2], index)
    assert len(command.chosen_images({**config, "split": "validation"})[1]) == 144


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({}, "data=… must be given: bundle=run does not say which images the model is for"),
        ({"data": {"_target_": "os.system"}}, r"bundle=run names os.system as its data, allowed is xrobust.data.\*"),
    ],
)
def test_a_bundle_must_name_a_data_set_of_ours(training: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        recorded_data({"training": training}, "bundle=run")


def test_without_the_configuration_files_the_error_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(xrobust.command, "CONF", tmp_path)
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2 and "pip install -e ." in capsys.readouterr().err


@pytest.mark.parametrize("name", choices("check"))
def test_every_check_in_conf_can_be_chosen(name: str) -> None:
    config = composed(f"check=[{name}]")
    check_run(config)
    (check,) = build_all(config["check"], "check").values()
    assert isinstance(check, Check) and check.advice and check.reference


def test_every_check_in_conf_is_made_by_default(config: dict[str, Any]) -> None:
    assert sorted(config["check"]) == choices("check")


def test_the_white_box_attack_has_two_losses_on_the_chosen_threat_model() -> None:
    attack = build(composed("threat=l2_1_5")["white_box"], "white_box")
    assert isinstance(attack, WorstOf) and attack.threat == ThreatModel("l2", "1.5")
    assert [member.loss for member in attack.attacks.values()] == ["cross_entropy", "margin"]

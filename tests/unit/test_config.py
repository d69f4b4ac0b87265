"""Building from configuration: places in messages, the allowlist, the run folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conf_walk import CONF
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xrobust.config.build import build, build_all
from xrobust.config.check import did_you_mean
from xrobust.config.cli import explain
from xrobust.config.run_folder import open_run_folder
from xrobust.errors import UserError, at_least, at_place
from xrobust.schedules import Ramp

RAMP = {"_target_": "xrobust.schedules.Ramp", "end": 0.5}


def test_a_node_becomes_an_object_and_a_partial_waits() -> None:
    assert build(RAMP, "schedule") == Ramp(end=0.5)
    optimizer = build({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}, "optim")
    assert isinstance(optimizer([torch.nn.Parameter(torch.zeros(1))]), torch.optim.SGD)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({**RAMP, "end": 2}, "Ramp.start and .end must be shares of the run"),
        ({**RAMP, "end": "soon"}, "schedule.end must be float, got 'soon'"),
        ({**RAMP, "ned": 1}, "schedule.ned=1 is not a parameter of xrobust.schedules.Ramp, did you mean 'end'"),
        ({"_target_": "builtins.eval"}, r"schedule\._target_=builtins\.eval: a configuration may only name"),
        ({"_target_": "xrobust.schedules.Rmap"}, "did you mean 'Ramp'"),
        ({"_target_": "xrobust.nowhere.Ramp"}, "does not exist"),
        ({"_target_": "xrobust.threat.ThreatModel", "norm": "l2"}, "schedule.eps is missing"),
    ],
)
def test_mistakes_are_refused_with_their_place(node: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(node, "schedule")


def test_settings_of_what_is_not_chosen_are_refused() -> None:
    with pytest.raises(UserError, match=r"callbacks\.best_checkpoint has settings, but is not chosen"):
        build_all({"ramp": RAMP, "off": None, "best_checkpoint": {"monitor": "val/clean_accuracy"}}, "callbacks")


@pytest.mark.parametrize(
    ("place", "error", "sentence"),
    [
        ("train_attack", "PGD.steps must be", "train_attack: PGD.steps must be"),
        ("data", "data.root is", "data.root is"),
        ("callbacks.history", "history.path is", "callbacks.history.path is"),
    ],
)
def test_an_error_has_its_place_once(place: str, error: str, sentence: str) -> None:
    assert str(at_place(place, error)) == sentence


def test_the_place_of_a_nested_mistake_is_named() -> None:
    threat = {"_target_": "xrobust.threat.ThreatModel", "norm": "linf", "eps": 0.1}
    member = {"_target_": "xrobust.attacks.PGD", "threat": threat, "steps": 0}
    attack = {"_target_": "xrobust.attacks.WorstOf", "threat": threat, "attacks": {"long": member}}
    with pytest.raises(UserError, match=r"^train_attack\.attacks\.long: PGD\.steps"):
        build(attack, "train_attack")


def test_only_near_names_are_suggested() -> None:
    known = ["callbacks.last_checkpoint.filename", "logger.wandb.project", "train_attack.steps"]
    assert did_you_mean("train_attack.stpes", known) == ", did you mean 'train_attack.steps'?"
    assert not did_you_mean("callbacks.early_stopping.patience", known)
    assert not did_you_mean("logger.wandb.project", known), "the very same"


def configuration(folder: Path, **changes: object) -> dict:
    return {"run_dir": str(folder), "resume": None, "debug": False, "logger": {}, "seed": 0, **changes}


def test_a_run_folder_is_opened_once_and_resumed_only_by_the_same_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert open_run_folder(configuration(folder)) is None
    assert (folder / "config.yaml").is_file()
    resume = {"resume": str(folder), "debug": True, "logger": {"wandb": {}}}
    assert open_run_folder(configuration(folder, **resume)) is None  # killed before the first epoch ended
    (folder / "checkpoints").mkdir()
    torch.save({}, folder / "checkpoints" / "last.ckpt")
    assert open_run_folder(configuration(folder, **resume)) == folder / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="these differ: seed"):
        open_run_folder(configuration(folder, **resume, seed=1))
    with pytest.raises(UserError, match="is not a run folder"):
        open_run_folder(configuration(folder, resume=str(tmp_path)))


def test_a_run_with_damaged_files_is_not_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    open_run_folder(configuration(folder))
    (folder / "checkpoints").mkdir()
    last, written = folder / "checkpoints" / "last.ckpt", folder / "config.yaml"
    torch.save({"weights": torch.zeros(1000)}, last)
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged, so the run cannot go on"):
        open_run_folder(configuration(folder, resume=str(folder)))
    for content in (b"}{", b"[1]", b"a: ${", b"\xff\xfe\x00"):
        written.write_bytes(content)
        with pytest.raises(UserError, match=r"config\.yaml is damaged: "):
            open_run_folder(configuration(folder, resume=str(folder)))


def test_a_requeued_job_goes_on_in_its_folder(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert open_run_folder(configuration(folder)) is None, "killed before it had a folder"
    (folder / "checkpoints").mkdir()
    torch.save({}, folder / "checkpoints" / "last.ckpt")
    assert open_run_folder(configuration(folder)) == folder / "checkpoints" / "last.ckpt"
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert open_run_folder(configuration(folder)) is None, "begun anew by hand"


@pytest.mark.parametrize("processes", [{"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2"}, {"SLURM_NTASKS": "2"}])
def test_several_processes_need_a_folder_that_they_share(processes: dict[str, str], monkeypatch) -> None:
    for name, value in processes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OmegaConfBaseException) as raised:
        OmegaConf.create({"folder": "${run_folder:null}"}).folder  # noqa: B018
    assert explain(raised.value, CONF, "train").startswith("with torchrun or srun the processes need one folder")
    assert OmegaConf.create({"folder": "${run_folder:mine}"}).folder == "mine"


@pytest.mark.parametrize("value", [0, 2.5, "3", True, None])
def test_whole_numbers_below_the_minimum_or_of_another_kind_are_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"PGD\.steps must be an integer of at least 1, got"):
        at_least("PGD", 1, steps=value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), "0.3"])
def test_numbers_below_the_minimum_are_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"PGD\.momentum must be at least 0, got"):
        at_least("PGD", 0.0, momentum=value)
    at_least("PGD", 0.0, momentum=0, other=0.5)

"""Two gloo processes measure and train as one does, draw different noise, and share one run folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command import here
from conf_walk import GIVEN, WITHOUT_METRICS, choices, composed

from xrobust.export.bundle import save_bundle
from xrobust.models import SmallCNN

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ARCHITECTURE = {"num_classes": 10, "in_channels": 1, "image_size": 8}
NAMES = choices("defense")
EXACT = ("standard", "free_at", "pgd_at", "mart", "alp", "score")  # draw no random numbers with such an attack
Reports = dict[str, dict[str, Any]]


def run(command: list[str], **options: object) -> None:
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr[-3000:]


def configuration(name: str) -> dict[str, Any]:
    """The method's, with a training attack that draws no random numbers."""
    given = ["data=digits", "threat.eps=0.1", "train_attack.random_start=false", *WITHOUT_METRICS]
    return composed(f"defense={name}", *given, *GIVEN.get(f"defense={name}", []))["defense"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    folder = tmp_path_factory.mktemp("distributed")
    names = [str(i) for i in range(10)]
    helper, target = SmallCNN(**ARCHITECTURE), {"_target_": "xrobust.models.SmallCNN", **ARCHITECTURE}
    save_bundle(folder / "bundle", helper, target, class_names=names, training={"threat": None})
    (folder / "methods.json").write_text(json.dumps({name: configuration(name) for name in NAMES}))
    with pytest.MonkeyPatch.context() as monkeypatch:  # alone, in this very process
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [*sys.path])
        here(str(WORKER), str(folder), "1", *EXACT)
    run([*TWO, str(WORKER), str(folder), "2"])
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("rank_*.json")}


def test_two_processes_measure_what_one_measures(reports: Reports) -> None:
    alone = reports["rank_0_of_1"]["metrics"]
    measured = {name for name in alone if name.startswith(("val/", "explain/")) and "seconds" not in name}
    assert {"val/clean_accuracy", "val/robust_accuracy"} < measured and len(measured) > 20
    for rank in (0, 1):
        together = reports[f"rank_{rank}_of_2"]["metrics"]
        for name in measured:
            assert together[name] == pytest.approx(alone[name], rel=2e-3, abs=1e-5, nan_ok=True), name


def test_each_process_draws_its_own_noise(reports: Reports) -> None:
    draws = [reports[f"rank_{rank}_of_2"]["noise"] for rank in (0, 1)]
    assert draws[0] != draws[1]
    assert reports["rank_0_of_1"]["noise"] == draws[0]


@pytest.mark.parametrize("name", NAMES)
def test_both_processes_end_with_the_same_weights(name: str, reports: Reports) -> None:
    first, second = (reports[f"rank_{rank}_of_2"]["weights"][name] for rank in (0, 1))
    assert first == second


@pytest.mark.parametrize("name", EXACT)
def test_without_random_numbers_two_processes_train_as_one(name: str, reports: Reports) -> None:
    alone, together = (torch.tensor(reports[report]["weights"][name]) for report in ("rank_0_of_1", "rank_0_of_2"))
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)


def test_a_run_over_two_processes_has_one_folder(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "trainer=ddp_cpu",
        "data=digits",
        "trainer.max_epochs=1",
        "defense=standard",
        "metrics=[gini_index]",
        "metrics@card_metrics=[gini_index]",
    ]
    # Without a best checkpoint the weights of the last epoch are tested and exported.
    run([*command, "logger=wandb_offline", "threat.eps=0.1", "callbacks.best_checkpoint=null"], cwd=tmp_path)
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 1
    for name in ("config.yaml", "metrics.csv", "report.html", "bundle/model.safetensors"):
        assert (folders[0] / name).is_file(), name
    assert len((folders[0] / "metrics.csv").read_text().splitlines()) == 2


def test_each_run_of_a_multirun_has_one_folder_and_processes_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "-m", "trainer=ddp_cpu", "data=digits", "trainer.max_epochs=1"]
    few = [*WITHOUT_METRICS, "callbacks=[best_checkpoint,history]", "logger=csv"]
    run([*command, *few, "defense=standard", "seed=0,1"], cwd=tmp_path)
    (multirun,) = (tmp_path / "runs/multirun").iterdir()
    for folder in (multirun / "0", multirun / "1"):
        assert (folder / "bundle").is_dir() and len((folder / "metrics.csv").read_text().splitlines()) == 2
    assert {file.name for file in (tmp_path / "runs").iterdir()} == {"multirun"}

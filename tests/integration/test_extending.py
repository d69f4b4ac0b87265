"""The files of docs/extending.md, written where the page says, are trained with and pass the contract tests."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import ENVIRONMENT, ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/]+\.(?:py|yaml))`[^`\n]*:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
TRAIN, CONTRACTS = re.findall(r"```bash\n(.*?)\n```", PAGE, re.DOTALL)
CALLBACKS = "callbacks=[robust_accuracy,explanation_quality,best_checkpoint,history]"
SHORT = ["logger=csv", "trainer.max_epochs=1", CALLBACKS]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the new files."""
    copy = tmp_path_factory.mktemp("repository")
    for name in ("train.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    for name in ("xrobust", "callbacks", "conf", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        assert (copy / name).parent.is_dir() and not (copy / name).exists(), name
        (copy / name).write_text(text, encoding="utf-8")
    return copy


def run(repository: Path, *arguments: str) -> str:
    """What `python <arguments>` prints in the copy, where the copy's own packages are imported."""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(repository)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_page_has_a_class_and_a_configuration_of_each_kind() -> None:
    rooms = {"attacks": "attack", "defenses": "defense", "metrics": "metrics", "data": "data", "models": "model"}
    expected = {f"xrobust/{room}" for room in rooms} | {f"conf/{group}" for group in rooms.values()}
    assert {os.path.dirname(name) for name in FILES} == expected and len(FILES) == len(expected)


def test_a_run_trains_with_all_of_them(repository: Path) -> None:
    offline, python, *arguments = shlex.split(TRAIN)
    assert (offline, python) == ("WANDB_MODE=offline", "python")
    run(repository, *arguments, *SHORT)
    (folder,) = (repository / "runs").iterdir()
    with (folder / "metrics.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert 0 < float(row["explain/complexity/peak_share/gradient"]) <= 1
    assert float(row["train/squeeze"]) > 0
    bundle = json.loads((folder / "bundle" / "config.json").read_text())
    assert bundle["architecture"]["_target_"] == "xrobust.models.one_layer.OneLayer"
    clean, robust = bundle["results"]
    assert robust["protocol"]["attack"]["name"] == "RandomCorner" and clean["n"] == 400
    assert clean["value"] > 0.9, "stripes are easy"


def test_the_contract_tests_find_them_and_they_pass(repository: Path) -> None:
    pytest_, *arguments = shlex.split(CONTRACTS)
    assert pytest_ == "pytest"
    said = run(repository, "-m", "pytest", *arguments, "-n", "0", "-p", "no:cacheprovider")
    passed = re.search(r"(\d+) passed", said)
    assert passed and int(passed[1]) >= 20, said[-2000:]


def test_the_python_of_the_page_runs() -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[-1]
    names: dict[str, torch.Tensor] = {}
    exec(code, names)
    assert names["maps"].shape == (4, 1, 8, 8)
    assert 0 < (names["adversarial"] - names["images"]).abs().max() <= 8 / 255 + 1e-6

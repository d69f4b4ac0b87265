"""The commands of the tutorial and the README, in their order and in one folder; overrides make each of them short."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest
from command import ROOT, here
from torch import nn

TRAIN = [
    "logger=csv",
    "trainer.max_epochs=1",
    *(f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")),
    "data.eval_batch_size=20",
    "metrics=[gini_index,topk_adversarial]",
    "metrics@card_metrics=[gini_index]",
    "callbacks.explanation_quality.images=10",
    "callbacks.explanation_card.images=10",
    "callbacks.attribution_panels.images=2",
]
# What is appended to the command of that name.
SHORT = {
    "train.py": TRAIN,
    "xrobust.evaluate": ["limit=10", "check_images=10"],
    "xrobust.certify": ["limit=4"],
    "xrobust.explain": ["images=10", "metrics=[gini_index,topk_noise]", "panel_images=1"],
    "xrobust.compare": ["bootstrap=20"],
    "xrobust.diff_roar": ["train_images=40", "test_images=20", "seeds=1", "shares=[0.5]", "retraining.epochs=1"],
    "xrobust.export": ["check_images=2"],
}
IN_README = "runs/2026-01-31_12-00-00"
MULTIRUN = "runs/multirun/2026-01-31_12-00-00"
# What needs a download or data of one's own, and what installs or tests.
ELSEWHERE = re.compile(r"pip |.*data=(mnist|cifar10|arrays) ")
ONE_SEED = re.compile(r"(?<=seed=)(\d+)[,\d]+")  # three methods are enough of a multirun


def blocks(document: str, language: str) -> list[str]:
    """The code blocks of a language in a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def lines(document: str) -> list[str]:
    """The commands of a document."""
    return [line for block in blocks(document, "bash") for line in block.splitlines()]


def run(line: str, *further: str) -> None:
    """A line of a document, made short."""
    python, *words = shlex.split(line)
    assert python == "python", line
    words = words[1:] if words[0] == "-m" else words
    name, *overrides = words
    here(name, *overrides, *SHORT[name], *further)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tutorial was followed to its end."""
    cwd = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(cwd)
        for line in lines("docs/tutorial.md"):
            run(line)
    return cwd


def test_every_step_of_the_tutorial_leaves_what_the_next_ones_need(folder: Path) -> None:
    for name in ("report.html", "panels/epoch_000.png", "checkpoints/last.ckpt", "bundle/model.safetensors"):
        assert (folder / "runs/robust" / name).is_file() and (folder / "runs/standard" / name).is_file(), name
    with (folder / "runs/robust/metrics.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 1, "resuming a finished run adds no epoch"
    (summary,) = folder.glob("runs/robust/evaluation/*/summary.json")
    (certificates,) = folder.glob("runs/robust/certification/*/summary.json")
    assert '"n": 10' in summary.read_text() and '"n": 4' in certificates.read_text()
    assert len(list(folder.glob("runs/*/explanations/*/panel.png"))) == 2
    assert (folder / "runs/compared/compare.html").is_file()
    exported = {file.name for file in (folder / "runs/robust/export").rglob("*")}
    assert {"model.pt2", "model.onnx", "model.safetensors"} <= exported


def further_lines() -> list[str]:
    """The commands of the README that need no more than is installed, without those of the tutorial."""
    done = [line.replace("runs/robust", IN_README) for line in lines("docs/tutorial.md")]
    return [line for line in lines("README.md") if not ELSEWHERE.match(line) and line not in done]


@pytest.mark.parametrize("line", further_lines())
def test_commands_of_the_readme(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    if not Path(IN_README).exists():
        shutil.copytree("runs/robust", IN_README)
    if line.startswith("python train.py -m "):
        run(ONE_SEED.sub(r"\1", line), f"hydra.sweep.dir={MULTIRUN}")
        assert len(list(Path(MULTIRUN).glob("*/bundle"))) == 3
        return
    before = len(list(Path("runs").iterdir()))
    run(line)
    trains_anew = line.startswith("python train.py") and "resume=" not in line
    assert len(list(Path("runs").iterdir())) == before + trains_anew


def test_python_of_the_readme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (code,) = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(code.replace(IN_README, "runs/robust"), names)
    assert isinstance(names["model"], nn.Module)

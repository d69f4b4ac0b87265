"""python -m xrobust.diff_roar as a user runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command import in_process
from torch import nn

from xrobust import diff_roar as command
from xrobust.export.bundle import save_bundle

ARCHITECTURE = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}


@pytest.fixture
def run(tmp_path: Path, digits_model: nn.Module, monkeypatch: pytest.MonkeyPatch):
    """The command in this process, in a folder with a bundle."""
    monkeypatch.chdir(tmp_path)
    save_bundle("run/bundle", digits_model, ARCHITECTURE, class_names=[str(i) for i in range(10)], training={})

    given = [
        "bundle=run/bundle",
        "data=digits",
        "seeds=1",
        "shares=[0.2]",
        "retraining.epochs=6",
        "retraining.batch_size=20",
    ]
    return in_process(command, monkeypatch, *given)


def test_it_leaves_a_table_a_record_and_a_picture(run, capsys) -> None:
    run("attribution=[gradient]")
    folder = Path("run/diff_roar/Digits")
    (score,) = json.loads((folder / "diff_roar.json").read_text(encoding="utf-8"))["scores"]
    with (folder / "diff_roar.csv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["most_relevant_accuracy"]) == score["most"][0]
    assert score["diff_roar"] == pytest.approx(score["most"][0] - score["least"][0])
    assert score["most"][0] > score["least"][0]  # a trained network's gradient knows where the digit is
    assert (folder / "diff_roar.png").stat().st_size > 1000 and (folder / "config.yaml").is_file()
    said = capsys.readouterr().out
    assert "gradient" in said and str(folder) in said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("shares=[1.5]", ["diff_roar.shares", "1.5"]),
        ("retraining.epochs=0", ["retraining.epochs", "0"]),
        ("train_images=0", ["train_images", "0"]),
        ("attribution=[]", ["attribution=[] is empty"]),
        ("test_images=100000", ["test_images=100000 are more images than there are: 359"]),
        (f"output={__file__}", ["output=", "is a file"]),
        ("retraining.epoch=3", ["retraining.epoch", "did you mean 'epochs'"]),
    ],
)
def test_a_mistake_ends_in_one_sentence(run, override: str, words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as end:
        run("+" * override.startswith("retraining.epoch=") + override)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line

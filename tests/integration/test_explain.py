"""python -m xrobust.explain as a user runs it: a bundle, what it leaves, mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command import in_process
from torch import nn

from xrobust import explain as command
from xrobust.export.bundle import save_bundle
from xrobust.export.loading import read_config

ARCHITECTURE = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}
QUICK = ["data=digits", "threat=linf_0_1", "images=20", "part_size=12", "panel_images=3", "attack.steps=3"]


@pytest.fixture
def bundle(tmp_path: Path, digits_model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle in a folder of its own, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    names = [str(i) for i in range(10)]
    return save_bundle(tmp_path / "run" / "bundle", digits_model, ARCHITECTURE, class_names=names, training={})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    return in_process(command, monkeypatch)


def test_an_explained_bundle_leaves_everything_behind(bundle: Path, run, capsys) -> None:
    run("bundle=run/bundle", *QUICK, "attribution=[gradient]", "metrics=[gini_index,topk_attacked,pointing_game]")
    folder = bundle.parent / "explanations" / "linf_0.1"
    for name in ("explanation_card.json", "explanation_card.md", "explanation_card.html", "panel.png", "config.yaml"):
        assert (folder / name).stat().st_size > 100, name
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 20 and {row["label"] for row in rows} == {str(digit) for digit in range(10)}
    card = json.loads((folder / "explanation_card.json").read_text(encoding="utf-8"))
    (gini,) = card["points"][7]["rows"]
    values = [float(row["complexity/gini_index/gradient"]) for row in rows]
    assert gini["mean"] == pytest.approx(sum(values) / 20) and gini["n"] == 20
    assert card["protocol"]["split"] == "test"
    assert read_config(bundle)["explanation_card"] == card
    assert "Explanation card" in (bundle / "README.md").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "Can an adversary change the map?" in said and "topk_attacked" in said and str(folder) in said


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["bundle=nowhere"], ["nowhere", "no such bundle"]),
        (["bundle=run/bundle", "attribution=[gradent]"], ["attribution=gradent", "did you mean 'gradient'"]),
        (["bundle=run/bundle", "metrics=[]"], ["metrics=[] is empty"]),
        (["bundle=run/bundle", f"output={__file__}"], ["output=", "is a file"]),
        (["bundle=run/bundle", "split=train"], ["split", "'train'"]),
        (
            ["bundle=run/bundle", "metrics=[pointing_game]", "data.ground_truth=null"],
            ["metrics=pointing_game", "which pixels matter"],
        ),
    ],
)
def test_a_mistake_ends_in_one_sentence(overrides: list[str], words: list[str], bundle: Path, run, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        run(*QUICK, "attribution=[gradient]", "metrics=[gini_index]", *overrides)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line
    assert not (bundle.parent / "explanations").exists()


def test_only_images_that_the_model_gets_right_and_no_references_if_so_asked(bundle: Path, run) -> None:
    run("bundle=run/bundle", *QUICK, "attribution=[gradient]", "metrics=[gini_index]", "images=200")
    run(
        *("bundle=run/bundle", *QUICK, "attribution=[gradient]", "metrics=[gini_index]", "images=200"),
        *("correct_only=true", "references=false", "output=right"),
    )
    rows = {}
    for folder in (bundle.parent / "explanations" / "linf_0.1", Path("right")):
        with (folder / "samples.csv").open(newline="", encoding="utf-8") as stream:
            rows[folder.name] = list(csv.DictReader(stream))
    wrong = {row["index"] for row in rows["linf_0.1"] if row["label"] != row["prediction"]}
    chosen = {row["index"] for row in rows["right"]}
    assert wrong and not wrong & chosen and len(chosen) == 200
    assert chosen > {row["index"] for row in rows["linf_0.1"]} - wrong
    assert json.loads(Path("right/explanation_card.json").read_text(encoding="utf-8"))["references"] == []


def test_more_right_images_than_there_are_cannot_be_had(bundle: Path, run, capsys) -> None:
    with pytest.raises(SystemExit):
        run(
            "bundle=run/bundle",
            *QUICK,
            "attribution=[gradient]",
            "metrics=[gini_index]",
            "correct_only=true",
            "images=9999",
        )
    assert "images=9999" in capsys.readouterr().err

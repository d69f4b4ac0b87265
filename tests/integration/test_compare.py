"""python -m xrobust.compare as a user runs it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import in_process
from matplotlib.image import imread
from torch import Tensor, nn

from xrobust import compare as command
from xrobust.export.bundle import save_bundle
from xrobust.export.result import AccuracyResult
from xrobust.report.history import write_history
from xrobust.report.panel import save_panel

ARCHITECTURE = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}
GINI, ALIGNMENT = "explain/complexity/gini_index/gradient", "explain/alignment/etmann_alignment/gradient"
EPOCHS = 5
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def write_run(
    folder: Path, model: nn.Module, method: str, seed: int, robust: int, images: Tensor, *, steps: int = 40
) -> None:
    """A finished run: gini rises with robust accuracy, alignment falls; its weights are its own."""
    threat = {"_target_": "xrobust.threat.ThreatModel", "norm": "linf", "eps": 0.3}
    attack = {"_target_": "xrobust.attacks.PGD", "threat": threat, "steps": 10}
    trained = {} if method == "StandardTraining" else {"attack": {**attack, "steps": 7}}
    training = {
        "threat": threat,
        "defense": {"_target_": f"xrobust.defenses.{method}", **trained},
        "regularizers": {},
        "val_attack": attack,
        "callbacks": {
            "best_checkpoint": {"monitor": "val/robust_accuracy"},
            "explanation_quality": {"attack": attack, "images": 128, "seed": 0},
        },
        "seed": seed,
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(training))
    accuracy = [robust / 100 * (epoch + 1) / EPOCHS for epoch in range(EPOCHS)]
    rows = [
        {"epoch": e, "val/clean_accuracy": 0.9, "val/robust_accuracy": a, GINI: 0.3 + a / 2, ALIGNMENT: 2 - a}
        for e, a in enumerate(accuracy)
    ]
    write_history(folder / "metrics.csv", rows)
    (folder / "explanation_metrics.json").write_text(json.dumps({GINI: True, ALIGNMENT: True}))
    numbers = np.arange(len(images))
    panel = {name: images.numpy() for name in ("images", "adversarial", "map/gradient", "adversarial_map/gradient")}
    save_panel(
        {**panel, **{name: numbers for name in ("labels", "predictions", "adversarial_predictions")}},
        folder / "panels",
        EPOCHS - 1,
    )
    with torch.no_grad():
        next(model.parameters()).mul_(1 + 1e-3)
    summary = f"PGD (linf ε=0.3, steps {steps})"
    protocol = {
        "split": "test",
        "seed": seed,
        "attack": {"threat": {"norm": "linf", "eps": "3/10"}, "summary": summary},
    }
    results = [
        AccuracyResult("test/clean_accuracy", 90 + seed, 100, {"split": "test"}),
        AccuracyResult("test/robust_accuracy", robust, 100, protocol),
    ]
    about = {"class_names": [str(i) for i in range(10)], "training": training, "results": results}
    save_bundle(folder / "bundle", model, ARCHITECTURE, **about)


@pytest.fixture(scope="module")
def multirun(tmp_path_factory: pytest.TempPathFactory, digits: tuple[Tensor, Tensor]) -> Path:
    """Two methods with two seeds each, and a run that was cut off."""
    from xrobust.models import SmallCNN

    folder = tmp_path_factory.mktemp("multirun")
    model, images = SmallCNN(num_classes=10, in_channels=1, image_size=8), digits[0][:3]
    for i, (method, seed, robust) in enumerate(
        [("StandardTraining", 0, 5), ("StandardTraining", 1, 10), ("TRADES", 0, 60), ("TRADES", 1, 70)]
    ):
        write_run(folder / str(i), model, method, seed, robust, images)
    (folder / "4").mkdir()
    (folder / "4" / "config.yaml").write_text("seed: 0\n")
    return folder


@pytest.fixture(scope="module")
def compared(multirun: Path) -> Path:
    """The folder that the command leaves."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_process(command, monkeypatch)(f"runs={multirun}", "bootstrap=200", "panel_images=2")
    return multirun / "compare"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The command in this process, with few resamples and no maps."""
    monkeypatch.chdir(tmp_path)
    return in_process(command, monkeypatch, "bootstrap=50", "panel_images=0")


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_it_leaves_tables_figures_and_a_page(compared: Path) -> None:
    figures = [f"{name}.{kind}" for name in ("metrics", "scatter", "trajectories", "panels") for kind in ("png", "svg")]
    tables = ["runs.csv", "summary.csv", "trajectories.csv", "correlations.csv"]
    assert sorted(file.name for file in compared.iterdir()) == sorted([*figures, *tables, "compare.html"])
    for name in figures:
        text = (compared / name).read_bytes()
        assert text.startswith(b"\x89PNG") if name.endswith("png") else b"<svg" in text[:1000]


def test_the_tables_hold_what_the_runs_reached(compared: Path) -> None:
    runs = table(compared / "runs.csv")
    assert [(row["run"], row["group"], row["seed"]) for row in runs] == [
        ("0", "standard", "0"),
        ("1", "standard", "1"),
        ("2", "trades", "0"),
        ("3", "trades", "1"),
    ]
    assert [float(row["test/robust_accuracy"]) for row in runs] == [0.05, 0.1, 0.6, 0.7]
    assert [float(row[GINI]) for row in runs] == pytest.approx([0.325, 0.35, 0.6, 0.65])  # at the best epoch, the last
    mean = next(r for r in table(compared / "summary.csv") if r["group"] == "trades" and r["quantity"] == GINI)
    assert float(mean["mean"]) == pytest.approx(0.625) and float(mean["lower"]) < 0.6 < 0.65 < float(mean["upper"])
    trajectories = table(compared / "trajectories.csv")
    assert len(trajectories) == 4 * EPOCHS * 4
    found = {(row["over"], row["where"], row["metric"]): row for row in table(compared / "correlations.csv")}
    assert float(found["all runs", "", GINI]["rho"]) == 1 and found["all runs", "", GINI]["n"] == "4"
    assert float(found["epochs of a run", "2", ALIGNMENT]["rho"]) == -1


class Page(HTMLParser):
    """What a page would load, what it holds, and its words."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, name: str) -> list[dict[str, Any]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_page_is_self_contained_and_fits_a_phone(compared: Path) -> None:
    text = (compared / "compare.html").read_text(encoding="utf-8")
    page = Page(text)
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert not {"script", "link", "iframe", "a"} & {tag for tag, _ in page.tags}
    assert not [a for _, attributes in page.tags for a in attributes if a in ("href", "srcset") or a.startswith("on")]
    images = page.all("img")
    assert len(images) == 4 + 3 + 5 + 1  # final values; legend and two metrics; legend and four quantities; maps
    assert all(image["src"].startswith("data:image/webp;base64,") and image["alt"] for image in images)
    assert "http" not in text and "url(" not in text and "@import" not in text


def test_the_page_says_what_was_compared_and_what_came_out(compared: Path) -> None:
    words = " ".join(Page((compared / "compare.html").read_text(encoding="utf-8")).words.split())
    for said in (
        "4 runs in 2 groups",
        "PGD (linf ε=0.3, steps 40)",
        "0.625 [",
        "(2 runs)",
        "gini_index ↑ gradient",
        "rises with robust accuracy",
        "falls with robust accuracy",
        "/4 is left out: incomplete: no bundle",
    ):
        assert said in words.replace("\N{NO-BREAK SPACE}", " "), said


def test_the_terminal_names_groups_findings_and_the_folder(multirun: Path, run, tmp_path: Path, capsys) -> None:
    run(f"runs={multirun}", f"output={tmp_path / 'here'}", "group=null")
    said = " ".join(capsys.readouterr().out.split())
    assert "all runs" in said and "rises with robust accuracy" in said and "left out" in said
    assert "StandardTraining" in said and "not repetitions" in said  # methods differ within the one group
    assert (tmp_path / "here" / "compare.html").is_file() and not (tmp_path / "here" / "panels.png").exists()


def test_a_table_of_runs_alone_gives_a_page_without_epochs(run, tmp_path: Path) -> None:
    rows = [f"r{i},trades,{i},0.{i},{i / 10}" for i in range(5)]
    (tmp_path / "runs.csv").write_text("\n".join([f"Name,defense,seed,test/robust_accuracy,{GINI}", *rows]))
    run("runs=runs.csv", "group=[defense,seed]")
    assert {row["group"] for row in table(tmp_path / "compare" / "summary.csv")} == {
        f"trades seed={i}" for i in range(5)
    }
    assert not (tmp_path / "compare" / "trajectories.png").exists()
    assert table(tmp_path / "compare" / "trajectories.csv") == []


def test_accuracies_of_different_protocols_end_in_one_sentence(
    run, tmp_path: Path, digits_model: nn.Module, digits: tuple[Tensor, Tensor], capsys
) -> None:
    for i, steps in enumerate((40, 10)):
        write_run(tmp_path / "m" / str(i), digits_model, "TRADES", i, 50, digits[0][:1], steps=steps)
    with pytest.raises(SystemExit) as left:
        run("runs=m")
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and all(word in line for word in ("steps 40", "in 0", "steps 10", "in 1", "trades"))
    assert not (tmp_path / "m" / "compare").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("runs=nowhere", ["runs=nowhere"]),
        ("runs=[]", ["runs=[] is empty"]),
        ("runs=[{a: 1}]", ["runs must be a text"]),
        ("bootstrap=0", ["bootstrap", "0"]),
        (f"output={__file__}", ["output=", "is a file"]),
        ("panel_images=-1", ["panel_images", "-1"]),
        ("group=defence", ["group=defence", "no such key"]),
        ("grup=defense", ["grup", "did you mean 'group'"]),
    ],
)
def test_a_mistake_ends_in_one_sentence(override: str, words: list[str], multirun: Path, run, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        run(*([] if override.startswith("runs=") else [f"runs={multirun}"]), override)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and all(word in line for word in words)


def test_runs_without_any_value_end_in_one_sentence(run, tmp_path: Path, capsys) -> None:
    (tmp_path / "runs.csv").write_text("Name,State,defense,seed\na,finished,trades,0\n")
    with pytest.raises(SystemExit):
        run("runs=runs.csv")
    assert "none of them has an accuracy" in capsys.readouterr().err


def test_runs_must_be_given(run, capsys) -> None:
    with pytest.raises(SystemExit):
        run()
    assert "runs must be given on the command line" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize(("planted", "wider"), [("", False), ('<div style="width:60rem;height:1px"></div>', True)])
def test_a_browser_shows_the_page_no_wider_than_a_phone(
    compared: Path, tmp_path: Path, planted: str, wider: bool
) -> None:
    text = (compared / "compare.html").read_text(encoding="utf-8").replace("</html>", f"{planted}</html>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    options = [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'shot.png'}"]
    call = [*CHROMIUM, *options, "--window-size=390,844", (tmp_path / "page.html").as_uri()]
    subprocess.run(call, check=True, capture_output=True, timeout=120)
    pixels = imread(tmp_path / "shot.png")[..., :3]
    assert pixels.shape[:2] == (844, 390) and pixels[:800, :370].std() > 0.05
    scroll_bar = bool((pixels[-8, 2:14] < 1).any())  # at the foot of the window; elsewhere the margin is white
    assert scroll_bar == wider

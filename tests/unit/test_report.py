"""Reports from a run folder: tables, figures, the page."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from xrobust.report import Run, print_summary, read_run, write_report
from xrobust.report.history import read_history, trajectory, write_history
from xrobust.report.panel import load_panels, save_panel
from xrobust.report.run import Change

RESULTS = [
    {
        "quantity": "test/robust_accuracy",
        "value": 0.775,
        "interval_95": [0.74, 0.80],
        "correct": 775,
        "n": 1000,
        "protocol": {"split": "test", "seed": 0, "attack": {"summary": "PGD (linf ε=0.2, steps 40)"}},
    }
]


def panel(value: float, channels: int = 1) -> dict[str, np.ndarray]:
    images = np.full((3, channels, 6, 6), value, dtype=np.float32)
    labels = np.array([0, 1, 2])
    return {
        "images": images,
        "adversarial": images,
        "labels": labels,
        "predictions": labels,
        "adversarial_predictions": labels[::-1].copy(),
        "map/gradient": images - 0.5,
        "adversarial_map/gradient": np.zeros_like(images),
    }


@pytest.fixture
def run(tmp_path: Path) -> Run:
    key = "explain/complexity/gini_index/gradient"
    rows = [
        {"epoch": 0, "val/clean_accuracy": 0.9, "val/robust_accuracy": 0.1, key: 0.5},
        {"epoch": 1, "val/clean_accuracy": 0.95, "val/robust_accuracy": 0.6},
        {"epoch": 2, "val/clean_accuracy": 0.97, "val/robust_accuracy": 0.7, key: 0.8},
    ]
    write_history(tmp_path / "metrics.csv", rows)
    (tmp_path / "explanation_metrics.json").write_text(f'{{"{key}": true}}')
    for epoch in range(3):
        save_panel(panel(epoch / 3), tmp_path / "panels", epoch)
    return read_run(tmp_path, "pgd_at · linf_0_2 · <digits>", RESULTS)


def test_a_history_comes_back_as_it_was_written(run: Run) -> None:
    again = read_history(run.folder / "metrics.csv")
    assert again == run.history and "explain/complexity/gini_index/gradient" not in again[1]
    assert trajectory(again, "explain/complexity/gini_index/gradient") == ([0, 2], [0.5, 0.8])


def test_changes_say_whether_they_are_for_the_better(run: Run) -> None:
    (change,) = run.changes()
    assert (change.first, change.last, change.verdict) == (0.5, 0.8, "better")
    assert Change("x", 0.5, 0.8, higher_is_better=False).verdict == "worse"
    assert Change("x", 0.5, 0.5, higher_is_better=True).verdict == "unchanged"
    assert Change("x", 0.5, 0.8, higher_is_better=None).verdict == ""


@pytest.mark.parametrize("values", [(math.nan, 0.5), (0.5, math.nan)])
def test_an_epoch_without_a_defined_value_has_not_measured_it(run: Run, values: tuple[float, float]) -> None:
    (name,) = run.directions
    rows = [{"epoch": i, name: value} for i, value in enumerate(values)]
    (change,) = replace(run, history=rows).changes()
    assert change.verdict == "measured once" and change.first == change.last == 0.5


def test_the_report_is_a_picture_and_a_self_contained_page(run: Run) -> None:
    write_report(run)
    assert imread(run.folder / "report.png").std() > 0.05
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "&lt;digits&gt;" in page and "<digits>" not in page
    assert "77.50%" in page and "PGD (linf ε=0.2, steps 40), seed 0" in page and "data:image/webp;base64," in page
    assert not list(run.folder.glob("*.partial"))


def test_a_run_without_explanations_still_has_a_report(tmp_path: Path) -> None:
    write_history(tmp_path / "metrics.csv", [{"epoch": 0, "val/clean_accuracy": 0.9}])
    write_report(read_run(tmp_path, "plain", []))
    assert (tmp_path / "report.png").stat().st_size > 1000


def test_the_summary_shows_protocol_and_changes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(run)
    shown = capsys.readouterr().out
    assert "77.50%" in shown and "gini_index" in shown and "better" in shown and str(run.folder) in shown


@pytest.mark.parametrize("channels", [1, 3])
def test_panels_come_back_and_draw_in_grey_and_colour(channels: int, tmp_path: Path) -> None:
    picture = save_panel(panel(0.3, channels), tmp_path, 7)
    assert picture.name == "epoch_007.png" and imread(picture).std() > 0.01
    assert np.array_equal(load_panels(tmp_path)[7]["map/gradient"], panel(0.3, channels)["map/gradient"])

"""The tables of docs/results.md: evaluations, explanations and epochs of several models side by side."""

from __future__ import annotations

import csv
import importlib
import json
import statistics
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(params=["ordering", "claims", "overfitting", "radius_correlation", "attribution_robustness"])
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(request.param)


def evaluation(folder: Path, broken_by: list[str], seconds: float) -> Path:
    folder.mkdir()
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["index", "threat", "broken_by"])
        writer.writerows([i, "linf ε=0.3", by] for i, by in enumerate(broken_by))
    (folder / "summary.json").write_text(
        json.dumps({"turns": [{"seconds": seconds}, {"seconds": 1}]}), encoding="utf-8"
    )
    return folder


def explanation(folder: Path, gini: float, error: float = 0.5) -> Path:
    folder.mkdir()
    row = {"metric": "gini_index", "attribution": "gradient", "higher_is_better": True}
    points = [{"rows": []}, {"rows": [{**row, "mean": gini, "standard_error": error}]}]
    (folder / "explanation_card.json").write_text(json.dumps({"points": points}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("script", ["ordering"], indirect=True)
def test_evaluations_count_alone_and_together_with_those_above(script: ModuleType, tmp_path: Path) -> None:
    weak = evaluation(tmp_path / "weak", ["clean", "pgd", "", ""], 2)
    strong = evaluation(tmp_path / "strong", ["clean", "", "apgd", ""], 3)
    first, second = script.rows_of([weak, strong])
    assert (first["alone %"], first["with those above %"], first["broken only above"]) == (50, 50, 0)
    assert (second["alone %"], second["with those above %"], second["broken only above"]) == (50, 25, 1)
    assert [first["seconds"], second["seconds"]] == [3, 4]


@pytest.mark.parametrize("script", ["claims"], indirect=True)
def test_explanations_are_averaged_over_the_seeds(script: ModuleType, tmp_path: Path, capsys) -> None:
    folders = [explanation(tmp_path / f"run{i}", value) for i, value in enumerate((0.2, 0.4, 0.9))]
    figure = tmp_path / "figure.png"
    script.main([f"a={folders[0]},{folders[1]}", f"b={folders[2]}", "--figure", str(figure)])
    said = capsys.readouterr().out
    assert f"| gini_index ↑ gradient | 0.3 ± {statistics.stdev((0.2, 0.4)):.2g} | 0.9 ± 0.5 |" in said
    assert figure.stat().st_size > 1000


@pytest.mark.parametrize("script", ["overfitting"], indirect=True)
def test_the_first_epoch_of_an_overfitted_run_is_found(script: ModuleType, tmp_path: Path, capsys) -> None:
    for name, multi in {"fgsm": (0.5, 0.41, 0.1), "pgd": (0.5, 0.6, 0.5)}.items():
        (tmp_path / name).mkdir()
        with (tmp_path / name / "metrics.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["epoch", "val/single_step_accuracy", "val/multi_step_accuracy"])
            writer.writerows([epoch, 0.7, value] for epoch, value in enumerate(multi))
    figure = tmp_path / "figure.png"
    script.main([f"FGSM={tmp_path / 'fgsm'}", f"PGD={tmp_path / 'pgd'}", "--figure", str(figure)])
    said = capsys.readouterr().out
    assert "| FGSM | 70 | 10 | 50 | 2 |" in said
    assert "| PGD | 70 | 50 | 60 | none |" in said
    assert figure.stat().st_size > 1000


def samples(folder: Path, columns: dict[str, list[object]]) -> Path:
    folder.mkdir()
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return folder


@pytest.mark.parametrize("script", ["radius_correlation"], indirect=True)
def test_radii_are_compared_on_shared_images_and_a_wrong_image_has_none(
    script: ModuleType, tmp_path: Path, capsys
) -> None:
    index = list(range(10))
    radius = [*range(1, 10), 100]  # the last of an image that is wrong
    head = {"index": index, "label": [1] * 10}
    proven = samples(tmp_path / "proofs", {**head, "clean_prediction": [1] * 9 + [2], "radius": radius})
    values = {"falls": [*range(9, 0, -1), 10], "constant": ["" if i == 3 else 7 for i in index]}
    explained = samples(tmp_path / "values", {**head, "prediction": [1] * 10, **values})
    script.main([f"net={proven},{explained}"])
    said = capsys.readouterr().out
    assert "| falls | -1.00 (-1.00 – -1.00), 10 |" in said
    assert "| constant |  |" in said


def accuracies(file: Path, **values: float) -> None:
    file.parent.mkdir(parents=True)
    results = [
        {"quantity": f"test/{name}", "value": value, "interval_95": [value - 0.05, value + 0.05]}
        for name, value in values.items()
    ]
    file.write_text(json.dumps({"results": results}), encoding="utf-8")


@pytest.mark.parametrize("script", ["attribution_robustness"], indirect=True)
def test_what_is_measured_already_is_tabled_and_drawn(script: ModuleType, tmp_path: Path, capsys, monkeypatch) -> None:
    row = {"metric": "topk_attacked", "attribution": "integrated_gradients", "higher_is_better": True}
    for name, kept in {"ssr": 0.5, "ssr_3": 0.7}.items():
        folder = tmp_path / f"mnist_{name}"
        accuracies(folder / "bundle/config.json", clean_accuracy=0.9, robust_accuracy=0.6)
        accuracies(folder / "autoattack/summary.json", clean_accuracy=0.8, robust_accuracy=0.3)
        card = folder / "top_200/explanation_card.json"
        card.parent.mkdir()
        points = [{"rows": [{**row, "mean": kept, "standard_error": 0.02}]}]
        card.write_text(json.dumps({"points": points}), encoding="utf-8")
        explanation(folder / "maps", gini=0.4)
    figure = tmp_path / "figure.png"
    script.main(["--data", "mnist", "--only", "ssr", "ssr_3", "--output", str(tmp_path), "--figure", str(figure)])
    said = capsys.readouterr().out
    assert "| ssr | 90 ± 5 | 60 ± 5 | 30 ± 5 | 0.5 ± 0.02 | 0.4 ± 0.5 |" in said
    assert "| ssr_3 | 90 ± 5 | 60 ± 5 | 30 ± 5 | 0.7 ± 0.02 | 0.4 ± 0.5 |" in said
    assert figure.stat().st_size > 1000
    (folder / "autoattack/summary.json").unlink()  # this one is measured again
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(script, "command", lambda *arguments: commands.append(arguments))
    with pytest.raises(FileNotFoundError):
        script.main(["--data", "mnist", "--only", "ssr_3", "--output", str(tmp_path)])
    (command,) = commands
    assert command[:3] == ("-m", "xrobust.evaluate", "attack=autoattack_standard")
    assert f"output={folder / 'autoattack'}" in command

"""train.py as a user runs it, on real digits: everything a run must leave behind."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from command import ROOT, here, kill, only_run, refusal, train
from conf_walk import WITHOUT_METRICS
from wandb_file import items, records

import xrobust

QUICK = ["data=digits", "threat.eps=0.1", "logger=csv"]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    cwd = tmp_path_factory.mktemp("run")
    done = train("data=digits", "threat.eps=0.1", "trainer.max_epochs=2", "logger=wandb_offline", cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done, only_run(cwd)


def test_a_run_leaves_everything_behind(finished) -> None:
    _, folder = finished
    for name in (
        "config.yaml",
        "metrics.csv",
        "report.html",
        "report.png",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "panels/epoch_000.png",
        "panels/epoch_001.png",
        "bundle/model.safetensors",
        "bundle/config.json",
        "bundle/README.md",
    ):
        assert (folder / name).stat().st_size > 100, name
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert not list(folder.rglob("*.partial"))


def test_metrics_csv_has_one_row_an_epoch_with_accuracies_and_explanations(finished) -> None:
    rows = table(finished[1])
    assert [float(row["epoch"]) for row in rows] == [0, 1]
    for row in rows:
        assert 0 <= float(row["val/robust_accuracy"]) <= float(row["val/clean_accuracy"]) <= 1
        assert float(row["train/loss"]) > 0
        assert row["explain/complexity/gini_index/gradient"]
        assert float(row["explain/complexity/gini_index/gradient/valid"]) == 1


def test_the_terminal_shows_results_with_protocol_changes_and_the_folder(finished) -> None:
    done, folder = finished
    for words in ("test/robust_accuracy", "steps", "first", "last", "gini_index", str(folder)):
        assert words in done.stdout, words
    assert "Traceback" not in done.stderr


def test_the_bundle_gives_the_same_logits_as_the_checkpoint(finished, digits) -> None:
    folder = finished[1]
    bundle, checkpoint = xrobust.load(folder / "bundle"), xrobust.load(folder / "checkpoints/best.ckpt")
    with torch.no_grad():
        torch.testing.assert_close(bundle(digits[0]), checkpoint(digits[0]), rtol=0, atol=1e-6)


def test_the_bundle_states_its_results_with_their_protocol(finished) -> None:
    config = json.loads((finished[1] / "bundle/config.json").read_text())
    clean, robust = config["results"]
    assert robust["protocol"]["attack"]["steps"] == 40 and robust["protocol"]["attack"]["threat"]["eps"] == "1/10"
    assert robust["n"] == clean["n"] == 359 and robust["value"] <= clean["value"]
    assert robust["interval_95"][0] < robust["value"] < robust["interval_95"][1]


def test_the_page_is_self_contained(finished) -> None:
    page = (finished[1] / "report.html").read_text()
    assert "data:image/webp;base64," in page and "http" not in page.replace("http-equiv", "")


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path: Path, monkeypatch, capsys) -> None:
    # Without a time budget every epoch measures everything, so that all numbers can be compared.
    every_epoch = ["callbacks.explanation_quality.budget=null", "callbacks.attribution_panels.every_n_epochs=1"]
    measured = [
        "metrics=[gini_index,average_sensitivity,topk_adversarial,topk_noise]",
        "metrics@card_metrics=[gini_index]",
    ]
    overrides = [*QUICK, "trainer.max_epochs=3", *every_epoch, *measured]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    here("train.py", *overrides)
    whole = only_run(tmp_path / "whole")

    second_panel = partial(tmp_path.glob, "killed/runs/*/panels/epoch_001.png")
    kill(str(ROOT / "train.py"), *overrides, cwd=tmp_path / "killed", once=lambda: list(second_panel()))
    killed = only_run(tmp_path / "killed")
    assert not (killed / "bundle").exists()

    monkeypatch.chdir(tmp_path / "killed")
    with warnings.catch_warnings(record=True) as told:
        here("train.py", *overrides, f"resume={killed}")
    assert "is not empty" not in capsys.readouterr().err + "".join(str(warning.message) for warning in told)
    assert only_run(tmp_path / "killed") == killed
    weights = [xrobust.load(run / "checkpoints/last.ckpt").state_dict() for run in (whole, killed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    tables = [table(run) for run in (whole, killed)]
    assert [row["epoch"] for row in tables[1]] == ["0", "1", "2"]
    for row, again in zip(*tables, strict=True):
        for quantity in row.keys() - {"explain/seconds"}:
            assert row[quantity] == again[quantity], (row["epoch"], quantity)
    results = [json.loads((run / "bundle/config.json").read_text())["results"] for run in (whole, killed)]
    assert results[0] == results[1]


def test_resuming_with_another_configuration_is_refused(finished, tmp_path: Path, monkeypatch, capsys) -> None:
    overrides = [*QUICK, "trainer.max_epochs=2", "threat.eps=0.2", f"resume={finished[1]}"]
    line = refusal(*overrides, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert "these differ" in line and "threat.eps" in line
    elsewhere = [*QUICK, "trainer.max_epochs=2", f"resume={finished[1]}", "hydra.run.dir=elsewhere"]
    line = refusal(*elsewhere, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert "goes on in its own folder, not in" in line and "elsewhere" in line


def test_a_run_without_its_best_epoch_is_not_resumed(finished, tmp_path: Path, monkeypatch, capsys) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished[1], folder)
    (folder / "checkpoints/best.ckpt").unlink()
    given = ["data=digits", "threat.eps=0.1", "trainer.max_epochs=2", "logger=csv", f"resume={folder}"]
    line = refusal(*given, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert "best.ckpt, the best epoch so far, is missing" in line


def test_the_best_checkpoint_is_evaluated_after_training(finished, tmp_path: Path) -> None:
    """`evaluate` may differ when a run is resumed, so that the evaluation can follow later."""
    folder = tmp_path / "run"
    shutil.copytree(finished[1], folder)
    chosen = ["evaluate.attack=autoattack_fast", "evaluate.limit=40", "evaluate.check_images=20"]
    overrides = ["data=digits", "threat.eps=0.1", "trainer.max_epochs=2", "logger=wandb_offline", f"resume={folder}"]
    done = train(*overrides, "evaluate.after_fit=true", *chosen, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    evaluation = folder / "evaluation/autoattack_fast_linf_0.1"
    summary = json.loads((evaluation / "summary.json").read_text())
    robust = summary["results"][1]
    assert robust["n"] == 40 and robust["protocol"]["attack"]["threat"]["eps"] == "1/10"
    recorded = json.loads((folder / "bundle/config.json").read_text())["results"]
    assert [r["n"] for r in recorded] == [359, 359, 40, 40], "the test's results and the evaluation's"
    page = (folder / "report.html").read_text()
    assert "40" in page and page.count("test/robust_accuracy") == 2
    offline = b"".join(file.read_bytes() for file in folder.glob("wandb/offline-run-*/*.wandb"))
    assert b"evaluation/warning_count" in offline and b"evaluation/robust_accuracy/linf_" in offline


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("attack=autoatack_fast", ["evaluate.attack=autoatack_fast", "did you mean 'autoattack_fast'"]),
        ("threats=[linf_0_7]", ["evaluate.threat=linf_0_7", "linf_0_2"]),
        ("limmit=5", ["evaluate.limmit", "did you mean 'evaluate.limit'"]),
        ("limit=0", ["limit", "at least 1"]),
    ],
)
def test_a_mistake_in_the_final_evaluation_ends_before_training(
    override: str, words: list[str], tmp_path: Path, monkeypatch, capsys
) -> None:
    overrides = [*QUICK, "evaluate.after_fit=true", f"evaluate.{override}"]
    line = refusal(*overrides, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert all(word in line for word in words), line


def test_the_explanation_card_is_in_the_run_the_bundle_and_the_report(finished) -> None:
    folder = finished[1]
    card = json.loads((folder / "explanation_card.json").read_text())
    assert [point["number"] for point in card["points"]] == list(range(1, 13))
    assert all(point["rows"] or point["about_methods"] for point in card["points"]), "every question is answered"
    assert card["protocol"]["split"] == "validation" and card["accuracies"][1]["quantity"] == "test/robust_accuracy"
    assert json.loads((folder / "bundle/config.json").read_text())["explanation_card"] == card
    for file in ("bundle/README.md", "report.html", "explanation_card.md"):
        text = (folder / file).read_text()
        assert "Explanation card" in text and "Class discrimination" in text, file
    offline = b"".join(file.read_bytes() for file in folder.glob("wandb/offline-run-*/*.wandb"))
    assert b"robustness_and/explain/complexity/gini_index/gradient" in offline and b"explanation_card" in offline


def test_wandb_holds_configuration_steps_pictures_tables_and_the_bundle_with_its_data(finished) -> None:
    folder = finished[1]
    written = list(records(folder))
    config = {k: v for r in written if r.HasField("config") for k, v in items(r.config.update).items()}
    bundle = json.loads((folder / "bundle/config.json").read_text())
    assert config["defense"]["_target_"].startswith("xrobust.defenses.") and config["seed"] == 0
    assert config["data_version"] == bundle["data"] and len(bundle["data"]["sha256"]) == 64

    steps = [items(r.history.item) for r in written if r.HasField("history")]
    logged = {key for step in steps for key in step}
    for row in table(folder):
        epoch = next(s for s in steps if s.get("epoch") == int(row["epoch"]) and "val/robust_accuracy" in s)
        for key in ("val/robust_accuracy", "explain/complexity/gini_index/gradient"):
            assert epoch[key] == pytest.approx(float(row[key])), key
    assert {"train/loss", "test/robust_accuracy", "trainer/global_step"} <= logged

    kept = [(folder / "wandb").glob(f"offline-run-*/files/{f.path}") for r in written for f in r.files.files]
    pictures = [file for found in kept for file in found if file.suffix == ".png"]
    assert len(pictures) == 2 and all(file.read_bytes().startswith(b"\x89PNG") for file in pictures)
    assert any(key.startswith("robustness_and/") for key in logged) and any("explanation_card" in key for key in logged)

    (model,) = (r.artifact for r in written if r.HasField("artifact") and r.artifact.type == "model")
    metadata = json.loads(model.metadata)
    assert metadata["data"] == bundle["data"] and metadata["sha256"] == bundle["sha256"]
    assert metadata["results"] == bundle["results"]
    assert {entry.path for entry in model.manifest.contents} >= {"model.safetensors", "config.json", "README.md"}
    summary = {k: v for r in written if r.HasField("summary") for k, v in items(r.summary.update).items()}
    best = max(float(row["val/robust_accuracy"]) for row in table(folder))
    assert summary["val/robust_accuracy"]["max"] == pytest.approx(best)


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "ray"])
def test_the_runs_of_a_multirun_have_folders_of_their_own_and_one_group(launcher: str, tmp_path: Path) -> None:
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    few = ["trainer.max_epochs=1", *WITHOUT_METRICS, "callbacks=[best_checkpoint,history]"]
    jobs = [f"hydra/launcher={launcher}", "defense=standard", "seed=0,1"]
    done = train("-m", "data=digits", "logger=wandb_offline", *few, *jobs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (multirun,) = (tmp_path / "runs/multirun").iterdir()
    runs = sorted(multirun.glob("[0-9]"))
    assert [table(run)[-1]["epoch"] for run in runs] == ["0", "0"] and all((run / "bundle").is_dir() for run in runs)
    assert len({(run / "wandb_id").read_text() for run in runs}) == 2
    for run in runs:
        (record,) = run.glob("wandb/offline-run-*/*.wandb")
        assert multirun.name.encode() in record.read_bytes()

"""python -m xrobust.smooth as a user runs it: a bundle, a kill, a second try, mistakes."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pytest
from command import in_process, kill
from torch import nn

from xrobust import smooth as command
from xrobust.export.bundle import save_bundle
from xrobust.export.loading import read_config

ARCHITECTURE = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}
QUICK = ["bundle=run/bundle", "data=digits", "sigma=0.25", "n=400", "limit=20"]
RADII = "radii=[0,0.25]"


@pytest.fixture
def run(tmp_path: Path, digits_model: nn.Module, monkeypatch: pytest.MonkeyPatch):
    """The command in this process, beside a bundle."""
    monkeypatch.chdir(tmp_path)
    names = [str(i) for i in range(10)]
    save_bundle("run/bundle", digits_model, ARCHITECTURE, class_names=names, training={"threat": None})
    return in_process(command, monkeypatch)


def table(file: Path, delimiter: str) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_certificates_leave_everything_behind_also_in_the_bundle(run, capsys) -> None:
    run(*QUICK, RADII)
    folder = Path("run/smoothing/gaussian_0.25_l2_n400")
    written, rows, cohen = summary(folder), table(folder / "samples.csv", ","), table(folder / "cohen.tsv", "\t")
    assert list(cohen[0]) == ["idx", "label", "predict", "radius", "correct", "time"] and len(cohen) == len(rows) == 20
    right = [row for row in cohen if row["correct"] == "1"]
    assert all(row["label"] == row["predict"] for row in right)
    radii = [float(row["radius"]) for row in right]
    assert written["average_certified_radius"] == pytest.approx(sum(radii) / 20) and min(radii) > 0
    at_0, at_quarter = written["results"]
    assert at_0["correct"] == len(right) == written["right"]
    assert at_quarter["correct"] == sum(radius >= 0.25 for radius in radii) < at_0["correct"]
    assert written["right"] + written["wrong"] + written["abstained"] == 20
    protocol = at_quarter["protocol"]["certifier"]
    assert protocol["noise"] == {"name": "GaussianNoise", "sigma": 0.25} and protocol["radius"] == 0.25
    assert (protocol["n0"], protocol["n"], protocol["alpha"], at_quarter["protocol"]["seed"]) == (100, 400, 0.001, 0)
    assert (folder / "curve.png").stat().st_size > 1000 and (folder / "config.yaml").is_file()
    assert [row["quantity"] for row in read_config("run/bundle")["results"]] == ["test/certified_accuracy"] * 2
    assert "smoothing, radius 0.25: Certify (l2" in Path("run/bundle/README.md").read_text(encoding="utf-8")
    assert "Average certified radius" in capsys.readouterr().out


def test_one_radius_takes_fewer_samples_and_agrees(run) -> None:
    run(*QUICK, "radius=0.25", "n=2000")
    run(*QUICK, RADII, "n=2000")
    sequential = summary(Path("run/smoothing/gaussian_0.25_l2_n2000_at_0.25"))
    fixed = summary(Path("run/smoothing/gaussian_0.25_l2_n2000"))
    assert sequential["saved"] > 0.5 and fixed["saved"] == 0
    assert abs(sequential["results"][0]["correct"] - fixed["results"][1]["correct"]) <= 1
    assert "average_certified_radius" not in sequential


def test_a_killed_run_goes_on_where_it_was(run, tmp_path: Path) -> None:
    overrides = [*QUICK, "n=4000", "save_every=2"]
    batches = partial(tmp_path.glob, "killed/batches/0*.npz")
    arguments = ["-m", "xrobust.smooth", *overrides, "output=killed"]
    kill(*arguments, cwd=tmp_path, once=lambda: len(list(batches())) > 1)
    kept = {file: file.stat().st_mtime_ns for file in batches()}
    assert len(kept) < 10 and not (tmp_path / "killed/summary.json").exists()

    run(*overrides, "output=killed", "save_every=5", "batch_size=300")
    run(*overrides, "output=whole")
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    killed, whole = (table(tmp_path / name / "samples.csv", ",") for name in ("killed", "whole"))
    assert [{**row, "seconds": ""} for row in killed] == [{**row, "seconds": ""} for row in whole]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("noise=gausian", "did you mean 'gaussian'"),
        ("norm=l3", "Certify.norm must be one of 'linf', 'l2', 'l1'"),
        ("alpha=0.9", "Certify.alpha must lie between 0 and 0.5"),
        ("sigma=0", "GaussianNoise.sigma must be above 0"),
        ("radius=3", "CertifyAt.at must be below"),
        ("limit=100000", "limit=100000 are more images than there are: 359"),
        ("output=taken", "output=taken is a file, it must be a folder"),
        ("output=taken/below", "taken, which is a file"),
        ("radii=[-1]", "smooth.radii must be at least 0"),
        ("save_every=0", "smooth.save_every must be an integer of at least 1"),
    ],
)
def test_mistakes_are_one_sentence(run, capsys, override: str, words: str) -> None:
    Path("taken").write_text("a file")
    with pytest.raises(SystemExit) as left:
        run(*QUICK, override)
    assert left.value.code == 2 and words in capsys.readouterr().err


def test_help_is_that_of_the_command(run, capsys) -> None:
    run("--help")
    said = capsys.readouterr().out
    assert said.startswith("# Smoothed classifiers: ") and "noise: gaussian, uniform" in said
    assert "sigma: 0.5  # the standard deviation" in said and "autoattack" not in said and "Hydra" not in said


def test_one_radius_and_several_are_refused_together(run, capsys) -> None:
    with pytest.raises(SystemExit):
        run(*QUICK, RADII, "radius=0.25")
    assert "radius=0.25 asks for one radius, so radii=[0.0, 0.25] cannot be given, too" in capsys.readouterr().err

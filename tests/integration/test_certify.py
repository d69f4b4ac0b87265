"""python -m xrobust.certify as a user runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command import in_process
from torch import nn

from xrobust import certify as command
from xrobust.export.bundle import save_bundle
from xrobust.export.loading import read_config
from xrobust.models import SmallCNN

ARCHITECTURE = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}
QUICK = ["bundle=run/bundle", "data=digits", "threat.eps=0.02", "attack=pgd_10_worst", "limit=20"]


@pytest.fixture
def run(tmp_path: Path, digits_model: nn.Module, monkeypatch: pytest.MonkeyPatch):
    """The command in this process, beside a bundle."""
    monkeypatch.chdir(tmp_path)
    names = [str(i) for i in range(10)]
    save_bundle("run/bundle", digits_model, ARCHITECTURE, class_names=names, training={"threat": None})

    return in_process(command, monkeypatch)


def test_a_certification_leaves_everything_behind_also_in_the_bundle(run, capsys) -> None:
    run(*QUICK, "certifier=cascade_fast")
    folder = Path("run/certification/cascade_fast_linf_0.02")
    written = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    clean, robust, certified = written["results"]
    assert certified["quantity"] == "test/certified_accuracy" and certified["n"] == 20
    assert 0 < certified["correct"] <= robust["correct"] <= clean["correct"]
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(row["status"] == "certified" for row in rows) == certified["correct"] and len(rows) == 20
    for name in ("config.yaml", "fingerprint.json", "counter_examples.npz"):
        assert (folder / name).is_file(), name
    assert [row["quantity"] for row in read_config("run/bundle")["results"]] == ["test/certified_accuracy"]
    card = Path("run/bundle/README.md").read_text(encoding="utf-8")
    assert "test/certified_accuracy" in card and "Cascade (linf ε=0.02" in card
    assert "Who decided" in capsys.readouterr().out
    # The same command reads what is there; another certifier needs another folder.
    before = {file: file.stat().st_mtime_ns for file in folder.glob("batches/*.npz")}
    run(*QUICK, "certifier=cascade_fast")
    assert before == {file: file.stat().st_mtime_ns for file in folder.glob("batches/*.npz")}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("threat=l2_1_5", "threat.norm must be one of 'linf'"),
        ("certifier=crwn", "did you mean 'crown'"),
        ("split=train", "split must be one of"),
        (f"output={__file__}", "is a file, it must be a folder"),
        ("output=/proc/below", "nothing can be written to /"),
        ("certifier=[ibp,crown]", "certifier takes one choice"),
        ("+zz=1", "zz is not a key of this configuration"),
        ("+certifier.stpes=3", "certifier.stpes"),
        ("attack.threat={_target_:xrobust.threat.ThreatModel,norm:linf,eps:0.01}", "the certifier is for linf ε=0.1"),
        ("attack.targeted=true", "must look for images that the model gets wrong"),
    ],
)
def test_mistakes_are_one_sentence(run, capsys, override: str, words: str) -> None:
    with pytest.raises(SystemExit) as left:
        run(*(each for each in QUICK if not each.startswith("threat")), override)
    assert left.value.code == 2 and words in capsys.readouterr().err


def test_a_bundle_that_cannot_be_changed_is_certified_all_the_same(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def why_not_writable(folder: Path) -> str | None:
        return "Permission denied" if folder.name == "bundle" else None

    monkeypatch.setattr("xrobust.command.why_not_writable", why_not_writable)
    before = read_config("run/bundle")
    with pytest.warns(UserWarning, match=r"run/bundle stays as it is \(Permission denied\): the results are in out"):
        run(*QUICK, "certifier=ibp", "output=out")
    assert read_config("run/bundle") == before and Path("out/summary.json").is_file()


def test_a_certifier_with_radii_leaves_the_certified_accuracy_at_all_of_them(run, capsys) -> None:
    run(*QUICK, "threat=l2_0_3", "certifier=lipschitz")
    folder = Path("run/certification/lipschitz_l2_0.02")
    written = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as stream:
        radii = [float(row["radius"] or 0) for row in csv.DictReader(stream)]
    certified = sum(radius > 0.02 for radius in radii)
    assert 0 < certified == written["statuses"]["certified"]
    assert written["radii"]["average_certified_radius"] == pytest.approx(sum(radii) / 20)
    with (folder / "radii.csv").open(newline="", encoding="utf-8") as stream:
        first, *_, last = csv.DictReader(stream)
    assert float(first["certified_accuracy"]) >= certified / 20 and float(last["radius"]) == pytest.approx(max(radii))
    assert (folder / "radii.png").is_file() and "Certified accuracy at other radii" in capsys.readouterr().out


def test_a_network_that_is_not_supported_is_refused_before_the_attack(run, capsys) -> None:
    architecture = {**ARCHITECTURE, "activation": "hardshrink"}
    model = SmallCNN(**{key: value for key, value in architecture.items() if key != "_target_"})
    save_bundle("other", model, architecture, class_names=list("0123456789"), training={"threat": None})
    with pytest.raises(SystemExit) as left:
        run(*QUICK, "bundle=other", "certifier=cascade_fast", "output=out")
    assert left.value.code == 2 and "hardshrink" in capsys.readouterr().err.lower() and not Path("out").exists()

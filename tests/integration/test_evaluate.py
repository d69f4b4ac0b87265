"""python -m xrobust.evaluate as a user runs it: a bundle, a kill, a second try, a foreign network, mistakes."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from command import in_process, kill
from conf_walk import choices, composed
from torch import nn

from xrobust import evaluate as command
from xrobust.data import Digits
from xrobust.export.bundle import save_bundle
from xrobust.export.loading import read_config
from xrobust.models import SmallCNN

ARCHITECTURE = {"num_classes": 10, "in_channels": 1, "image_size": 8}
QUICK = ["data=digits", "threat=linf_0_1", "check_images=30"]
CHEAP = ["surrogate=run/bundle", "limit=100", "check.black_box_wins.queries=20"]
PGD = ["attack=pgd_10_worst", "check=[]"]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A model of the digits that the data module trains on."""
    loader = Digits(**{"num_classes": 10, "channels": 1, "image_size": 8}).train_dataloader()
    x, y = loader.images.float() / 255, loader.labels
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallCNN(**ARCHITECTURE)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        for batch in torch.randperm(len(x), generator=generator).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture
def bundle(tmp_path: Path, trained: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle in a folder of its own, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    architecture = {"_target_": "xrobust.models.SmallCNN", **ARCHITECTURE}
    names = [str(i) for i in range(10)]
    training = {"threat": {"norm": "linf", "eps": 0.1}}
    return save_bundle(tmp_path / "run" / "bundle", trained, architecture, class_names=names, training=training)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    return in_process(command, monkeypatch)


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_an_evaluation_leaves_everything_behind_also_in_the_bundle(bundle: Path, run, capsys) -> None:
    run("bundle=run/bundle", *QUICK, "attack=autoattack_fast", "eps=[0,1/50]", *CHEAP)
    folder = bundle.parent / "evaluation" / "autoattack_fast_linf_0.1"
    for name in ("samples.csv", "summary.json", "config.yaml", "fingerprint.json", "curve.png", "panel.png"):
        assert (folder / name).stat().st_size > 100, name
    written = summary(folder)
    clean, robust = written["results"]
    assert 0 < robust["value"] < clean["value"] and robust["n"] == clean["n"] == 100
    assert robust["interval_95"][0] < robust["value"] < robust["interval_95"][1]
    assert robust["protocol"]["attack"]["threat"]["eps"] == "1/10"
    assert list(robust["protocol"]["attack"]["attacks"]) == ["apgd_ce", "apgd_targeted", "square"]
    counts = [point["correct"] for point in written["curves"]["linf ε=0.1"]]
    assert counts == sorted(counts, reverse=True) and counts[0] == clean["correct"] and counts[-1] == robust["correct"]
    assert {check["check"] for check in written["checks"]} == set(choices("check")), "every check was made"
    rows = table(folder)
    labels = [row["label"] for row in rows if row["threat"] == "linf ε=0.1"]
    assert len(labels) == 100 and {labels.count(str(digit)) for digit in range(10)} == {10}, "balanced"

    recorded = read_config(bundle)["results"]
    assert [(r["quantity"], r["correct"]) for r in recorded] == [(r["quantity"], r["correct"]) for r in [clean, robust]]
    assert "test/robust_accuracy" in (bundle / "README.md").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    for words in ("test/robust_accuracy", "apgd_targeted", "standing", "seconds", "Checks for gradient masking: 11"):
        assert words in said, words
    assert not list(bundle.parent.rglob("*.partial")) and not (bundle.parent.parent / "outputs").exists()


def test_a_killed_evaluation_goes_on_where_it_was(bundle: Path, run, tmp_path: Path) -> None:
    overrides = ["bundle=run/bundle", *QUICK, *PGD, "attack.steps=100"]
    batches = partial(tmp_path.glob, "killed/batches/0*.npz")
    arguments = ["-m", "xrobust.evaluate", *overrides, "batch_size=20", "output=killed"]
    kill(*arguments, cwd=tmp_path, once=lambda: len(list(batches())) > 1)
    kept = {file: file.stat().st_mtime_ns for file in batches()}
    assert len(kept) < 18 and not (tmp_path / "killed/summary.json").exists()

    run(*overrides, "output=killed")
    run(*overrides, "output=whole")
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    assert summary(tmp_path / "killed")["results"] == summary(tmp_path / "whole")["results"]


def test_several_threat_models_count_together(bundle: Path, run) -> None:
    run("bundle=run/bundle", "data=digits", *PGD, "threats=[linf_0_1,l2_128_255]", "split=validation", "limit=60")
    folder = bundle.parent / "evaluation" / "pgd_10_worst_linf_0.1_l2_128_255"
    _, linf, l2, union = summary(folder)["results"]
    assert [r["quantity"] for r in (linf, l2, union)] == ["val/robust_accuracy"] * 2 + ["val/union_robust_accuracy"]
    assert 0 < union["correct"] <= min(linf["correct"], l2["correct"])
    rows = table(folder)
    standing = {
        t: {r["index"] for r in rows if r["threat"] == t and not r["broken_by"]} for t in ("linf ε=0.1", "l2 ε=128/255")
    }
    assert len(set.intersection(*standing.values())) == union["correct"]


def test_a_foreign_network_with_its_weights(trained: nn.Module, tmp_path: Path, run, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(trained.state_dict(), "mine.pt")
    run("model=small_cnn", "weights=mine.pt", *QUICK, *PGD, "limit=50")
    (result,) = [
        r for r in summary(tmp_path / "evaluation/mine_pgd_10_worst_linf_0.1")["results"] if "clean" in r["quantity"]
    ]
    assert result["value"] > 0.8


def test_the_model_of_an_untrained_network_is_warned_about(tmp_path: Path, run, monkeypatch, capsys) -> None:
    """Constant logits: no gradient, and no image changes the prediction."""
    monkeypatch.chdir(tmp_path)
    model = SmallCNN(**ARCHITECTURE)
    nn.init.zeros_(model.layers.linear2.weight)
    architecture = {"_target_": "xrobust.models.SmallCNN", **ARCHITECTURE}
    save_bundle("dead", model, architecture, class_names=list("0123456789"), training={})
    run("bundle=dead", *QUICK, "attack=fgsm", "check=[unusable_gradients,unbounded_attack_fails]")
    card = Path("dead/README.md").read_text(encoding="utf-8")
    assert "### Warnings" in card and "unusable_gradients" in card and "unbounded_attack_fails" in card
    assert "of which 2 warn" in capsys.readouterr().out


def test_a_surrogate_for_other_images_is_refused_before_the_attack(bundle: Path, run, capsys) -> None:
    larger = {**ARCHITECTURE, "image_size": 12}
    architecture = {"_target_": "xrobust.models.SmallCNN", **larger}
    save_bundle("larger", SmallCNN(**larger), architecture, class_names=list("0123456789"), training={})
    with pytest.raises(SystemExit):
        run("bundle=run/bundle", *QUICK, "surrogate=larger", "output=out")
    assert "error: surrogate: the model does not accept images of shape (1, 8, 8)" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["bundle=nowhere"], ["nowhere", "no such bundle"]),
        (["bundle=run/bundle", "data=mnist5k"], ["does not accept", "(1, 28, 28)"]),
        (["bundle=run/bundle", "attack=autoatack_fast"], ["attack=autoatack_fast", "did you mean 'autoattack_fast'"]),
        (["bundle=run/bundle", "threats=[linf_0_7]"], ["threat=linf_0_7", "linf_0_2"]),
        (["bundle=run/bundle", "threats=[l2_1_5]", "threat.eps=3"], ["threats", "threat.eps=3"]),
        (["bundle=run/bundle", "limmit=3"], ["limmit", "did you mean 'limit'"]),
    ],
)
def test_a_mistake_ends_in_one_sentence(overrides: list[str], words: list[str], bundle: Path, run, capsys) -> None:
    before = sorted(bundle.parent.parent.rglob("*"))
    with pytest.raises(SystemExit) as end:
        run("data=digits", *PGD, *overrides)
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    assert all(word in lines[0] for word in words), lines[0]
    assert sorted(bundle.parent.parent.rglob("*")) == before or overrides[-1] == "data=mnist5k"


def test_another_protocol_in_the_same_folder_is_refused(bundle: Path, run, capsys) -> None:
    run("bundle=run/bundle", *QUICK, *PGD, "limit=20", "output=here")
    with pytest.raises(SystemExit):
        run("bundle=run/bundle", *QUICK, *PGD, "limit=20", "output=here", "attack.steps=11")
    assert "output=here holds another evaluation, which differs in attacks[0].steps" in capsys.readouterr().err


def test_without_a_choice_the_images_are_those_of_the_training(bundle: Path, trained: nn.Module, run) -> None:
    architecture = {"_target_": "xrobust.models.SmallCNN", **ARCHITECTURE}
    training = {"threat": None, "data": composed("data=digits")["data"]}
    own = save_bundle(Path("own/bundle"), trained, architecture, class_names=list("0123456789"), training=training)
    options = ["threat=linf_0_1", "limit=50", *PGD]
    run("bundle=run/bundle", "data=digits", *options)
    run(f"bundle={own}", *options)
    one, other = (summary(Path(place, "evaluation/pgd_10_worst_linf_0.1")) for place in ("run", "own"))
    assert one["results"] == other["results"]
    assert {row["protocol"]["data"] for row in one["results"]} == {
        Digits(num_classes=10, channels=1, image_size=8).identity("test")
    }
    assert Digits(num_classes=10, channels=1, image_size=8).identity("test") in Path("own/bundle/README.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("given", [["bundle=run/bundle"], ["model=small_cnn", "weights=run/bundle/model.safetensors"]])
def test_images_must_be_known(bundle: Path, given: list[str], run, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        run(*given, "threat=linf_0_1", *PGD)
    assert left.value.code == 2 and "data=… must be given" in capsys.readouterr().err

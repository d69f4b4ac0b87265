"""The comparison with other libraries: what it counts and judges, and that it runs without those libraries."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import PGD, DeepFool
from xrobust.errors import UserError
from xrobust.export.bundle import save_bundle
from xrobust.threat import ThreatModel

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LINF = ThreatModel("linf", "0.1")


@pytest.fixture
def attacks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The command as a module, without any of the other libraries."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("attacks")
    for library in module.PEERS:
        monkeypatch.setattr(library, "package", f"missing-{library.package}")
    return module


@pytest.fixture
def bundle(digits_model: nn.Module, tmp_path: Path) -> Path:
    architecture = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}
    data = {"_target_": "xrobust.data.Digits", "num_classes": 10, "channels": 1, "image_size": 8}
    names = [str(digit) for digit in range(10)]
    return save_bundle(tmp_path / "bundle", digits_model, architecture, class_names=names, training={"data": data})


def test_libraries_that_are_not_installed_are_left_out_and_named(
    attacks: ModuleType, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--bundle", str(bundle), "--images", "20", "--rounds", "2", "--only", "pgd", "nearest", "--linf", "0.1"]
    attacks.main([*given, "--output", str(tmp_path)])
    written = json.loads((tmp_path / "pgd.json").read_text())
    assert written["not installed"] == ["foolbox", "torchattacks", "pyautoattack", "ART"]
    assert written["images"] == 20 and 15 < written["attacked"] <= 20
    full, early = written["rows"][:2]
    assert full["library"] == early["library"] == "xrobust" and full["time, ours / theirs"] == 1
    assert full["passes/image"] == 80 > early["passes/image"]  # 40 steps forwards and backwards
    assert early["robust %"] <= full["robust %"] < 100 * written["attacked"] / 20
    with (tmp_path / "pgd.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(written["rows"]) == 4  # two budgets in two balls
    assert "| PGD-40 | linf ε=0.1 | xrobust |" in capsys.readouterr().out
    assert not (tmp_path / "nearest.json").exists()  # nothing to compare with


def test_a_mistake_is_one_sentence(attacks: ModuleType, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images must be an integer of at least 1, got 0"):
        attacks.main(["--bundle", str(bundle), "--images", "0"])
    with pytest.raises(UserError, match="not a bundle"):
        attacks.main(["--bundle", str(tmp_path)])


def test_passes_are_counted_forwards_and_backwards(
    attacks: ModuleType, digits_model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = digits[0][:10], digits[1][:10]
    measure = importlib.import_module("measure")
    counted = measure.Counted(digits_model)
    assert measure.run(lambda: PGD(threat=LINF, steps=3)(counted, x, y), counted).passes == 10 * 3 * 2
    with torch.no_grad():
        assert measure.run(lambda: counted(x), counted).passes == 10
    # For the images that are right, every candidate costs a pass backwards through the same logits.
    right = int((digits_model(x).argmax(1) == y).sum())
    one, all_nine = (
        measure.run(lambda k=k: DeepFool(threat=LINF, steps=1, candidates=k)(counted, x, y), counted).passes
        for k in (1, 9)
    )
    assert all_nine - one == 8 * right > 0


def test_an_attack_is_judged_inside_the_ball_and_by_a_fresh_prediction(
    attacks: ModuleType, digits_model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = digits[0][:50], digits[1][:50]
    measure = importlib.import_module("measure")
    clean = measure.standing(digits_model, LINF, x, x, y)
    other = x.roll(1, 0)  # other digits: far outside
    assert clean >= measure.standing(digits_model, LINF, other, x, y) > 25
    distance = measure.distances(digits_model, LINF, x, x, y)
    assert int(distance.isinf().sum()) == clean  # an image that is still right is no adversarial example
    assert (distance[distance.isfinite()] == 0).all()

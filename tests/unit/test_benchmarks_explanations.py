"""The benchmarks of explanation metrics: what they compare, what the clock sees, what they write."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from xrobust.attributions import Gradient
from xrobust.errors import UserError
from xrobust.export.bundle import save_bundle
from xrobust.metrics import ExplanationMetric, GiniIndex, Probe, RelativeRepresentationStability
from xrobust.threat import ThreatModel

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def explanations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("explanations")


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("metrics")


@pytest.fixture
def probe(digits: tuple[Tensor, Tensor], digits_model: nn.Module) -> Probe:
    x, y = digits[0][:20], digits[1][:20]
    threat = ThreatModel("linf", "0.1")
    return Probe(model=digits_model, x=x, y=y, index=torch.arange(20), method=Gradient(), threat=threat)


@pytest.fixture
def bundle(digits_model: nn.Module, tmp_path: Path) -> Path:
    architecture = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}
    data = {"_target_": "xrobust.data.Digits", "num_classes": 10, "channels": 1, "image_size": 8}
    names = [str(digit) for digit in range(10)]
    return save_bundle(tmp_path / "bundle", digits_model, architecture, class_names=names, training={"data": data})


class Slow(ExplanationMetric):
    """0, 1, 2, …, after 20 ms at its first call and 5 ms at the others; keeps what it has seen."""

    higher_is_better, group, cost = True, "complexity", "cheap"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, dict[str, Tensor]]] = []

    def per_sample(self, probe: Probe) -> Tensor:
        began = time.process_time()
        while time.process_time() - began < (0.005 if self.seen else 0.02):
            pass
        self.seen.append(("map" in vars(probe), dict(probe.shared)))
        return torch.arange(len(probe)).double()


def test_each_turn_has_the_map_and_nothing_else_and_the_first_one_only_warms_up(
    explanations: ModuleType, probe: Probe
) -> None:
    metric, calls = Slow(), []
    assert len(probe.logits) == 20

    def theirs() -> Tensor:
        calls.append(torch.rand(()).item())
        return torch.zeros(20)

    ours, other = explanations.take_turns(explanations.Line("", "", metric, theirs), probe, rounds=2)
    assert metric.seen == [(True, {})] * 3
    assert len(calls) == 3 and len(set(calls)) == 1  # the global generators are seeded anew
    assert 0.005 <= ours.seconds < 0.02 and other.seconds < ours.seconds


def test_equal_work_is_compared_image_by_image_and_defaults_by_their_means(explanations: ModuleType) -> None:
    line = explanations.Line("title", "setting", GiniIndex(), lambda: torch.zeros(0))
    ours = explanations.Timed(torch.tensor([0.0, 1.0, 2.0]), 0.1)
    crossed = explanations.Timed(torch.tensor([2.0, 1.0, 0.0]), 0.4)
    row = explanations.row_of_equal_work(line, ours, crossed)
    assert row["largest difference"] == 2 and row["value"] == 1 and row["times faster"] == pytest.approx(4)
    row = explanations.row_of_defaults(line, ours, explanations.Timed(torch.tensor([3.0, 3.0, 0.0]), 0.4))
    assert row["standard error"] == pytest.approx(3**-0.5)
    assert row["difference / error"] == pytest.approx(3**0.5)


def test_without_quantus_it_says_so(explanations: ModuleType, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UserError, match="quantus, which is not installed"):
        explanations.main(["--bundle", str(bundle)])
    with pytest.raises(UserError, match="rounds must be an integer of at least 1, got 0"):
        explanations.main(["--bundle", str(bundle), "--rounds", "0"])


def test_costs_are_written_for_the_suite_what_is_shared_and_each_metric(
    costs: ModuleType, bundle: Path, tmp_path: Path
) -> None:
    given = ["--images", "20", "--rounds", "1", "--only", "gini_index", "topk_attacked", "--output", str(tmp_path)]
    costs.main(["--bundle", str(bundle), *given])
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["shape"] == "1×8×8" and 15 < written["images"] <= 20
    ms = {row["quantity"]: row["ms"] for row in written["rows"]}
    assert list(ms)[-2:] == ["gini_index", "topk_attacked"]
    assert {"map", "logits", "adversarial", "attacked", "attacked_map"} <= set(ms)
    assert ms["topk_attacked"] < ms["attacked"]  # the attack is counted once, where it belongs
    assert sum(row["share %"] for row in written["rows"]) == pytest.approx(100)
    suite = json.loads((tmp_path / "every_epoch.json").read_text())["rows"]
    assert [row["metric"] for row in suite] == [*costs.composed()["metrics"], "all"]
    assert suite[-1]["ms"] == pytest.approx(sum(row["ms"] for row in suite[:-1]))


def test_what_a_metric_adds_to_a_probe_is_gone_at_its_next_measurement(costs: ModuleType, probe: Probe) -> None:
    assert probe.map is not None and probe.logits is not None
    twin = costs.like(probe)
    assert twin.map is probe.map and twin.logits is probe.logits
    RelativeRepresentationStability(samples=1).per_sample(twin)
    assert set(twin.shared) - set(probe.shared) == {"representation"}
    assert not costs.bare(probe).shared and "map" not in vars(costs.bare(probe))

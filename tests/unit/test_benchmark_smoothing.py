"""The benchmark of smoothing: both sides are measured on the same question, and the plain loop is Cohen's procedure."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_all_procedures_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    given = ["--images", "2", "--steps", "1", "--n0", "10", "--n", "100", "--radii", "0.05", "--batch", "50"]
    importlib.import_module("smoothing").main([*given, "--output", str(tmp_path)])
    rows = json.loads((tmp_path / "smoothing.json").read_text(encoding="utf-8"))["rows"]
    assert [row["procedure"] for row in rows] == ["plain loop", "CERTIFY", "sequential at 0.05"]
    assert rows[0]["times the plain loop"] == 1 and rows[0]["samples an image"] == rows[1]["samples an image"] == 110


def test_the_plain_loop_certifies_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    plain_certify = importlib.import_module("smoothing").plain_certify

    class Sure(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(10)[3].expand(len(x), 10)

    found, probability = plain_certify(Sure(), torch.zeros(1, 4, 4), 0.5, 10, 100, 0.001, 30)
    assert found == 3 and probability == pytest.approx(0.001 ** (1 / 100))

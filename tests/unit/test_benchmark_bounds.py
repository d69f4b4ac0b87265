"""The benchmark of bounds: it runs without the other library, and says so."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_without_auto_lirpa_our_own_costs_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setitem(sys.modules, "auto_LiRPA", None)
    given = ["--models", "dm_small", "--batch", "2", "--width", "0.1", "--rounds", "1", "--crown"]
    importlib.import_module("bounds").main([*given, "--output", str(tmp_path)])
    rows = json.loads((tmp_path / "bounds.json").read_text())["rows"]
    assert [row["bound"] for row in rows] == ["IBP", "CROWN-IBP", "CROWN"]
    assert all(row["ms"] > 0 and row["MiB"] >= 0 for row in rows)
    assert "auto_LiRPA cannot be imported here" in capsys.readouterr().out

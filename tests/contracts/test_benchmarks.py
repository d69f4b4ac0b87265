"""What a benchmark tells the commands is what they accept."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from conf_walk import composed

from xrobust.config.check import check_run

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_every_method_of_the_attribution_robustness_table_composes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("attribution_robustness")
    for overrides in script.METHODS.values():
        check_run(composed("data=mnist", "threat=linf_0_3", *overrides, *script.TRAINING))
    for command, told in script.MEASUREMENTS.values():
        check_run(composed("bundle=bundle", "threat=linf_0_3", *told, command=command))

"""Every script in examples/ runs as it is and says or draws something."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from command import ROOT
from matplotlib.image import imread

from xrobust.report.history import write_history

FOLDER = ROOT / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_example(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60
    (tmp_path / "runs" / "finished").mkdir(parents=True)
    rows = [{"epoch": 0, "val/robust_accuracy": 0.25}, {"epoch": 1, "val/robust_accuracy": 0.5}]
    write_history(tmp_path / "runs" / "finished" / "metrics.csv", rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr("sys.argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    assert said
    for name in said.split():
        if name.endswith(".png"):
            assert imread(tmp_path / name)[..., :3].std() > 0.05


def test_the_list_of_examples_names_each() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert EXAMPLES and all(f"]({script.name})" in text for script in EXAMPLES)

"""How robust accuracy and an explanation metric went, epoch by epoch, in the newest run of `runs/`."""

from __future__ import annotations

from pathlib import Path

from xrobust.report.history import read_history

SHOWN = ("val/clean_accuracy", "val/robust_accuracy", "explain/complexity/gini_index/gradient")

newest = max(Path("runs").glob("*/metrics.csv"), key=lambda file: file.stat().st_mtime)
print(newest.parent)
for row in read_history(newest):
    values = (f"{name} {row[name]:.3f}" for name in SHOWN if name in row)
    print(f"epoch {row['epoch']:.0f}:", ", ".join(values))

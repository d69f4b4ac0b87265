"""Several evaluations of one model side by side: each attack alone, and the worst of it and those above it.

    python benchmarks/ordering.py runs/<run>/evaluation/{pgd_20,pgd_100,apgd_ce,autoattack_standard}

Takes the folders of `python -m xrobust.evaluate` in the order of the attacks' strength; they must speak of the same
images and threat model. Prints a table in Markdown.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tables import Row, show


def read(folder: Path) -> tuple[dict[int, bool], str, float]:
    """For each image whether it stands, the threat model and the seconds that the attack took."""
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (threat,) = {row["threat"] for row in rows}
    seconds = sum(turn["seconds"] for turn in summary["turns"])
    return {int(row["index"]): not row["broken_by"] for row in rows}, threat, seconds


def rows_of(folders: Sequence[Path]) -> list[Row]:
    """One row for each evaluation."""
    done = {folder.name: read(folder) for folder in folders}
    (images,), (threat,) = {tuple(stands) for stands, *_ in done.values()}, {threat for _, threat, _ in done.values()}
    rows: list[Row] = []
    union = dict.fromkeys(images, True)
    for name, (stands, _, seconds) in done.items():
        only_above = sum(stands[i] and not union[i] for i in images)
        union = {i: union[i] and stands[i] for i in images}
        rows.append(
            {
                "attack": name,
                "threat": threat,
                "alone %": 100 * sum(stands.values()) / len(images),
                "with those above %": 100 * sum(union.values()) / len(images),
                "broken only above": only_above,
                "seconds": seconds,
            }
        )
    return rows


if __name__ == "__main__":
    show("Attacks on one model", rows_of([Path(folder) for folder in sys.argv[1:]]))

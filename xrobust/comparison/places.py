"""From the places that a user names to runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from xrobust.comparison.folder import is_bundle, is_run, read_folder
from xrobust.comparison.run import Run
from xrobust.comparison.table import read_table
from xrobust.errors import UserError

PAGE = "compare.html"


def read_places(places: Sequence[str]) -> tuple[list[Run], dict[str, str]]:
    """The finished runs below some places, and why each other one is left out.

    Args:
        places: folders of runs, bundles and multiruns (whose folders are runs), and CSV files as W&B exports a table
            of runs.

    Raises:
        UserError: if a place does not exist, holds no runs, or is given twice, or if no run is finished.
    """
    runs: list[Run] = []
    left_out: dict[str, str] = {}
    for place in map(Path, places):
        if place.is_dir():
            for folder in _run_folders(place):
                found = read_folder(folder)
                if isinstance(found, Run):
                    runs.append(found)
                else:
                    left_out[str(folder)] = found
        elif place.suffix == ".csv" and place.is_file():
            rows, others = read_table(place)
            runs += rows
            left_out |= others
        else:
            raise UserError(f"runs={place} must be the folder of a run, a bundle or a multirun, or a .csv file")
    if not runs:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"runs={','.join(places)}: no run is finished ({reasons or 'there is none'})")
    return _named(runs), left_out


def common_folder(places: Sequence[str]) -> Path:
    """Where a comparison of them belongs: in the multirun that they share, or beside them."""
    homes = [Path(place).resolve() for place in places]
    homes = [home if home.is_dir() and not (is_run(home) or is_bundle(home)) else home.parent for home in homes]
    return Path(os.path.commonpath(homes)) / "compare"


def _run_folders(place: Path) -> Iterator[Path]:
    """The folder itself, if it is a run or a bundle; otherwise its folders, numbers in their order."""
    if is_run(place) or is_bundle(place):
        yield place
        return
    inside = [folder for folder in place.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    inside = [folder for folder in inside if not (folder / PAGE).exists()]
    if not any(is_run(folder) or is_bundle(folder) for folder in inside):
        raise UserError(f"runs={place} holds no runs: neither it nor a folder in it has a config.yaml or config.json")
    yield from sorted(inside, key=lambda folder: (not folder.name.isdigit(), folder.name.zfill(9), folder.name))


def _named(runs: list[Run]) -> list[Run]:
    """Runs whose names differ: where they do not, the folder above stands before them.

    Raises:
        UserError: if a run is given twice.
    """
    again = [place for place, count in Counter((run.place.resolve(), run.name) for run in runs).items() if count > 1]
    if again:
        raise UserError(f"runs: {again[0][0]} is given twice")
    counts = Counter(run.name for run in runs)
    named = [replace(run, name=f"{run.place.parent.name}/{run.name}") if counts[run.name] > 1 else run for run in runs]
    again_named = Counter(run.name for run in named)
    return [replace(run, name=str(run.place)) if again_named[run.name] > 1 else run for run in named]

"""Whether images with a large certified radius have better explanations: a rank correlation for each metric.

    python benchmarks/radius_correlation.py gloro=runs/a/certification,runs/a/explanation smoothing=runs/b/smoothing,…

For each model takes two folders: of `python -m xrobust.certify` or `python -m xrobust.smooth` (radii), and of
`python -m xrobust.explain` (values), and the images that both have. An image that is wrong or without a proof has the
radius 0. Prints Spearman's ρ with a 95% interval (percentile bootstrap over the images).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tables import Row, show

from xrobust.comparison.statistics import correlation

ABOUT_THE_IMAGE = ("index", "label", "prediction")
RESAMPLES = 2000

Column = Mapping[int, float]  # by the index of an image


def read_csv(folder: Path) -> list[dict[str, str]]:
    """The rows of samples.csv."""
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def radii(folder: Path) -> Column:
    """The certified radius around each image."""
    rows = read_csv(folder)
    prediction = "prediction" if "prediction" in rows[0] else "clean_prediction"
    return {int(row["index"]): float(row["radius"] or 0) * (row["label"] == row[prediction]) for row in rows}


def metrics(folder: Path) -> Mapping[str, Column]:
    """The values of each metric where it is defined."""
    rows = read_csv(folder)
    names = [name for name in rows[0] if name not in ABOUT_THE_IMAGE]
    return {name: {int(row["index"]): float(row[name]) for row in rows if row[name]} for name in names}


def shown(radius: Column, metric: Column) -> str:
    """Spearman's ρ (low – high), n; empty where one of the two is the same for all images."""
    shared = sorted(radius.keys() & metric.keys())
    found = correlation([radius[i] for i in shared], [metric[i] for i in shared], RESAMPLES, seed=0)
    if found is None:
        return ""
    rho, interval = found
    return f"{rho:.2f}{'' if interval is None else ' ({:.2f} – {:.2f})'.format(*interval)}, {len(shared)}"


def rows_of(models: Mapping[str, tuple[Path, Path]]) -> list[Row]:
    """A row for each metric, a column for each model."""
    read = {name: (radii(proofs), metrics(values)) for name, (proofs, values) in models.items()}
    keys = next(iter(read.values()))[1]
    return [
        {"metric": key, **{name: shown(radius, values[key]) for name, (radius, values) in read.items()}} for key in keys
    ]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=RADII,VALUES", help="two folders of a model")
    pairs = [model.partition("=") for model in parser.parse_args(arguments).models]
    models = {}
    for name, _, folders in pairs:
        proofs, values = folders.split(",")
        models[name] = (Path(proofs), Path(values))
    show("Spearman's ρ with the certified radius (95%), images", rows_of(models))


if __name__ == "__main__":
    main(sys.argv[1:])

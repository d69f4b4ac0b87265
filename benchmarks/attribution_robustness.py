"""Robust predictions against robust explanations, one point a training method and weight.

    python benchmarks/attribution_robustness.py --data mnist fashion_mnist --output runs/attribution_robustness \\
        --figure docs/images/attribution_robustness.png

The table of Chen et al. (2019, Robust attribution regularization), short enough for CPUs: 2C2F, five epochs, and one
run of the attribution attack where they have three. Trains what is not trained yet, goes on with what was interrupted,
measures what is not measured yet; then prints a table for each data set, and draws attribution robustness against
robust accuracy, the colour being the clean accuracy. `--only` names the methods.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import MARKERS, Value, read
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from tables import Row, show

ROOT = Path(__file__).parents[1]
THREATS = {"mnist": "linf_0_3", "fashion_mnist": "linf_0_1"}
PENALTY = "defense=gradient_regularized"
IG_SUM_NORM = [PENALTY, "regularizers=[ig_sum_norm]", "regularizers.ig_sum_norm.steps=5"]
METHODS = {
    "natural": ["defense=standard"],
    "pgd_at": ["defense=pgd_at"],
    "ig_norm": [PENALTY, "regularizers=[ig_norm]", "regularizers.ig_norm.steps=5"],
    "ig_sum_norm": IG_SUM_NORM,
    "ig_sum_norm_1": [*IG_SUM_NORM, "regularizers.ig_sum_norm.beta=1"],
    "art": ["experiment=regularized_art"],
    "art_2": ["experiment=regularized_art", "regularizers.art.weight=2"],
    "ssr": ["experiment=regularized_ssr"],
    "ssr_3": ["experiment=regularized_ssr", "regularizers.ssr.weight=3"],
    "input_gradient": ["experiment=regularized_input_gradient"],
    "input_gradient_10": ["experiment=regularized_input_gradient", "regularizers.input_gradient.weight=10"],
    "cure": ["experiment=regularized_cure"],
    "cure_0.3": ["experiment=regularized_cure", "regularizers.cure.weight=0.3125"],
}
TRAINING = [
    *("model=small_cnn", "optim=adam_one_cycle", "data.batch_size=128", "trainer.max_epochs=5", "logger=csv"),
    *("metrics=[]", "metrics@card_metrics=[]"),
    "callbacks=[history,last_checkpoint,epsilon_schedule,robust_accuracy]",
]
KEPT = "topk_attacked ↑ integrated_gradients"
RESULT = {"evaluate": "summary.json", "explain": "explanation_card.json"}
ON_MAPS = "metrics=[gini_index,etmann_alignment,mean_subtracted_alignment,input_gradient_norm,linearised_robustness]"
MEASUREMENTS = {  # the folder, the module, what it is told
    "autoattack": ("evaluate", ["attack=autoattack_standard", "limit=500", "check=[]"]),
    "maps": ("explain", ["attribution=[gradient]", ON_MAPS, "images=1000", "references=false", "panel_images=0"]),
    "top_200": ("explain", ["experiment=rar_protocol", "images=20", "map_attack.restarts=1"]),
}


def train(folder: Path, data: str, name: str) -> None:
    """The run, unless its bundle is there."""
    if not (folder / "bundle").exists():
        # Where the configuration is, a run began: it goes on.
        place = f"resume={folder}" if (folder / "config.yaml").exists() else f"hydra.run.dir={folder}"
        command(str(ROOT / "train.py"), *METHODS[name], f"data={data}", f"threat={THREATS[data]}", *TRAINING, place)


def measure(folder: Path, data: str, name: str) -> None:
    """One of the measurements of a trained network, unless it is there."""
    module, told = MEASUREMENTS[name]
    if not (folder / name / RESULT[module]).exists():
        given = [f"bundle={folder / 'bundle'}", f"data={data}", f"threat={THREATS[data]}", f"output={folder / name}"]
        command("-m", f"xrobust.{module}", *told, *given)


def command(*arguments: str) -> None:
    print(" ".join(arguments), flush=True)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


def accuracies(file: Path) -> dict[str, Value]:
    """Quantity → accuracy in %, and half of its 95% interval."""
    found: dict[str, Value] = {}
    for result in json.loads(file.read_text(encoding="utf-8"))["results"]:
        low, high = result["interval_95"]
        found.setdefault(result["quantity"], (100 * result["value"], 50 * (high - low)))
    return found


def row_of(folder: Path) -> dict[str, Value]:
    """Everything measured of a network: value and error."""
    tested = accuracies(folder / "bundle/config.json")
    row = {"clean %": tested["test/clean_accuracy"], "PGD-40 %": tested["test/robust_accuracy"]}
    row["AutoAttack %"] = accuracies(folder / "autoattack/summary.json")["test/robust_accuracy"]
    return row | read(folder / "top_200") | read(folder / "maps")


def method_of(name: str) -> str:
    """`ssr` of `ssr` and of `ssr_3`, where the weight stands behind."""
    return name.rstrip("0123456789.").rstrip("_")


MARKER = dict(zip(dict.fromkeys(map(method_of, METHODS)), MARKERS, strict=True))


def draw(tables: Mapping[str, Mapping[str, Mapping[str, Value]]]) -> Figure:
    """A panel a data set: attribution robustness against robust accuracy, coloured by clean accuracy.

    A method has one mark. A line leads to its further weights, which are written beside them.
    """
    figure = Figure(figsize=(5.4 * len(tables), 5), layout="constrained")
    for axes, (data, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        clean = [row["clean %"][0] for row in table.values()]
        colours = Normalize(min(clean), max(clean))
        for method in dict.fromkeys(map(method_of, table)):
            weights = [name for name in table if method_of(name) == method]
            robust, across = zip(*(table[name]["PGD-40 %"] for name in weights), strict=True)
            kept, up = zip(*((100 * value for value in table[name][KEPT]) for name in weights), strict=True)
            axes.errorbar(robust, kept, up, across, "-", color="0.6", lw=0.8, zorder=1)
            colour = [table[name]["clean %"][0] for name in weights]
            look = {"s": 60, "marker": MARKER[method], "edgecolors": "0.2", "zorder": 2}
            axes.scatter(robust, kept, c=colour, norm=colours, label=method, **look)
            for name, *point in zip(weights, robust, kept, strict=True):
                weight = name.removeprefix(method).removeprefix("_")
                axes.annotate(weight, point, (6, 5), textcoords="offset points", fontsize=7, zorder=3)
        figure.colorbar(ScalarMappable(colours), ax=axes, label="clean accuracy, %")
        axes.set_title(f"{data}, {THREATS[data]}", fontsize=9)
        axes.set_xlabel("accuracy under PGD-40, %")
        axes.set_ylabel("of the top 100 pixels stay under attack, %")
        axes.grid(alpha=0.3)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(handles), fontsize=8)
    return figure


def written(row: Mapping[str, Value]) -> Row:
    return {name: f"{value:.3g} ± {error:.2g}" for name, (value, error) in row.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=THREATS, default=list(THREATS))
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--output", type=Path, default=Path("runs/attribution_robustness"))
    parser.add_argument("--figure", type=Path, help="where to draw")
    given = parser.parse_args(arguments)
    tables: dict[str, dict[str, Any]] = {}
    for data in given.data:
        for name in given.only:
            folder = (given.output / f"{data}_{name}").resolve()
            train(folder, data, name)
            for measurement in MEASUREMENTS:
                measure(folder, data, measurement)
            tables.setdefault(data, {})[name] = row_of(folder)
    for data, table in tables.items():
        show(f"{data}, {THREATS[data]}", [{"method": name, **written(row)} for name, row in table.items()])
    if given.figure:
        draw(tables).savefig(given.figure, dpi=110)


if __name__ == "__main__":
    main()

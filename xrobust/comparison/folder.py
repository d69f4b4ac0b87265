"""A run folder, or a bundle alone, read back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xrobust.comparison.run import Measurement, Run, below
from xrobust.config.check import resolve_target
from xrobust.errors import UserError
from xrobust.export.card import data_name
from xrobust.export.loading import read_config
from xrobust.export.result import warnings_in
from xrobust.report.history import Row, read_history, trajectory

ACCURACIES = ("clean_accuracy", "robust_accuracy", "certified_accuracy")


def is_run(folder: Path) -> bool:
    """Whether train.py has written there."""
    return (folder / "config.yaml").is_file() or is_bundle(folder / "bundle")


def is_bundle(folder: Path) -> bool:
    """Whether it is a bundle."""
    return (folder / "config.json").is_file()


def read_folder(folder: Path) -> Run | str:
    """The run of a run folder or a bundle, or why there is none to compare."""
    if is_bundle(folder):
        bundle, home = folder, None
    elif is_run(folder):
        bundle, home = folder / "bundle", folder
        if not is_bundle(bundle):
            return f"incomplete: no bundle, and {len(read_history(folder / 'metrics.csv'))} epochs in metrics.csv"
    else:
        return "no run: it has no config.yaml"
    try:
        described = read_config(bundle)
        config = described.get("training") or {}
        history = [] if home is None else read_history(home / "metrics.csv")
        epoch = selected_epoch(config, history)
    except UserError as error:
        return str(error)
    directions = {} if home is None else _json(home / "explanation_metrics.json") or {}
    cards = [described.get("explanation_card"), None if home is None else _json(home / "explanation_card.json")]
    for card in filter(None, cards):
        directions = {_key(row): row["higher_is_better"] for row in _rows(card)} | directions
    selected = next((row for row in history if row["epoch"] == epoch), {})
    measured = [
        *_accuracies(described.get("results", []), selected, config),
        *_in_history(directions, selected, config),
        *(measurement for card in filter(None, cards) for measurement in _in_card(card)),
    ]
    return Run(
        name=(folder.resolve().parent if folder.name == "bundle" else folder.resolve()).name,
        place=folder,
        config=config,
        measurements=measured,
        directions=directions,
        history=history,
        epoch=epoch,
        warnings=warnings_in(described.get("results", [])),
        bundle=bundle,
        weights=described["sha256"],
    )


def selected_epoch(config: Mapping[str, Any], history: Sequence[Row]) -> float | None:
    """The epoch whose weights train.py tests and exports: the first of the best, or the last if nothing was selected.

    None if the history does not tell.
    """
    if not history or "defense" not in config:
        return None
    if "best_checkpoint" not in below(config, "callbacks"):
        return history[-1]["epoch"]
    monitor = (
        below(config, "callbacks", "best_checkpoint").get("monitor")
        or resolve_target(config["defense"]["_target_"], "defense").selection
    )
    measured = [
        (epoch, value)
        for epoch, value in zip(*trajectory(list(history), monitor), strict=True)
        if not math.isnan(value)
    ]
    return max(measured, key=lambda pair: pair[1])[0] if measured else None


def attack_line(node: Any) -> str | None:
    """An attack in a configuration: "PGD (linf ε=0.3, steps 10)"."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None
    threat, steps = below(node, "threat"), node.get("steps")
    parts = [f"{threat.get('norm')} ε={threat.get('eps')}", *([] if steps is None else [f"steps {steps}"])]
    return f"{node['_target_'].rpartition('.')[2]} ({', '.join(parts)})"


def validation_accuracies(values: Mapping[str, float], config: Mapping[str, Any], source: str) -> list[Measurement]:
    """The accuracies on validation images among some values, with the protocol that the configuration tells."""
    methods = {"robust_accuracy": ("attack", "val_attack"), "certified_accuracy": ("certifier", "certifier")}
    found = []
    for name in ACCURACIES:
        protocol: dict[str, Any] = {
            "source": source,
            "split": "validation",
            "data": data_name(config),
            "seed": config.get("seed"),
        }
        if name in methods:
            kind, key = methods[name]
            node = below(config, key)
            protocol[kind] = {**node, "summary": attack_line(node) or f"the run's {key}"}
        images = str(below(config, "callbacks", name).get("val_images"))  # a table has texts alone
        value = values.get(f"val/{name}", math.nan)
        if math.isfinite(value):
            found.append(Measurement(f"val/{name}", value, protocol, int(images) if images.isdigit() else None))
    return found


def _accuracies(
    results: Sequence[Mapping[str, Any]], selected: Mapping[str, float], config: Mapping[str, Any]
) -> Iterator[Measurement]:
    """Those of the test; for a kind that was not tested, that on validation images."""
    bundled = [Measurement(row["quantity"], row["value"], row["protocol"], row["n"]) for row in results]
    tested = {found.quantity.partition("/")[2] for found in bundled if found.quantity.startswith("test/")}
    others = validation_accuracies(selected, config, "metrics.csv at the selected epoch")
    for found in [*bundled, *others]:
        stage, _, kind = found.quantity.partition("/")
        if stage == "test" or kind not in tested:
            yield found


def _in_history(
    keys: Mapping[str, Any], selected: Mapping[str, float], config: Mapping[str, Any]
) -> Iterator[Measurement]:
    """Explanation metrics at the selected epoch."""
    settings = below(config, "callbacks", "explanation_quality")
    protocol = {
        "source": "explanation metrics of metrics.csv at the selected epoch",
        "split": "validation",
        "data": data_name(config),
        "attack": attack_line(settings.get("attack")),
        "seed": settings.get("seed"),
    }
    for key in keys:
        if math.isfinite(selected.get(key, math.nan)):
            yield Measurement(key, selected[key], protocol, settings.get("images"))


def _in_card(card: Mapping[str, Any]) -> Iterator[Measurement]:
    protocol = {"source": "explanation card", **card["protocol"]}
    for row in _rows(card):
        if row["mean"] is not None and math.isfinite(row["mean"]):
            yield Measurement(_key(row), row["mean"], protocol, row["n"])


def _rows(card: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (row for point in card["points"] for row in point["rows"])


def _key(row: Mapping[str, Any]) -> str:
    """As the training logs it."""
    return "/".join(filter(None, ["explain", row["group"], row["metric"], row["attribution"]]))


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

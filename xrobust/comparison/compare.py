"""Groups of runs in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite

from xrobust.comparison.grouping import differences
from xrobust.comparison.protocols import Chosen, choose, comparable, lines
from xrobust.comparison.run import Run, training_radius
from xrobust.comparison.statistics import correlation, mean_interval
from xrobust.report.comparison import MINIMUM, ComparedRun, Comparison, Correlation, Mean, is_metric
from xrobust.report.history import Row, trajectory

EACH_EPOCH = ("val/clean_accuracy", "val/robust_accuracy", "val/certified_accuracy")


def compare_runs(
    groups: Mapping[str, Sequence[Run]], left_out: Mapping[str, str], *, resamples: int, seed: int
) -> Comparison:
    """Final values, means, and correlations of robust accuracy with each explanation metric.

    Args:
        groups: by name, finished runs.
        left_out: run → why it is not among them.
        resamples: of each bootstrap.
        seed: of the resamples.

    Raises:
        UserError: if accuracies of a group were measured in different ways.
    """
    chosen, warnings = choose(groups)
    chosen = dict(sorted(chosen.items(), key=lambda item: is_metric(item[0])))
    runs = [_compared(run, group, chosen) for group, members in groups.items() for run in members]
    comparison = Comparison(
        runs=runs,
        means=list(_means(runs, chosen)),
        correlations=[],
        directions=_directions(groups, chosen),
        protocols=lines(chosen, groups),
        warnings=[*_left_out(left_out), *warnings, *_about(groups, chosen)],
        left_out=left_out,
    )
    return replace(comparison, correlations=list(_correlations(comparison, chosen, resamples, seed)))


def _compared(run: Run, group: str, chosen: Chosen) -> ComparedRun:
    values = {quantity: measured[run.name].value for quantity, measured in chosen.items() if run.name in measured}
    trained_at = training_radius(run.config.get("defense"))
    kept = {"epoch", *EACH_EPOCH, *run.directions}
    return ComparedRun(
        name=run.name,
        group=group,
        seed=str(run.config.get("seed", "")),
        place=str(run.place),
        epoch=run.epoch,
        radius=None if trained_at is None else float(trained_at),
        values=values,
        history=[{key: value for key, value in row.items() if key in kept and isfinite(value)} for row in run.history],
    )


def _means(runs: Sequence[ComparedRun], quantities: Chosen) -> Iterator[Mean]:
    for group in dict.fromkeys(run.group for run in runs):
        for quantity in quantities:
            values = [run.values[quantity] for run in runs if run.group == group and quantity in run.values]
            if values:
                yield Mean(group, quantity, len(values), *mean_interval(values))


def _directions(groups: Mapping[str, Sequence[Run]], quantities: Chosen) -> dict[str, bool | None]:
    known: dict[str, bool | None] = {quantity: None if is_metric(quantity) else True for quantity in quantities}
    known |= dict.fromkeys(EACH_EPOCH, True)
    for run in (run for members in groups.values() for run in members):
        known |= run.directions
    return known


def _correlations(found: Comparison, chosen: Chosen, resamples: int, seed: int) -> Iterator[Correlation]:
    """Over all runs, if their accuracy was measured in one way; over the runs of groups of at least 4; over epochs."""

    def one(over: str, where: str, accuracy: str, metric: str, rows: Sequence[Mapping[str, float]]) -> Correlation:
        both = [row for row in rows if accuracy in row and metric in row]
        pairs = [row[accuracy] for row in both], [row[metric] for row in both]
        result = correlation(*pairs, resamples, seed)
        rho, interval = (None, None) if result is None else result
        alike = over != "all runs" or comparable(chosen[metric])
        return Correlation(over, where, accuracy, metric, rho, interval, len(both), alike)

    metrics, accuracy = [quantity for quantity in found.quantities if is_metric(quantity)], found.accuracy
    if accuracy is not None:
        if comparable(chosen[accuracy]):
            for metric in metrics:
                yield one("all runs", "", accuracy, metric, [run.values for run in found.runs])
        for group in found.groups:
            members = [run.values for run in found.members(group)]
            if len(members) >= MINIMUM:
                for metric in metrics:
                    yield one("runs of a group", group, accuracy, metric, members)
    for run in found.runs:
        rows: Sequence[Row] = run.history
        for metric in dict.fromkeys(key for row in rows for key in row if is_metric(key)):
            if trajectory(list(rows), "val/robust_accuracy")[0]:
                yield one("epochs of a run", run.name, "val/robust_accuracy", metric, rows)


def _left_out(left_out: Mapping[str, str]) -> list[str]:
    return [f"{run} is left out: {reason}." for run, reason in left_out.items()]


def _about(groups: Mapping[str, Sequence[Run]], chosen: Chosen) -> Iterator[str]:
    """Repetitions that are none, quantities that some runs lack, equal models, and masked gradients."""
    for group, members in groups.items():
        yield from differences(group, members)
    runs = [run for members in groups.values() for run in members]
    for quantity, measured in chosen.items():
        lacking = [run.name for run in runs if run.name not in measured]
        if lacking and not is_metric(quantity):
            yield f"{quantity} is not known of {', '.join(lacking)}."
    counts = Counter(run.weights for run in runs if run.weights is not None)
    for weights, count in counts.items():
        if count > 1:
            same = ", ".join(run.name for run in runs if run.weights == weights)
            yield f"These runs have the same weights, so they are one model that counts more than once: {same}."
    for run in runs:
        for warning in run.warnings:
            yield f"{run.name}: its accuracy under attack may be too high. {warning}"

"""One protocol for each quantity: values that were measured in different ways are not averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xrobust.comparison.run import Measurement, Run, below, radius
from xrobust.errors import UserError
from xrobust.report.comparison import Protocol, is_metric

Chosen = dict[str, dict[str, Measurement]]  # quantity → run → how it was measured


def choose(groups: Mapping[str, Sequence[Run]]) -> tuple[Chosen, list[str]]:
    """For each quantity one measurement of each run that has any, of the same protocol within a group.

    A protocol that all groups share comes first. Of several, the one for the threat model of the training, then the
    tightest (the lowest accuracy under attack, the highest certified one, on average; of other threat models the lowest
    of both), then the one of most images.
    Seeds may differ. An explanation metric without a common protocol is left out of its group.

    Returns:
        The choice, and a warning for each thing that was left out or that differs between groups.

    Raises:
        UserError: if an accuracy has no protocol that all runs of a group share; it names two of them and their runs.
    """
    chosen: Chosen = {}
    left_out: dict[tuple[str, str], list[str]] = {}
    runs = [run for members in groups.values() for run in members]
    for quantity in dict.fromkeys(found.quantity for run in runs for found in run.measurements):
        found = _common(quantity, runs)
        if found is None:
            found = {}
            for group, members in groups.items():
                common = _common(quantity, members)
                if common is None and not is_metric(quantity):
                    raise UserError(
                        f"{quantity} of the group {group} was not measured in one way, so its mean would say nothing: "
                        f"{_two_ways(quantity, members)} (group=[defense,threat.eps] makes groups of different radii)"
                    )
                if common is None:
                    left_out.setdefault((group, _two_ways(quantity, members)), []).append(quantity)
                found |= common or {}
        if found:
            chosen[quantity] = found
    warnings = [
        f"Left out of the group {group}, because they were not measured in one way: {_names(quantities)} ({ways})."
        for (group, ways), quantities in left_out.items()
    ]
    return chosen, [*warnings, *_unlike(chosen, groups)]


def comparable(chosen: Mapping[str, Measurement]) -> bool:
    """Whether a quantity was measured in one way in all runs."""
    return len({measurement.identity for measurement in chosen.values()}) <= 1


def lines(chosen: Chosen, groups: Mapping[str, Sequence[Run]]) -> list[Protocol]:
    """How everything was measured: a line for each protocol and the groups that share it."""
    rows: dict[tuple[str, int | None, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for quantity, measured in chosen.items():
        by_identity: dict[str, dict[str, list[Measurement]]] = {}
        for group, members in groups.items():
            for run in members:
                if run.name in measured:
                    found = measured[run.name]
                    by_identity.setdefault(found.identity, {}).setdefault(group, []).append(found)
        for parts in by_identity.values():
            every = [found for part in parts.values() for found in part]
            seeds = sorted({str(found.protocol["seed"]) for found in every if found.protocol.get("seed") is not None})
            rows.setdefault((every[0].in_words(), every[0].images, tuple(parts), tuple(seeds)), []).append(quantity)
    return [
        Protocol(tuple(quantities), where, text, images, seeds)
        for (text, images, where, seeds), quantities in rows.items()
    ]


def _common(quantity: str, runs: Sequence[Run]) -> dict[str, Measurement] | None:
    """The best protocol that all runs with the quantity share; none if they share none."""
    having = [run for run in runs if run.of(quantity)]
    by_run = [{found.identity: found for found in reversed(run.of(quantity))} for run in having]  # the first counts
    shared = [
        [found[identity] for found in by_run]
        for identity in {found.identity: 0 for run in having for found in run.of(quantity)}
        if all(identity in found for found in by_run)
    ]
    if not having:
        return {}
    if not shared:
        return None
    best = max(shared, key=lambda measurements: _preference(measurements, having))
    return {run.name: found for run, found in zip(having, best, strict=True)}


def _preference(measurements: Sequence[Measurement], runs: Sequence[Run]) -> tuple[bool, float, int]:
    first = measurements[0]
    own = bool(first.method) and all(
        found.threat.get("norm") == below(run.config, "threat").get("norm")
        and radius(found.threat) == radius(run.config.get("threat"))
        for found, run in zip(measurements, runs, strict=True)
    )
    mean = sum(found.value for found in measurements) / len(measurements)
    # At one radius the highest certified accuracy is the tightest; among several radii it is that of the smallest.
    tightness = 0.0 if not first.method else mean if "certifier" in first.protocol and own else -mean
    return own, tightness, first.images or 0


def _two_ways(quantity: str, runs: Sequence[Run]) -> str:
    """Two protocols that differ, and their runs."""
    having = [run for run in runs if run.of(quantity)]
    other = next((run for run in having if _common(quantity, [having[0], run]) is None), having[-1])
    return "; ".join(f"{_way(run.of(quantity)[0])} in {run.name}" for run in (having[0], other))


def _way(found: Measurement) -> str:
    return found.in_words() + ("" if found.images is None else f" · images: {found.images}")


def _unlike(chosen: Chosen, groups: Mapping[str, Sequence[Run]]) -> list[str]:
    """A warning for the accuracies, and one for the metrics, that were measured in different ways in the groups."""
    unlike = [quantity for quantity, measured in chosen.items() if not comparable(measured)]
    warnings = []
    for quantity in (quantity for quantity in unlike if not is_metric(quantity)):
        ways = {
            group: _way(chosen[quantity][run.name])
            for group, members in groups.items()
            for run in members
            if run.name in chosen[quantity]
        }
        told = "; ".join(f"{group}: {way}" for group, way in ways.items())
        warnings.append(f"{quantity} differs in its protocol between groups: {told}. It is shown, and not correlated.")
    metrics = [quantity for quantity in unlike if is_metric(quantity)]
    if metrics:
        warnings.append(f"Measured in different ways in the groups (see the protocols): {_names(metrics)}.")
    return warnings


def _names(quantities: Sequence[str]) -> str:
    return ", ".join(quantity.removeprefix("explain/") for quantity in quantities)

"""The cells of an explanation card, once for Markdown, HTML and terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Card = Mapping[str, Any]
ARROWS = {True: "↑", False: "↓"}
METHOD_COLUMNS = ("attribution", "cost (gradients)", "ms an image", "differentiable", "demands")


def protocol_line(card: Card) -> str:
    """How it was measured, in a line."""
    return " · ".join(f"{name}: {value}" for name, value in card["protocol"].items())


def card_columns(card: Card) -> list[str]:
    """The head of a point's table."""
    return ["metric", "attribution", "mean ± s.e.", "valid", *(name.replace("_", " ") for name in card["references"])]


def card_rows(point: Mapping[str, Any]) -> list[list[str]]:
    """The cells of a point's measurements, under `card_columns`."""
    return [
        [
            f"{row['metric']} {ARROWS[row['higher_is_better']]}",
            row["attribution"] or "—",
            _number(row["mean"]) + ("" if row["standard_error"] is None else f" ± {row['standard_error']:.2g}"),
            f"{row['valid']:.0%}",
            *map(_number, row["references"].values()),
        ]
        for row in point["rows"]
    ]


def method_rows(card: Card) -> list[list[str]]:
    """The cells of what is known of each attribution, under `METHOD_COLUMNS`."""
    return [
        [
            name,
            f"{facts['gradients']:.1f}",
            f"{facts['milliseconds']:.2f}",
            "yes" if facts["differentiable"] else "no",
            facts["demands"],
        ]
        for name, facts in card["methods"].items()
    ]


def point_table(card: Card, point: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    """Head and rows of a point: its measurements, or what is known of the methods; no rows if nothing was measured."""
    return (METHOD_COLUMNS, method_rows(card)) if point["about_methods"] else (card_columns(card), card_rows(point))


def card_markdown(card: Card, level: int = 1) -> str:
    """The card as Markdown, its title a heading of that level."""
    head = "#" * level
    parts = [f"{head} Explanation card", protocol_line(card)]
    for point in card["points"]:
        parts.append(f"{head}# {point['number']}. {point['title']}\n\n*{point['question']}* {point['reading']}")
        columns, rows = point_table(card, point)
        lines = [columns, ["---"] * len(columns), *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else "Not measured.")
    return "\n\n".join(parts) + "\n"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}"

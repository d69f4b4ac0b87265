"""The explanation card for people: as HTML, and on the terminal."""

from __future__ import annotations

import html

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from xrobust.export.explanation_table import Card, point_table, protocol_line
from xrobust.report.html import image, page, table


def card_page(card: Card, picture: bytes | None) -> str:
    """The card as a page of its own, with the maps."""
    maps = "" if picture is None else "<h2>Maps</h2>" + image(picture, "Images with their attribution maps")
    return page("Explanation card", maps + card_section(card))


def card_section(card: Card) -> str:
    """The card as a part of a page."""
    parts = ["<h2>Explanation card</h2>", f"<p>{html.escape(protocol_line(card))}</p>"]
    for point in card["points"]:
        parts.append(f"<h3>{point['number']}. {html.escape(point['title'])}</h3>")
        parts.append(f"<p><em>{html.escape(point['question'])}</em> {html.escape(point['reading'])}</p>")
        columns, rows = point_table(card, point)
        parts.append(table(columns, rows, numbers=range(2, len(columns))) if rows else "<p>Not measured.</p>")
    return "\n".join(parts)


def print_explanations(card: Card, folder: object) -> None:
    """The answers, point by point, and where the files are."""
    console = Console()
    console.print(protocol_line(card), highlight=False)
    for point in card["points"]:
        columns, rows = point_table(card, point)
        if rows:
            title = f"{point['number']}. {point['question']}"
            shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for i, column in enumerate(columns):
                shown.add_column(column, justify="right" if i > 1 else "left", overflow="fold", no_wrap=i == 0)
            for row in rows:
                shown.add_row(*row)
            console.print(shown)
    console.print(f"Explanations: {folder}", soft_wrap=True)

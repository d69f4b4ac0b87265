"""Self-contained HTML pages."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Collection, Sequence

from PIL import Image

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; }
"""


def page(title: str, body: str) -> str:
    """A whole page; the body is HTML already."""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
<h1>{html.escape(title)}</h1>
{body}
</html>
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int]) -> str:
    """A table of texts; the columns in `numbers` are set to the right."""
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=number' if i in numbers else ''}>{html.escape(cell)}</td>" for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def image(png: bytes, alt: str, style: str | None = None) -> str:
    """A picture inside the page, as lossless WebP, which takes half the room; the style is CSS."""
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).save(small, "webp", lossless=True, exact=True, quality=60, method=2)
    styled = "" if style is None else f' style="{style}"'
    content = base64.b64encode(small.getvalue()).decode()
    return f'<img{styled} alt="{html.escape(alt)}" src="data:image/webp;base64,{content}">'

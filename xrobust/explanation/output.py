"""What `python -m xrobust.explain` leaves in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xrobust.attributions import Attribution
from xrobust.explanation.measurement import Measurement
from xrobust.explanation.panel import first_images, panel_data
from xrobust.export.explanation_table import card_markdown
from xrobust.files import csv_text, replace_file
from xrobust.metrics import Probe
from xrobust.report.explanations import card_page
from xrobust.report.panel import draw_panel, png


def write_outputs(
    folder: Path,
    probes: Sequence[Probe],
    attributions: Mapping[str, Attribution],
    measurements: Sequence[Measurement],
    card: Mapping[str, Any],
    panel_images: int,
) -> None:
    """Write samples.csv, explanation_card.json, .md and .html, and panel.png."""
    replace_file(folder / "samples.csv", samples_csv(probes, measurements))
    replace_file(folder / "explanation_card.json", json.dumps(card, indent=2) + "\n")
    replace_file(folder / "explanation_card.md", card_markdown(card))
    picture = None
    if panel_images:
        data = panel_data(first_images(probes[0], panel_images), attributions)
        picture = png(draw_panel(data, str(probes[0].threat)))
        replace_file(folder / "panel.png", picture)
    replace_file(folder / "explanation_card.html", card_page(card, picture))


def samples_csv(probes: Sequence[Probe], measurements: Sequence[Measurement]) -> str:
    """One row an image, one column a measurement; empty where undefined."""
    head = [
        (int(i), int(y), int(p))
        for probe in probes
        for i, y, p in zip(probe.index, probe.y, probe.prediction, strict=True)
    ]
    columns = [[f"{v:.8g}" if np.isfinite(v) else "" for v in measured.values] for measured in measurements]
    header = ["index", "label", "prediction", *(measured.key for measured in measurements)]
    return csv_text(header, ([*start, *row] for start, row in zip(head, zip(*columns, strict=True), strict=True)))

"""Certified accuracy at every radius, from certificates that come with radii."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrobust.evaluation.certification import Verdicts
from xrobust.files import csv_text

POINTS = 201  # radii in the table
SHARES = (0.0, 0.5, 1.0, 1.5, 2.0)  # of ε, in the summary


def certified_radii(verdicts: Verdicts) -> NDArray | None:
    """The radius of each sample, 0 where the label is wrong, (N,).

    None where a sample with the right label has no radius: its certifier knows none, or another one of a cascade
    decided before it was asked.
    """
    known = np.isfinite(verdicts.radius)
    return np.where(known, verdicts.radius, 0.0) if known.any() and known[verdicts.correct].all() else None


def count_above(radii: NDArray, radius: float) -> int:
    """How many samples are certified at a radius: strictly, as at the threat model's own."""
    return int((radii > radius).sum())


def radii_summary(radii: NDArray, eps: float) -> dict[str, Any]:
    """Certified samples at multiples of ε, and the average certified radius."""
    counts = [{"radius": share * eps, "certified": count_above(radii, share * eps)} for share in SHARES]
    return {"average_certified_radius": float(radii.mean()), "n": len(radii), "counts": counts}


def radii_csv(radii: NDArray) -> str:
    """Certified accuracy at radii from 0 to the largest."""
    counts = [(radius, count_above(radii, radius)) for radius in np.linspace(0, radii.max(), POINTS)]
    rows = [(f"{radius:.8g}", count, len(radii), count / len(radii)) for radius, count in counts]
    return csv_text(("radius", "certified", "samples", "certified_accuracy"), rows)

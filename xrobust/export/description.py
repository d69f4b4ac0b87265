"""What a bundle says of its model."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import xrobust
from xrobust.export.result import AccuracyResult

FORMAT = 1


def describe(
    architecture: dict[str, Any],
    *,
    class_names: Sequence[str],
    training: dict[str, Any],
    data: Mapping[str, Any] | None = None,
    results: Sequence[AccuracyResult] = (),
    explanation_card: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The description of a model, which is a bundle's config.json but for the hash; see `save_bundle`."""
    return {
        "format": FORMAT,
        "architecture": architecture,
        "class_names": list(class_names),
        "threat": training.get("threat"),
        "training": training,
        "data": data,
        "results": [result.as_dict() for result in results],
        "explanation_card": explanation_card,
        "versions": {
            "xrobust": xrobust.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }

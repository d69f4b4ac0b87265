"""Writing a finished model in several formats: all of them verified, or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import xrobust
from xrobust.errors import UserError
from xrobust.export.finished import FinishedModel
from xrobust.export.formats.base import Format
from xrobust.export.loading import file_sha256
from xrobust.export.verify import agreement
from xrobust.files import replace_file

RECORD = "export.json"


def export(
    finished: FinishedModel,
    formats: Mapping[str, Format],
    output: Path,
    watch: Callable[[str], object] = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """Write each format beside, read it back, compare it with the model on real images; then move all to the output.

    Args:
        finished: the model with its images.
        formats: by name.
        output: a folder; what it holds of the same formats is replaced, anything else stays.
        watch: called with the name of each format before its turn.

    Returns:
        By name of the format: file, size, hashes, differences, versions, as they stand in export.json.

    Raises:
        UserError: naming the format that failed; the output is then as it was.
    """
    known = _known(output)
    beside = output.with_name(f".{output.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        rows = {}
        for name, form in formats.items():
            watch(name)
            rows[name] = _one(finished, name, form, beside)
        output.mkdir(parents=True, exist_ok=True)
        for form in formats.values():
            target = output / form.filename
            if target.exists():
                os.replace(target, beside / f"old {form.filename}")
            os.replace(beside / form.filename, target)
        replace_file(output / RECORD, json.dumps({"formats": {**known, **rows}}, indent=2) + "\n")
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return rows


def _one(finished: FinishedModel, name: str, form: Format, folder: Path) -> dict[str, Any]:
    """Write and verify a format; its row."""
    path = folder / form.filename
    try:
        versions = form.versions()
        form.write(finished, path)
        off = agreement(form.read(path), finished.model, finished.images)
        if form.differentiable and off.gradient is None:
            raise UserError("it has no gradients after reading it back")
    except Exception as error:  # whatever a library raises, the user learns which format it was
        raise UserError(f"formats={name} failed, nothing is exported: {_reason(error)}") from error
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {
        "file": form.filename,
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": {file.relative_to(folder).as_posix(): file_sha256(file) for file in files},
        "options": asdict(form),  # type: ignore[call-overload]
        "images": len(finished.images),
        "max_difference": off.logits,
        "max_gradient_difference": off.gradient,
        "differentiable": off.gradient is not None,
        "model_sha256": file_sha256(finished.weights),
        "versions": {**versions, "torch": torch.__version__, "xrobust": xrobust.__version__},
    }


def _reason(error: BaseException) -> str:
    """A line: the sentence of a UserError, or the first cause of another error."""
    while not isinstance(error, UserError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, UserError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _known(output: Path) -> dict[str, Any]:
    """The rows of earlier exports whose files are still there.

    Raises:
        UserError: if the output is no folder, or holds a record that cannot be read.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"output={output} is a file, it must be a folder")
    file = output / RECORD
    if not file.is_file():
        return {}
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["formats"]
        return {name: row for name, row in rows.items() if (output / row["file"]).exists()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged, move it away or choose another output=: {error!r}") from error

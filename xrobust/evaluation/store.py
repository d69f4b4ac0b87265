"""Finished batches on disk, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from xrobust.errors import UserError
from xrobust.evaluation.fingerprint import differences
from xrobust.evaluation.outcome import Outcomes
from xrobust.files import replace_file, written_beside


class BatchStore:
    """The finished batches of one evaluation: `fingerprint.json`, and `batches/<position of the first sample>.npz`.

    Files are written beside and renamed: each is whole or absent, whenever the process is killed.

    Args:
        folder: where; made if it does not exist.
        fingerprint: of the evaluation, in plain containers.

    Raises:
        UserError: if the folder holds another evaluation.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any]):
        self.folder = folder
        self.batches = folder / "batches"
        self.batches.mkdir(parents=True, exist_ok=True)
        for half in self.batches.glob(".*.partial"):  # what a killed process was writing
            half.unlink()
        file = folder / "fingerprint.json"
        if file.is_file():
            _require_same(file, json.loads(json.dumps(fingerprint)))
        else:
            replace_file(file, json.dumps(fingerprint, indent=2) + "\n")

    def finished(self) -> list[Outcomes]:
        """What earlier runs have left."""
        return [_read(file) for file in sorted(self.batches.glob("*.npz"))]

    def add(self, outcomes: Outcomes) -> None:
        """Keep a finished batch."""
        with written_beside(self.batches / f"{outcomes.index[0]:08d}.npz") as stream:
            np.savez_compressed(stream, **outcomes.arrays())  # type: ignore[arg-type]


def _require_same(file: Path, fingerprint: dict[str, Any]) -> None:
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    changed = list(differences(before, fingerprint))
    if changed:
        raise UserError(
            f"output={file.parent} holds another evaluation, which differs in {', '.join(changed)}: "
            "give another output=… or remove that folder"
        )


def _read(file: Path) -> Outcomes:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return Outcomes(**arrays)
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(f"{file} is damaged: {error}; remove it to attack its samples again") from error

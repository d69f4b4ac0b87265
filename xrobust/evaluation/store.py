"""Finished batches on disk, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from xrobust.errors import UserError
from xrobust.evaluation.fingerprint import differences
from xrobust.evaluation.sample_arrays import SampleArrays
from xrobust.files import replace_file, written_beside

P = TypeVar("P", bound=SampleArrays)


class Tally(NamedTuple):
    """A batch is done: how many samples it has, and how many have each status."""

    samples: int
    statuses: dict[str, int]


def positions(place: str, count: int, index: Tensor | None) -> Tensor:
    """The positions of samples in the data set, 0 … N − 1 by default: (N,).

    Raises:
        UserError: if they do not increase.
    """
    index = torch.arange(count) if index is None else index
    if (index.diff() <= 0).any():
        raise UserError(f"{place}.index must increase from sample to sample")
    return index


def in_batches(
    compute: Callable[[Tensor], P],
    kind: Callable[..., P],
    index: Tensor,
    batch_size: int,
    folder: str | Path | None,
    written: Callable[[], dict[str, Any]],
    replay: Callable[[P], None],
) -> list[P]:
    """All batches, those that an earlier call has left in the folder first.

    Args:
        compute: makes a batch of the rows of samples that are not finished.
        kind: makes a batch of its stored arrays.
        index: positions of all samples, (N,).
        batch_size: samples in a batch.
        folder: where finished batches are kept, or None.
        written: the fingerprint of the whole.
        replay: is told of each batch that was finished before.
    """
    store = None if folder is None else BatchStore(Path(folder), written(), kind)
    parts = [] if store is None else store.finished()
    for part in parts:
        replay(part)
    finished = np.concatenate([part.index for part in parts]) if parts else np.empty(0, dtype=np.int64)
    for rows in torch.from_numpy(~np.isin(index.numpy(), finished)).nonzero().flatten().split(batch_size):
        if len(rows):
            parts.append(compute(rows))
            if store is not None:
                store.add(parts[-1])
    return parts


class BatchStore(Generic[P]):
    """The finished batches of one evaluation: `fingerprint.json`, and `batches/<position of the first sample>.npz`.

    Files are written beside and renamed: each is whole or absent, whenever the process is killed.

    Args:
        folder: where; made if it does not exist.
        fingerprint: of the evaluation, in plain containers.
        kind: what makes a batch of its arrays.

    Raises:
        UserError: if the folder holds another evaluation.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], kind: Callable[..., P]):
        self.folder = folder
        self.kind = kind
        self.batches = folder / "batches"
        self.batches.mkdir(parents=True, exist_ok=True)
        for half in self.batches.glob(".*.partial"):  # what a killed process was writing
            half.unlink()
        file = folder / "fingerprint.json"
        if file.is_file():
            _require_same(file, json.loads(json.dumps(fingerprint)))
        else:
            replace_file(file, json.dumps(fingerprint, indent=2) + "\n")

    def finished(self) -> list[P]:
        """What earlier runs have left."""
        return [self._read(file) for file in sorted(self.batches.glob("*.npz"))]

    def add(self, part: P) -> None:
        """Keep a finished batch."""
        arrays = part.arrays()
        with written_beside(self.batches / f"{arrays['index'][0]:08d}.npz") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    def _read(self, file: Path) -> P:
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return self.kind(**arrays)
        except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise UserError(f"{file} is damaged: {error}; remove it to compute its samples again") from error


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

"""Files that are whole or absent, whenever the process is killed."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_beside(path: Path) -> Iterator[BinaryIO]:
    """A stream to write a file's content to; the file gets its name when all of it is on the disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file beside and rename it."""
    with written_beside(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def why_not_writable(folder: Path) -> str | None:
    """What keeps files from being written to a folder that exists; none if nothing does."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def csv_text(header: Iterable[object], rows: Iterable[Iterable[object]], delimiter: str = ",") -> str:
    """A table as CSV, lines ended by a newline alone."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()

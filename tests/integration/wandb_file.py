"""What an offline run has written for W&B, record by record."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7  # the file is a LevelDB log: blocks of parts with checksum, size and kind
WHOLE, LAST = 1, 4


def records(run: Path) -> Iterator[Record]:
    """The records of the offline run in a run folder."""
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    content, at, parts = file.read_bytes(), HEADER, b""
    while at < len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + HEADER])
        parts += content[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def items(updates: Any) -> dict[str, Any]:
    """Keys with their values, of a configuration, a summary or a step."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}

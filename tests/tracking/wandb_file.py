"""Reads back what W&B wrote of an offline run."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
"""W&B's file is a LevelDB log: after seven bytes of its own, records in fragments that never cross a block."""


def records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    data, position, content = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := BLOCK - position % BLOCK) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        content += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            content = b""
            yield record


def values(updates: Any) -> dict[str, Any]:
    return {"/".join(each.nested_key) or each.key: json.loads(each.value_json) for each in updates}


def read(folder: Path) -> list[Any]:
    (log,) = folder.rglob("*.wandb")
    return list(records(log))


def started(written: list[Any]) -> Any:
    (start,) = [record.run for record in written if record.WhichOneof("record_type") == "run"]
    return start


def exit_code(written: list[Any]) -> int:
    (code,) = [record.exit.exit_code for record in written if record.WhichOneof("record_type") == "exit"]
    return int(code)

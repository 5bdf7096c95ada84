"""Where two JSON values differ, and how."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

RELATIVE = 1e-9
"""Largest relative difference of two figures that count as equal, since another numpy may add in another order."""


def mismatches(recorded: Any, found: Any, key: str = "") -> Iterator[str]:
    """Yield where two JSON values differ, and how.

    Args:
        recorded: What a run has on disk.
        found: What follows when it is computed again.
        key: Where in the file the values stand, such as `points[0].score`; empty for the whole.
    """
    if isinstance(recorded, dict) and isinstance(found, dict):
        for name in dict.fromkeys([*recorded, *found]):
            yield from mismatches(recorded.get(name), found.get(name), f"{key}.{name}" if key else name)
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for place, (one, other) in enumerate(zip(recorded, found, strict=True)):
            yield from mismatches(one, other, f"{key}[{place}]")
    elif not same(recorded, found):
        yield f"{key}: {json.dumps(found, ensure_ascii=False)} follows, not {json.dumps(recorded, ensure_ascii=False)}"


def same(recorded: Any, found: Any) -> bool:
    """Return whether two JSON values are equal, floats nearly so.

    Args:
        recorded: What a run has on disk; where it is a float, both are compared within RELATIVE.
        found: What follows when it is computed again.
    """
    if isinstance(recorded, float) and isinstance(found, int | float):
        return math.isclose(recorded, found, rel_tol=RELATIVE, abs_tol=RELATIVE)
    return type(recorded) is type(found) and bool(recorded == found)

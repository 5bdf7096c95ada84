"""Choose the samples of a page: every item's score, and as many whole samples as there is room for."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

from dlmlab.page.rows import Row, full_passes

ROOM = 20_000_000
"""Most bytes of whole samples on a page, as JSON; it then stays below 30 MB even where compression gains nothing."""
LONGEST = 20_000
"""Most characters of a text on a page."""


class Shelf:
    """Chooses samples by a hash of task and item, so that decoders keep the same ones and can be compared on them.

    Attributes:
        prompts: Every text that samples refer to by its index.
        total: The number of samples.
        kept: How many of them are whole.
    """

    def __init__(self, rows: Sequence[Row]):
        self.prompts: list[str] = []
        self._places: dict[str, int] = {}
        room = ROOM
        samples = [sample for row in rows for sample in row.samples]
        self.total = len(samples)
        self._kept: set[int] = set()
        for sample in sorted(samples, key=rank):
            room -= size(sample)
            if room < 0:
                break
            self._kept.add(id(sample))
        self.kept = len(self._kept)

    def pack(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the samples of a run's rows, a list for each row, and the token texts that they refer to by index."""
        vocabulary: dict[str, int] = {}
        return {"rows": [self._row(row, vocabulary) for row in rows], "vocabulary": list(vocabulary)}

    def _row(self, row: Row, vocabulary: dict[str, int]) -> dict[str, Any]:
        return {
            "ids": [sample["id"] for sample in row.samples],
            "scores": [sample["score"] for sample in row.samples],
            "forwards": [sample["forwards"] for sample in row.samples],
            "full_passes": [round(full_passes(sample), 2) for sample in row.samples],
            "kept": {
                str(place): self._whole(sample, vocabulary)
                for place, sample in enumerate(row.samples)
                if id(sample) in self._kept
            },
        }

    def _whole(self, sample: dict[str, Any], vocabulary: dict[str, int]) -> dict[str, Any]:
        return {
            "prompt": self._prompt(clipped(sample["prompt"])),
            "text": clipped(sample["text"]),
            "reason": clipped(sample["reason"]),
            "target": clipped(target(sample)),
            "pieces": [vocabulary.setdefault(piece, len(vocabulary)) for piece in pieces(sample)],
            "step_of": sample["step_of"],
        }

    def _prompt(self, text: str) -> int:
        place = self._places.setdefault(text, len(self.prompts))
        if place == len(self.prompts):
            self.prompts.append(text)
        return place


def rank(sample: dict[str, Any]) -> int:
    """Return a number by which items are ordered for the room that there is."""
    return zlib.crc32(json.dumps([sample["task"], sample["id"]]).encode())


def size(sample: dict[str, Any]) -> int:
    """Return the most bytes that a sample takes on a page, where every prompt is another."""
    texts = [clipped(each) for each in (sample["prompt"], sample["text"], sample["reason"], target(sample))]
    return len(json.dumps([texts, pieces(sample), sample["step_of"]]))


def pieces(sample: dict[str, Any]) -> list[str]:
    """Return the text of each token; its number in a run that was written without texts."""
    found = sample.get("pieces")
    return [str(piece)[:LONGEST] for piece in (found if isinstance(found, list) and found else sample["tokens"])]


def target(sample: dict[str, Any]) -> str:
    """Return what a right answer has; empty in a run that was written without."""
    found = sample.get("target")
    return found if isinstance(found, str) else ""


def clipped(text: str) -> str:
    """Return a text that is not too long; one that is cut says so."""
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]} … [{left} more characters in samples.jsonl]"

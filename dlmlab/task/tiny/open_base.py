"""What open prompts have in common: many answers are right, and each is checked."""

from __future__ import annotations

import re
from abc import abstractmethod

from dlmlab.task.tiny.exercise import Exercise


class OpenPrompt(Exercise):
    """An exercise whose answers a checker judges."""

    @abstractmethod
    def check(self, text: str) -> bool:
        """Return whether an answer is right, in any of the forms that the prompt allows."""


def integers(text: str) -> list[int] | None:
    """Return the numbers of a comma-separated list, or None when the text is anything else."""
    parts = text.strip().removesuffix(".").split(", ")
    return [int(part) for part in parts] if all(re.fullmatch(r"\d+", part) for part in parts) else None

"""Open prompts: questions without a reference, to see how much a decoder's text differs from the baseline's.

python run.py experiment=evaluate task=open_prompts task.path=my_prompts.txt task.limit=null
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dlmlab.errors import UserError
from dlmlab.task.base import BaseTask, Item

OWN_PROMPTS = Path(__file__).parent / "data" / "open_prompts.txt"


@dataclass(frozen=True, kw_only=True)
class OpenPrompts(BaseTask):
    """The lines of a text file in UTF-8, a prompt each; blank lines are skipped.

    Attributes:
        path: The file; None is the project's own 50 prompts.

    Raises:
        UserError: When the prompts are first needed: the file is missing, empty or not UTF-8.
    """

    path: str | None = None

    def score(self, item: Item, text: str) -> None:
        """None: an answer is only compared with another decoder's, see `dlmlab.measure.stats.compare_texts`."""

    def load(self) -> list[Item]:
        """Read the prompts."""
        path = Path(self.path).expanduser() if self.path else OWN_PROMPTS
        lines = enumerate(re.split("\r?\n", _read(path)), 1)  # not at U+2028 and what else ends a line elsewhere
        items = [
            Item(id=f"{path.name}/{number}", prompt=line.strip(), answer="") for number, line in lines if line.strip()
        ]
        if not items:
            raise UserError(f"task.path={path} has no prompt: write one a line")
        return items


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"task.path={path} could not be read ({error.strerror}): name a text file") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"task.path={path}, line {line}: not UTF-8: save the file in UTF-8") from error

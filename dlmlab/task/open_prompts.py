"""Open prompts: questions without a reference, to see how much a decoder's text differs from the baseline's.

python run.py experiment=evaluate task=open_prompts task.path=my_prompts.txt task.limit=null
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dlmlab.errors import UserError
from dlmlab.settings import NonNegativeInt, PositiveInt
from dlmlab.task.base import Item, fingerprint_items, select

OWN_PROMPTS = Path(__file__).parent / "data" / "open_prompts.txt"


@dataclass(frozen=True, kw_only=True)
class OpenPrompts:
    """The lines of a text file in UTF-8, a prompt each; blank lines are skipped.

    path: the file, the project's own 50 prompts when None. limit, shard, num_shards: see `dlmlab.task.base.select`.

    Raises UserError when the prompts are first needed and the file is missing, empty or not UTF-8.
    """

    name: str
    version: str
    gen_length: PositiveInt
    block_length: PositiveInt
    steps: PositiveInt
    path: str | None = None
    limit: PositiveInt | None = None
    shard: NonNegativeInt = 0
    num_shards: PositiveInt = 1

    def items(self) -> list[Item]:
        return select(self._all, self.limit, self.shard, self.num_shards)

    def score(self, item: Item, text: str) -> None:
        """None: an answer is only compared with another decoder's, see `dlmlab.measure.stats.compare_texts`."""

    @property
    def fingerprint(self) -> str:
        return fingerprint_items(self._all)

    @cached_property
    def _all(self) -> list[Item]:
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

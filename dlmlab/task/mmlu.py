"""MMLU (arXiv:2009.03300): multiple-choice questions, asked without examples, the answer generated.

python run.py experiment=evaluate task=mmlu
python run.py experiment=evaluate task=mmlu 'task.subjects=[astronomy]' task.limit=null task.path=~/mmlu
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from dlmlab.errors import UserError
from dlmlab.task.base import BaseTask, Item, Score
from dlmlab.task.mmlu_data import LETTERS, Question, from_hub, from_path


@dataclass(frozen=True, kw_only=True)
class MMLU(BaseTask):
    """Test questions of the subjects, the subjects taking turns, so that any limit takes about as many of each.

    Attributes:
        subjects: Names of subjects, such as `astronomy`.
        filter: Takes the answer's letter out of the model's text; empty where it gives none.
        revision: The hub's commit.
        path: A local file or folder, see `dlmlab.task.mmlu_data`; None is the hub.

    Raises:
        UserError: When the questions are first needed: the dataset is out of reach, a subject is unknown, or a line is
            malformed.
    """

    subjects: Sequence[str]
    filter: Callable[[str], str]
    revision: str
    path: str | None = None

    def score(self, item: Item, text: str) -> Score:
        letter = self.filter(text)
        if letter == item.answer:
            return Score(1.0)
        return Score(0.0, "wrong answer" if letter else "no answer")

    def load(self) -> list[Item]:
        """Read the questions."""
        if not self.subjects:
            raise UserError("task.subjects is empty: name at least one MMLU subject")
        path = Path(self.path).expanduser() if self.path else None
        questions = from_path(self.subjects, path) if path else from_hub(self.subjects, self.revision)
        columns = [
            [_item(question, number) for number, question in enumerate(questions[subject])]
            for subject in dict.fromkeys(self.subjects)
        ]
        return [item for row in zip_longest(*columns) for item in row if item is not None]


def _item(question: Question, number: int) -> Item:
    subject = question.subject.replace("_", " ")
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=True))
    return Item(
        id=f"{question.subject}/{number}",
        prompt=f"Answer this question about {subject} with one letter: A, B, C or D.\n\n{question.text}\n{choices}",
        answer=question.answer,
        meta={"subject": question.subject},
    )

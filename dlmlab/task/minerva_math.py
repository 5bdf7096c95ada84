"""MATH (arXiv:2103.03874) with Minerva's four examples (arXiv:2206.14858): MATH-500, or all 5,000 test problems.

python run.py experiment=evaluate task=math500 task.path=math500.jsonl
python run.py experiment=evaluate task=minerva_math

lm-eval builds the prompts. Its own scorer needs an antlr that does not go with Hydra, so that answers are scored here:

math_verify  the last formula of the answer equals the solution's, by math-verify.
boxed        what stands in the answer's last box is the gold answer, both in Minerva's normal form.
exact        what follows `Final Answer: The final answer is` is, in that form: the examples' own wording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from dlmlab.settings import check, one_of
from dlmlab.task import harness
from dlmlab.task.latex import comparer
from dlmlab.task.lm_eval import LmEval, Question

SCORINGS = ("math_verify", "boxed", "exact")


@dataclass(frozen=True, kw_only=True)
class MinervaMath(LmEval):
    """Problems of MATH. The other settings are lm-eval's, see `LmEval`.

    Attributes:
        scoring: Which of the module's three is the score.
    """

    scoring: Annotated[str, one_of(SCORINGS)] = "math_verify"

    def metrics(self, question: Question, text: str) -> dict[str, float]:
        """Score an answer in all three ways.

        Args:
            question: What was asked.
            text: The answer's text, up to its end.
        """
        own, doc = self._scorer, question.request.doc
        box = own.last_boxed_only_string(text)
        boxed = own.normalize_final_answer(_unboxed(box)) if box else ""
        stated = own.normalize_final_answer(own.get_unnormalized_answer(text))
        found = comparer().compare(doc["solution"], text)
        return {
            "math_verify": float(found == "equal"),
            "boxed": float(boxed == doc["answer"]),
            "exact": float(stated == doc["answer"]),
        }

    def reason(self, values: Mapping[str, float]) -> str:
        """Return why an answer is not right: right in another way, or in none."""
        return "right in another scoring" if any(values.values()) else "wrong answer"

    def _check_scoring(self, question: Question) -> None:
        check("task.scoring", self.scoring, one_of(SCORINGS))

    @cached_property
    def _scorer(self) -> Any:
        """lm-eval's functions for Minerva's normal form."""
        with harness.importing():
            from lm_eval.tasks.minerva_math import utils
        return utils


def _unboxed(box: str) -> str:
    r"""Return what stands in `\boxed{…}`, `\fbox{…}` or `\boxed …`."""
    return box[box.index("{") + 1 : -1] if "{" in box else box.removeprefix("\\boxed ")

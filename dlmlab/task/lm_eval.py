"""Any task of lm-eval's that a masked diffusion model can answer, as a task of ours; all but decoding is lm-eval's.

python run.py experiment=evaluate task=gsm8k task.path=gsm8k task.limit=20
python run.py experiment=evaluate task=lm_eval task.task=drop task.gen_length=64

The whole prompt, examples included, is one turn of the user's, as lm-eval makes it with `--apply_chat_template` and
`--fewshot_as_multiturn false`. Multiple choice is answered by likelihood, which
`experiment=evaluate` leaves to `experiment=likelihood`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, zip_longest
from typing import Annotated, Any, NamedTuple

from dlmlab.errors import UserError
from dlmlab.settings import NonNegativeInt, near, one_of
from dlmlab.task import harness
from dlmlab.task.base import BaseTask, Item, Score, until

GENERATED = "generate_until"
ANSWERED_BY = {"text": (GENERATED,), "likelihood": ("multiple_choice",)}
"""The output types of lm-eval's that each way of answering can give."""


class Question(NamedTuple):
    """One document of an lm-eval task.

    Attributes:
        task: The task, an object of lm-eval's.
        requests: The requests that lm-eval makes of the document: one, or one a choice.
    """

    task: Any
    requests: tuple[Any, ...]

    @property
    def request(self) -> Any:
        """Return the first of its requests."""
        return self.requests[0]


@dataclass(frozen=True, kw_only=True)
class LmEval(BaseTask):
    """The documents of an lm-eval task in its order; those of a group's tasks take turns.

    Attributes:
        task: Its name in lm-eval, a task or a group.
        path: A local file or folder in the published format, see `dlmlab.task.local_data`; None is the hub.
        revision: The hub's commit; None is its newest.
        num_fewshot: Examples in the prompt; None is the task's own number.
        scoring: The metric that is the score, as lm-eval calls it (`exact_match,strict-match`), the others standing
            beside it; None is the first.
        answered_by: `text` that is decoded, or the choices' `likelihood`; None is what lm-eval asks for.

    Raises:
        UserError: When the documents are first needed: as `dlmlab.task.harness.load` does, or the task can't be
            answered in this way, or has no such scoring.
    """

    task: str
    path: str | None = None
    revision: str | None = None
    num_fewshot: NonNegativeInt | None = None
    scoring: str | None = None
    answered_by: Annotated[str, one_of(ANSWERED_BY)] | None = "text"

    def load(self) -> list[Item]:
        """Build every prompt, as lm-eval does."""
        return [self._item(question) for question in self.questions.values()]

    def score(self, item: Item, text: str) -> Score:
        """Score by lm-eval's filters and metrics; lists, such as one of instructions, count by their mean."""
        values = self.metrics(self.questions[item.id], until(text, item.meta["until"]))
        value = values[self.scoring or next(iter(values))]
        return Score(value, "" if value == 1 else self.reason(values), values)

    def reason(self, values: Mapping[str, float]) -> str:
        """Return why an answer is not right."""
        return "wrong answer"

    def metrics(self, question: Question, text: str) -> dict[str, float]:
        """Return all metrics of an answer, by `metric,filter` where there are several filters.

        Args:
            question: What was asked.
            text: The answer's text, up to its end.
        """
        from lm_eval.api.instance import Instance

        task, request = question.task, question.request
        fresh = Instance(GENERATED, request.doc, request.arguments, 0, metadata=request.metadata, resps=[text])
        found: dict[str, float] = {}
        for ensemble in task._filters:
            ensemble.apply([fresh])
            values = task.process_results(fresh.doc, [fresh.filtered_resps[ensemble.name]])
            suffix = f",{ensemble.name}" if len(task._filters) > 1 else ""
            found |= {f"{name}{suffix}": _fraction(name, value) for name, value in values.items()}
        return found

    def score_choices(self, item: Item, found: Sequence[tuple[float, bool]]) -> Score:
        """Score the choices' log-likelihoods, and whether each is the greedy answer, by lm-eval's metrics.

        Metrics that are no number for one answer, such as F1, are left out.

        Args:
            item: The item.
            found: For each choice its log-likelihood, in nats, and whether it is the greedy answer.
        """
        question = self.questions[item.id]
        results = question.task.process_results(question.request.doc, list(found))
        values = {name: float(value) for name, value in results.items() if isinstance(value, int | float)}
        value = values[self.scoring or next(iter(values))]
        return Score(value, "" if value == 1 else self.reason(values), values)

    def name_of(self, question: Question) -> str:
        """Return an item's id."""
        return f"{question.request.task_name}/{question.request.doc_id}"

    @cached_property
    def tasks(self) -> list[Any]:
        """Return lm-eval's own objects, one a task of a group; their data are read."""
        return harness.load(self.task, self.path, self.revision, self.num_fewshot)

    @cached_property
    def way(self) -> str:
        """Return how the task is answered: as it is told, else as the first of lm-eval's tasks asks."""
        asked = self.tasks[0].OUTPUT_TYPE
        return self.answered_by or next((way for way, types in ANSWERED_BY.items() if asked in types), "text")

    @cached_property
    def questions(self) -> dict[str, Question]:
        """Return all documents by their item's id."""
        for task in self.tasks:
            self.check(task)
        rows = zip_longest(*(self._questions(task) for task in self.tasks))
        questions = [question for row in rows for question in row if question is not None]
        self._check_scoring(questions[0])
        return {self.name_of(question): question for question in questions}

    def check(self, task: Any) -> None:
        """Raise UserError for a task of lm-eval's that can't be one of ours."""
        if task.OUTPUT_TYPE not in ANSWERED_BY[self.way]:
            other = next((way for way, kinds in ANSWERED_BY.items() if task.OUTPUT_TYPE in kinds), None)
            experiment = {"text": "experiment=evaluate", "likelihood": "experiment=likelihood", None: "another task"}
            raise UserError(
                f"task.task={self.task} asks for {task.OUTPUT_TYPE}, which is not given by {self.way}: "
                f"choose {experiment[other]}"
            )
        if task.config.gen_prefix:
            raise UserError(f"task.task={self.task} begins the model's answer for it, which is not supported here")

    def _check_scoring(self, question: Question) -> None:
        """Raise UserError for a scoring that the task does not have."""
        if self.scoring is None:
            return
        by_text = self.way == "text"
        names = list(self.metrics(question, "") if by_text else question.task._metric_fn_list)
        if self.scoring not in names:
            raise UserError(
                f"task.scoring={self.scoring!r} is not one of {', '.join(names)}{near(self.scoring, names)}"
            )

    def _questions(self, task: Any) -> list[Question]:
        try:
            with harness.importing():
                task.build_all_requests(limit=None, rank=0, world_size=1)
        except UserError:
            raise
        except Exception as error:  # a template or function of the task's, over a row that lacks something
            raise UserError(
                f"task.path={self.path}: {task.config.task} cannot be asked of these data ({harness.one_line(error)})"
            ) from error
        documents = groupby(task.instances, key=lambda request: request.doc_id)
        return [Question(task, tuple(requests)) for _, requests in documents]

    def _item(self, question: Question) -> Item:
        context, settings = question.request.args
        target = _text(question.task.doc_to_target(question.request.doc))
        if self.way == "likelihood":
            meta: dict[str, Any] = {"choices": [list(request.args) for request in question.requests]}
        else:
            stops = settings.get("until") or []
            meta = {"until": [stops] if isinstance(stops, str) else list(stops)}
        return Item(id=self.name_of(question), prompt=context, answer=target, meta=meta)


def _text(target: Any) -> str:
    return "\n".join(map(str, target)) if isinstance(target, Sequence) and not isinstance(target, str) else str(target)


def _fraction(name: str, value: Any) -> float:
    """Return a metric of one answer as a number from 0 to 1. Raises UserError for one that is none."""
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        value = sum(map(float, value)) / len(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 1:
        raise UserError(
            f"lm-eval's metric {name} is {value!r} for one answer, not a number from 0 to 1: choose another task"
        )
    return number

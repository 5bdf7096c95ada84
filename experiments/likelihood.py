"""Which choice is the likeliest? Multiple choice by LLaDA's Monte Carlo estimate (`dlmlab.measure.likelihood`).

    python run.py experiment=likelihood task=lm_eval task.task=arc_challenge
    python run.py experiment=likelihood task=mmlu_likelihood task.path=mmlu

Every choice of an item has the same masks' seed, whatever else the run estimates; no decoder plays a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from dlmlab.errors import UserError
from dlmlab.generation import encode
from dlmlab.loop.interrupt import asked, finishing
from dlmlab.measure.likelihood import log_likelihood
from dlmlab.record.folder import LIKELIHOODS
from dlmlab.record.journal import Journal
from dlmlab.run import build
from dlmlab.run.begin import Run, begin
from dlmlab.run.display import bar
from dlmlab.run.likelihoods import report_fields
from dlmlab.settings import PositiveInt
from dlmlab.task.base import Item, Score
from dlmlab.task.lm_eval import LmEval
from dlmlab.tracking import Report

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

KINDS: Mapping[str, Any] = {"samples": PositiveInt, "chat_template": bool}


class Parts(NamedTuple):
    """What is asked."""

    task: LmEval


def check(cfg: DictConfig) -> Parts:
    """Return the task.

    Raises:
        UserError: It is none of lm-eval's multiple choice.
    """
    name = cfg.task.get("name")
    if not (isinstance(name, str) and "answered_by" in cfg.task):
        raise UserError(
            f"task={name} is not answered by likelihood: choose task=mmlu_likelihood, or lm_eval with a task"
        )
    task = build.task(cfg, name, answered_by="likelihood")
    assert isinstance(task, LmEval)
    return Parts(task)


def run(cfg: DictConfig, parts: Parts) -> None:
    """Estimate every choice's likelihood, and score the likeliest.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    with begin(cfg, [parts.task]) as run:
        entries = answer(run, parts.task)
        report = Report(
            title=f"Likelihood: {parts.task.name}",
            question=f"Which choice does {build.model_name(cfg)} find the likeliest?",
            settings={"model": build.model_name(cfg), "samples": cfg.samples, "items": len(entries)},
            **report_fields(entries),
        )
        run.publish(report)


def answer(run: Run, task: LmEval) -> list[dict[str, Any]]:
    """Return an entry for each item, in order; those that an earlier sitting has left are not estimated again.

    Where the user has asked for an end, the items that are left are missing.

    Args:
        run: The run, whose folder keeps the entries.
        task: The task whose items are asked.
    """
    journal = Journal(run.folder / LIKELIHOODS)
    journal.warn("their items are estimated again")
    known = {entry["index"]: entry for entry in journal.entries}
    wanted = {task.shard + place * task.num_shards: item for place, item in enumerate(task.items())}
    missing = {index: item for index, item in wanted.items() if index not in known}
    with finishing(), bar(task.name, len(wanted), len(wanted) - len(missing), run.cfg.display) as progress:
        for index, item in missing.items():
            if asked():
                break
            known[index] = {"index": index, "id": item.id, **estimated(run, task, item)}
            journal.append(known[index])
            progress.advance()
    journal.rewrite(known[index] for index in sorted(known))
    return [known[index] for index in sorted(known)]


def estimated(run: Run, task: LmEval, item: Item) -> dict[str, Any]:
    """Estimate an item's choices, and score them.

    Args:
        run: The run: its model, its number of masks and its seed.
        task: The task, which scores.
        item: An item of it.

    Returns:
        For each choice its log-likelihood in nats and whether it is the greedy answer; the score, and its variants.
    """
    found = [
        log_likelihood(
            run.model, *tokens(run, context, choice, item.id), samples=run.cfg.samples, batch_size=run.batch.size,
            seed=run.cfg.seed,
        )
        for context, choice in item.meta["choices"]
    ]  # fmt: skip
    score: Score = task.score_choices(item, [(each.log_likelihood, each.greedy) for each in found])
    return {
        "log_likelihoods": [each.log_likelihood for each in found],
        "greedy": [each.greedy for each in found],
        "score": score.value,
        "variants": dict(score.variants),
    }


def tokens(run: Run, context: str, choice: str, name: str) -> tuple[Sequence[int], Sequence[int]]:
    """Return a context's and a choice's token ids, the choice's as they follow the context.

    Args:
        run: The run: its model's tokenizer, and whether the context is a message in the chat template.
        context: The text that comes before the choice.
        choice: The choice's text, with the space before it.
        name: The item's own name, for what is said of one that doesn't fit.

    Raises:
        UserError: The checkpoint has no tokenizer.
    """
    tokenizer = run.model.tokenizer
    if tokenizer is None:
        raise UserError("the checkpoint has no tokenizer, without which no choice can be asked")
    if run.cfg.chat_template:
        return encode(run.model, context, 0, name), tokenizer(choice.lstrip(), add_special_tokens=False)["input_ids"]
    whole, first = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (context + choice, context))
    return whole[: len(first)], whole[len(first) :]


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run that left these likelihoods; see `dlmlab.verify`."""
    return report_fields(Journal(saved.folder / LIKELIHOODS).entries)

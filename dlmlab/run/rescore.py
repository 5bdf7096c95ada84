"""What a run left is read and held against itself: texts against tokens, scores against the task's own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.generation import answer_text
from dlmlab.model import checkpoint
from dlmlab.model.place import SMALL_FILES, find
from dlmlab.record.folder import MANIFEST, SAMPLES
from dlmlab.record.samples import Sample, lost_samples
from dlmlab.run import build, conf, trust
from dlmlab.run.cli import one_line
from dlmlab.run.multirun import Job
from dlmlab.task.base import Task, score_answer

MOST_TOKENS = 2**31
"""Above all token ids."""


@dataclass(frozen=True)
class Saved:
    """What a finished run left.

    Attributes:
        folder: The run's folder.
        results: Its results.json.
        manifest: Its manifest.
        cfg: Its config.
        samples: Those of all tasks and decoders.
        model: All that is known of the model without weights.

    Raises:
        UserError: What is read is missing, damaged or older than the manifest's present form.
    """

    folder: Path
    results: dict[str, Any]
    manifest: dict[str, Any]

    @cached_property
    def cfg(self) -> DictConfig:
        return trust.plain_config(self.manifest["config"])

    @cached_property
    def samples(self) -> list[Sample]:
        try:
            return Job(self.folder, self.folder.name).samples
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.folder / SAMPLES} cannot be read ({one_line(error)})") from error

    @cached_property
    def model(self) -> SimpleNamespace:
        ends = (self.manifest["model"] or {}).get("end_token_ids")
        if ends is None:
            raise UserError(f"{self.folder / MANIFEST} is of an older dlmlab, without end_token_ids: run it again")
        return SimpleNamespace(end_token_ids=tuple(ends))

    def of(self, task: str, decoder: str) -> list[Sample]:
        """Return one decoder's samples of a task, in order.

        Args:
            task: The task's name in the samples.
            decoder: The decoder's name there.

        Raises:
            UserError: There are none.
        """
        own = [each for each in self.samples if (each.task, each.decoder) == (task, decoder)]
        if not own:
            raise UserError(f"{self.folder / SAMPLES} has no sample of {task} by {decoder}")
        return sorted(own, key=lambda each: each.index)


@dataclass
class Findings:
    """The result of a check.

    Attributes:
        problems: Figures that do not follow, a line for each.
        unchecked: What could not be checked, and why.
    """

    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def check_samples(saved: Saved, sandbox: str, found: Findings) -> None:
    """Check that each sample is consistent in itself: its text, its forward passes, its score.

    Args:
        saved: What the run left.
        sandbox: What executes code that a model wrote: `bubblewrap` or `rlimit`.
        found: Takes the problems, and what could not be checked.
    """
    if lost := lost_samples(saved.folder, saved.manifest):
        found.problems.append(lost)
    times = Counter((each.task, each.decoder, each.index) for each in saved.samples)
    found.problems += [
        f"{at(each)} is there twice" for each in saved.samples if times[each.task, each.decoder, each.index] > 1
    ]
    idle = {name: ends_idle(saved, name) for name in {each.decoder for each in saved.samples if idle_passes(each)}}
    for sample in saved.samples:
        counted = len(sample.step_of) == len(sample.tokens) and min(sample.step_of, default=0) >= 0
        if not counted or idle_passes(sample) not in range(sample.forwards if idle.get(sample.decoder) else 1):
            found.problems.append(f"{at(sample)}: its steps are not those of {sample.forwards} forward passes")
    check_texts(saved, found)
    for name in dict.fromkeys(each.task for each in saved.samples):
        try:
            task = scorer(saved, name, sandbox)
        except (UserError, OSError) as error:
            found.unchecked.append(f"scores of {name}: {one_line(error)}")
        else:
            found.problems += score_again(task, [each for each in saved.samples if each.task == name])


def idle_passes(sample: Sample) -> int:
    """Return how many passes followed the one that committed the last of a sample's tokens."""
    return sample.forwards - 1 - max(sample.step_of, default=-1)


def ends_idle(saved: Saved, decoder: str) -> bool:
    """Return whether a decoder's last passes may commit nothing of an answer.

    A rule that edits looks over a full block once more; a block on a grid may reach beyond the answer's length.

    Args:
        saved: What the run left.
        decoder: The decoder's name in the samples, maybe with its cache's.
    """
    name = decoder.partition(" + ")[0]  # of a decoder with a cache
    try:
        part = conf.choice(saved.cfg, "decoder", name) if name in conf.options("decoder") else saved.cfg.get("decoder")
        trust.check_part("decoder", part)
        if resolve_name(part["_target_"]).edits:
            return True
        folder = find(saved.cfg.model.path, saved.cfg.model.revision, SMALL_FILES, offline=True)
        network = checkpoint.read_config(folder)
        canvas = OmegaConf.select(saved.cfg, "generation.canvas") or network.canvas
        return bool(network.block_size) or canvas == "growing"
    except UserError:  # nothing says so
        return False


def check_texts(saved: Saved, found: Findings) -> None:
    """Check that texts are those of their tokens, by the checkpoint's tokenizer.

    Args:
        saved: What the run left.
        found: Takes the problems; where the tokenizer can't be had or is another one, that texts are not checked.
    """
    try:
        folder = find(saved.cfg.model.path, saved.cfg.model.revision, SMALL_FILES, offline=True)
        tokenizer = checkpoint.read_tokenizer(folder)
    except UserError as error:
        found.unchecked.append(f"texts: {one_line(error)}")
        return
    if manifest.tokenizer_fingerprint(tokenizer) != saved.manifest["model"]["tokenizer"]:
        found.unchecked.append(f"texts: the tokenizer of {saved.cfg.model.path} is another one now")
        return
    model = SimpleNamespace(tokenizer=tokenizer, end_token_ids=saved.model.end_token_ids)
    found.problems += [
        f"{at(each)}: its text is not that of its tokens"
        for each in saved.samples
        if not all(0 <= token < MOST_TOKENS for token in each.tokens)
        or each.text != (answer_text(model, each.tokens) or "")
    ]


def scorer(saved: Saved, name: str, sandbox: str) -> Task:
    """Return the task that scored the samples, whole.

    Args:
        saved: What the run left.
        name: The task's name in the samples, maybe with its template's, such as `gsm8k@brief`.
        sandbox: What executes code that a model wrote: `bubblewrap` or `rlimit`.

    Raises:
        UserError: It can't be had, is none of dlmlab's, or its data have changed.
    """
    base = name.partition("@")[0]  # of a task in a template: `gsm8k@brief`
    cfg = saved.cfg.copy()
    trust.check_part("sandbox", cfg.sandbox)
    if cfg.task.get("name") == base:
        trust.check_part("task", cfg.task)
    elif base not in conf.options("task"):
        raise UserError(f"{name!r} is no task of dlmlab")
    else:
        trust.check_overrides(cfg.task, build.TASK_OVERRIDES)
    for part in (cfg, cfg.task):
        if OmegaConf.is_config(part.get("sandbox")):
            part.sandbox.kind = sandbox
    task = build.task(cfg, name, limit=None, shard=0, num_shards=1)
    recorded = saved.manifest["data"].get(name)
    if recorded != (now := manifest.describe_data([task])[name]):
        raise UserError(f"its items or scoring are other ones now ({recorded} then, {now} now)")
    return task


def score_again(task: Task, samples: Sequence[Sample]) -> Iterator[str]:
    """Score the samples once more, and yield what is different, a line for each sample.

    Args:
        task: The task that scored them, whole: a sample's index counts its items.
        samples: The task's samples, of all decoders.
    """
    items = task.items()
    known = [
        each
        for each in samples
        if each.index < len(items) and (items[each.index].id, items[each.index].prompt) == (each.id, each.prompt)
    ]
    yield from (f"{at(each)}: no such item in the task" for each in samples if each not in known)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = {(each.index, each.text): None for each in known}
        scores = dict(
            zip(answers, pool.map(lambda key: score_answer(task, items[key[0]], key[1]), answers), strict=True)
        )
    for each in known:
        score = scores[each.index, each.text]
        now = (score.value, score.reason, dict(score.variants)) if score else (None, "", {})
        if now != (recorded := (each.score, each.reason, each.variants)):
            yield f"{at(each)}: scored {now}, not {recorded}"


def at(sample: Sample) -> str:
    """Return a sample's name."""
    return f"sample {sample.id} of {sample.task} by {sample.decoder}"

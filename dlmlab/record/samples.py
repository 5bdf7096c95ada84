"""The samples of a run: every item, decoded and scored, a line of samples.jsonl each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlmlab.errors import UserError
from dlmlab.record.folder import SAMPLE_SHAPE, SAMPLES, fits, read_lines
from dlmlab.record.journal import Journal

TOLD = "samples"
"""Key of a finished run's manifest that holds the number of its samples."""
SHAPE = {**SAMPLE_SHAPE, "index": int, "forwards": int}


@dataclass(frozen=True)
class Sample:
    """One item, decoded and scored.

    Attributes:
        task: The task's name.
        decoder: What the run calls the decoder.
        index: The item's index in the task, whatever shard it came in.
        id: The item's own name, unique within the task.
        prompt: The item's prompt.
        text: The answer, up to the first end token; empty without a tokenizer.
        tokens: See `dlmlab.types.Output`.
        step_of: Likewise.
        forwards: Likewise.
        score: From 0 to 1; None where the task gives none.
        reason: Why the answer isn't right; empty when it is.
        variants: The score by other ways of extracting the answer.
        target: What a right answer contains, such as a letter or the tests.
        answer_tokens: Tokens of the answer's text, cut at the task's stops and tokenised again; None without a
            tokenizer, and in samples of older versions.
        pieces: The text of each token; empty in samples of older versions.
        positions: See `dlmlab.types.Output`.
        full_passes: Likewise.
    """

    task: str
    decoder: str
    index: int
    id: str
    prompt: str
    text: str
    tokens: list[int]
    step_of: list[int]
    forwards: int
    score: float | None
    reason: str
    variants: dict[str, float]
    target: str = ""
    answer_tokens: int | None = None  # None without a tokenizer, and in samples of older versions
    pieces: list[str] = field(default_factory=list)  # samples of older versions have none, nor the following
    positions: int = 0
    full_passes: float = 0.0


class SampleFile:
    """`samples.jsonl` of a run: gets a line as soon as an item is scored, and is sorted when the run is finished.

    It begins with what an earlier start of the run has left; one line on stderr tells of damaged lines.
    """

    def __init__(self, folder: Path):
        self._journal = Journal(folder / SAMPLES)
        self._samples = {_key(sample): sample for sample in _samples_of(self._journal)}
        self._journal.warn("their items are decoded again")

    def known(self, task: str, decoder: str) -> dict[int, Sample]:
        """Return the samples that are there already, by the item's index in the task.

        Args:
            task: The task's name.
            decoder: What the rule is called in the samples.
        """
        return {index: each for (*names, index), each in self._samples.items() if names == [task, decoder]}

    def add(self, sample: Sample) -> None:
        """Append a line; no kill loses it once this returns.

        Raises:
            OSError: The line can't be written.
        """
        self._journal.append(asdict(sample))
        self._samples[_key(sample)] = sample

    def finish(self) -> None:
        """Sort by task, decoder and index."""
        self._journal.rewrite(asdict(self._samples[key]) for key in sorted(self._samples))


def read_samples(folder: Path) -> list[Sample]:
    """Return the samples of a finished run.

    Raises:
        UserError: There are none, or damaged ones.
    """
    journal = Journal(folder / SAMPLES)
    if not journal.entries:
        raise UserError(f"{journal.path} has no samples: name the folder of a run that decoded some")
    if journal.damaged:
        raise UserError(f"{journal.path} has {journal.damaged} damaged lines: run it again with resume={folder}")
    return _samples_of(journal)


def lost_samples(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Say in a line that a finished run's samples are not as many as it had; empty where they are.

    Args:
        folder: The run's.
        manifest: Its manifest. Those of older versions don't tell.

    Raises:
        OSError: The samples can't be read.
    """
    told = manifest.get(TOLD)
    _, number = read_lines(folder / SAMPLES, {})
    return "" if told in (None, number) else f"{SAMPLES} has {number} of {told} samples"


def count_samples(folder: Path) -> dict[str, int]:
    """Return the number of a finished run's samples, as its manifest records it."""
    return {TOLD: read_lines(folder / SAMPLES, {})[1]} if (folder / SAMPLES).exists() else {}


def _samples_of(journal: Journal) -> list[Sample]:
    try:
        return [_sample_of(entry) for entry in journal.entries]
    except TypeError as error:
        raise UserError(f"{journal.path} was written by other code ({error}): choose another folder") from error


def _sample_of(entry: Mapping[str, Any]) -> Sample:
    """Return the sample of a line.

    Raises:
        TypeError: Something of it is missing, unknown or of another type.
    """
    sample = Sample(**entry)
    wrong = [key for key, kind in SHAPE.items() if not fits(entry[key], kind)]
    lists = {"tokens": (sample.tokens, int), "step_of": (sample.step_of, int), "pieces": (sample.pieces, str)}
    for key, (values, kind) in lists.items():
        if not isinstance(values, list) or not {type(each) for each in values} <= {kind}:
            wrong.append(key)
    if not isinstance(sample.variants, dict) or not all(fits(each, (int, float)) for each in sample.variants.values()):
        wrong.append("variants")
    if wrong:
        raise TypeError(f"{', '.join(wrong)} of another type")
    return sample


def _key(sample: Sample) -> tuple[str, str, int]:
    return sample.task, sample.decoder, sample.index

"""Where MMLU's questions come from: the hub, or a local file or folder, parquet or CSV (arXiv:2009.03300).

A local folder is a clone of the hub's `cais/mmlu` (`<subject>/test-00000-of-00001.parquet`), the authors' original
archive (`test/<subject>_test.csv`: question, four choices and the letter, without a header), or any parquet or CSV
files with the columns question, subject, choices and answer.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from dlmlab.errors import UserError
from dlmlab.task import hub

HUB = "cais/mmlu"
LETTERS = "ABCD"
# fmt: off
SUBJECTS = (
    "abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology",
    "college_chemistry", "college_computer_science", "college_mathematics", "college_medicine", "college_physics",
    "computer_security", "conceptual_physics", "econometrics", "electrical_engineering", "elementary_mathematics",
    "formal_logic", "global_facts", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
    "high_school_european_history", "high_school_geography", "high_school_government_and_politics",
    "high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics", "high_school_physics",
    "high_school_psychology", "high_school_statistics", "high_school_us_history", "high_school_world_history",
    "human_aging", "human_sexuality", "international_law", "jurisprudence", "logical_fallacies", "machine_learning",
    "management", "marketing", "medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition",
    "philosophy", "prehistory", "professional_accounting", "professional_law", "professional_medicine",
    "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology",
    "world_religions",
)
# fmt: on
COLUMNS = ("question", "subject", "choices", "answer")
PLACE_FILES = (
    f"clone https://huggingface.co/datasets/{HUB} on a machine with network and set task.path to its folder, "
    "or set HF_HUB_OFFLINE=1 to use what is cached"
)
_OTHER_SPLIT = re.compile(r"(^|[_/-])(dev|val|validation|train|auxiliary_train)([_.-]|$)")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


class Question(NamedTuple):
    """One multiple-choice question.

    Attributes:
        subject: The name of its subject, such as `astronomy`.
        text: What is asked.
        choices: Four texts.
        answer: The right one's letter.
    """

    subject: str
    text: str
    choices: tuple[str, ...]
    answer: str


def from_hub(subjects: Sequence[str], revision: str) -> dict[str, list[Question]]:
    """Return the test questions of each subject, from `cais/mmlu` at a revision.

    Args:
        subjects: Names of subjects, such as `astronomy`.
        revision: The hub's commit.

    Raises:
        UserError: A subject is unknown, or `dlmlab.task.hub.load` can't give it.
    """
    _check_subjects(subjects, SUBJECTS)
    tables = {subject: hub.load(HUB, subject, revision, PLACE_FILES, split="test") for subject in subjects}
    return {
        subject: [_question(row, f"{HUB} {subject}, row {number}") for number, row in enumerate(table, 1)]
        for subject, table in tables.items()
    }


def from_path(subjects: Sequence[str], path: Path) -> dict[str, list[Question]]:
    """Return the test questions of each subject, from a local file or folder.

    Args:
        subjects: Names of subjects; none is all.
        path: A clone of the hub's data set, or the authors' archive.

    Raises:
        UserError: The path has no questions, a subject is unknown, or a line is malformed.
    """
    if not path.exists():
        raise UserError(f"task.path={path} does not exist: {PLACE_FILES}")
    files = [path] if path.is_file() else _test_files(path)
    if not files:
        raise UserError(f"task.path={path} has no .parquet or .csv file: {PLACE_FILES}")
    by_subject: dict[str, list[Question]] = {}
    source: dict[str, Path] = {}
    for file in files:
        rows = _csv_questions(file) if file.suffix == ".csv" else _parquet_questions(file)
        for question in rows:
            first = source.setdefault(question.subject, file)
            if (first.parent, first.suffix) != (file.parent, file.suffix):
                raise UserError(f"{question.subject} is in {first} and in {file}: set task.path to one of them")
            by_subject.setdefault(question.subject, []).append(question)
    _check_subjects(subjects, list(by_subject))
    return {subject: by_subject[subject] for subject in subjects}


def _check_subjects(wanted: Sequence[str], known: Sequence[str]) -> None:
    for subject in wanted:
        if subject not in known:
            near = get_close_matches(subject, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known)[:60])}"
            raise UserError(f"task.subjects: unknown MMLU subject {subject!r}: {hint}")


def _test_files(folder: Path) -> list[Path]:
    """Return the folder's data files, less those of other splits, and less a clone's `all/`, which repeats the rest."""
    found = sorted(file for suffix in ("csv", "parquet") for file in folder.rglob(f"*.{suffix}"))
    files = [file for file in found if not _OTHER_SPLIT.search(file.relative_to(folder).as_posix())]
    return [file for file in files if file.parent.name != "all"] or files


def _parquet_questions(file: Path) -> Iterator[Question]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a readable parquet file: fetch it again ({str(error)[:80]})") from error
    for number, row in enumerate(rows, 1):
        yield _question(row, f"{file}, row {number}")


def _csv_questions(file: Path) -> Iterator[Question]:
    line = 1
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            header: list[str] | None = None
            for cells in reader:
                where = f"{file}, line {line}"
                if line == 1 and "question" in cells:
                    header = cells
                elif header:
                    yield _question(_named(cells, header, where), where)
                elif cells:
                    yield _question(_classic(cells, file, where), where)
                line = reader.line_num + 1
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file}, line {line}: not CSV in UTF-8 ({error}): mend or fetch it again") from error


def _named(cells: Sequence[str], header: Sequence[str], where: str) -> dict[str, Any]:
    if len(cells) != len(header):
        raise UserError(f"{where}: {len(cells)} cells under a header of {len(header)}: mend the line")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    if "choices" in row:
        # However the list was written (JSON, Python, numpy), its items are quoted strings.
        row["choices"] = [ast.literal_eval(quoted) for quoted in _QUOTED.findall(row["choices"])]
    return row


def _classic(cells: Sequence[str], file: Path, where: str) -> dict[str, Any]:
    if len(cells) != 6:
        raise UserError(f"{where}: {len(cells)} cells instead of question, four choices, letter: mend the line")
    return {
        "question": cells[0],
        "subject": file.stem.removesuffix("_test"),
        "choices": list(cells[1:5]),
        "answer": cells[5],
    }


def _question(row: Mapping[str, Any], where: str) -> Question:
    if missing := [column for column in COLUMNS if column not in row]:
        raise UserError(f"{where}: no column {missing[0]!r}: MMLU has {', '.join(COLUMNS)}")
    text, subject, choices, answer = (row[column] for column in COLUMNS)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: question={text!r} is empty: mend the line")
    if not isinstance(subject, str) or not subject:
        raise UserError(f"{where}: subject={subject!r} is empty: mend the line")
    if not isinstance(choices, list) or len(choices) != 4 or not all(isinstance(choice, str) for choice in choices):
        raise UserError(f"{where}: choices={choices!r} is not a list of four texts: mend the line")
    letter = LETTERS[int(answer)] if str(answer) in ("0", "1", "2", "3") else answer
    if letter not in tuple(LETTERS):
        raise UserError(f"{where}: answer={answer!r} is not 0 to 3 or A to D: mend the line")
    return Question(subject, text.strip(), tuple(choice.strip() for choice in choices), letter)

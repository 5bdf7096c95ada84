"""The kinds of exercises that each tiny model is trained on, by the names of their classes, which recipes weigh."""

from __future__ import annotations

from collections.abc import Mapping

from dlmlab.task.tiny.choice import QUESTIONS, Lookup
from dlmlab.task.tiny.code import FUNCTIONS
from dlmlab.task.tiny.dependent import DEPENDENT
from dlmlab.task.tiny.exercise import Exercise
from dlmlab.task.tiny.open_prompt import MANY_ANSWERS, ONE_ANSWER
from dlmlab.task.tiny.programs import Program
from dlmlab.task.tiny.puzzles import PUZZLES
from dlmlab.task.tiny.worked import WORKED, WorkedLookup

V1: tuple[type[Exercise], ...] = (*QUESTIONS, *FUNCTIONS, *ONE_ANSWER, *MANY_ANSWERS, Lookup)
NEW_IN_V2: tuple[type[Exercise], ...] = (*WORKED, Program, *DEPENDENT, *PUZZLES)

DRILLS: tuple[type[Exercise], ...] = (Lookup, WorkedLookup)
"""Kinds for training alone."""

V1_KINDS: Mapping[str, type[Exercise]] = {kind.__name__: kind for kind in V1}
V2_KINDS: Mapping[str, type[Exercise]] = {kind.__name__: kind for kind in (*V1, *NEW_IN_V2, *DRILLS)}

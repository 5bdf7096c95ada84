"""How many held-out exercises the tiny model gets right, while it is trained. No code is executed."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from dlmlab.generation import generate
from dlmlab.rule import Rule
from dlmlab.task.tiny.choice import Choice
from dlmlab.task.tiny.code import Function
from dlmlab.task.tiny.exercise import Exercise, draw_held_out
from dlmlab.task.tiny.kinds import DRILLS
from dlmlab.task.tiny.open_base import OpenPrompt

REFERENCES = 100


class Canvas(NamedTuple):
    """How held-out exercises are decoded: a block's positions, the steps of a schedule, how many at once."""

    gen_length: int
    steps: int
    batch_size: int


def held_out_accuracy(
    model: Any, kinds: Sequence[type[Exercise]], per_kind: int, canvas: Canvas, rule: Rule, seed: int
) -> dict[str, float]:
    """Return the share of right answers by kind; kinds for training alone are left out.

    Args:
        model: The model, with its tokenizer.
        kinds: The kinds of exercises.
        per_kind: How many exercises of each.
        canvas: How they are decoded.
        rule: The decoder.
        seed: The seed of the draw.
    """
    kinds = [kind for kind in kinds if kind not in DRILLS]
    exercises = draw_held_out(kinds, per_kind, seed)
    outputs = generate(model, [exercise.prompt for exercise in exercises], rule, **canvas._asdict())
    right = {kind.__name__: 0 for kind in kinds}
    for exercise, output in zip(exercises, outputs, strict=True):
        right[type(exercise).__name__] += is_right(exercise, output.text or "")
    return {name: count / per_kind for name, count in right.items()}


def is_right(exercise: Exercise, text: str) -> bool:
    """Return whether an answer is right; a function must be one of the reference's own ways to write it.

    Args:
        exercise: The exercise.
        text: The answer.
    """
    if isinstance(exercise, Choice):
        return text.startswith(f"{exercise.letter}.")
    if isinstance(exercise, OpenPrompt):
        return exercise.check(text)
    assert isinstance(exercise, Function)
    rng = Random(0)
    references = {normal_form(f"{exercise.prompt}\n{exercise.answer(rng)}") for _ in range(REFERENCES)}
    return normal_form(f"{exercise.prompt}\n{text}") in references


def normal_form(source: str) -> str | None:
    """Return the syntax tree with names numbered as they appear and numbers added up; None for what is no Python.

    Adding up lets 3 and 5 stand for 2 and 6, where an exercise leaves the two open. It now and then lets a wrong pair
    pass: the tests of the task say what is right.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    numbers: dict[str, str] = {}
    total = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = numbers.setdefault(node.id, str(len(numbers)))
        elif isinstance(node, ast.arg):
            node.arg = numbers.setdefault(node.arg, str(len(numbers)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, int):
            total += node.value
            node.value = 0
    return f"{ast.dump(tree)} {total}"

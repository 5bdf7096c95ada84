"""A task that is only data: a local file of JSON lines, a prompt template and an answer filter, all said in a YAML.

    python run.py experiment=evaluate task=jsonl task.path=capitals.jsonl 'task.prompt="Where is {{ city }}?"'

`docs/tasks.md` shows a YAML of one's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.exceptions import TemplateRuntimeError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

from dlmlab.errors import UserError
from dlmlab.task.base import BaseTask, Item, Score
from dlmlab.task.files import read_lines


@dataclass(frozen=True, kw_only=True)
class Jsonl(BaseTask):
    """The lines of a file as items: a line's fields fill the templates, and an answer is right where it is the same.

    Items are called `FILE/LINE`, or as their field `id` says.

    Attributes:
        path: The file, `.jsonl` or `.jsonl.gz`.
        prompt: The prompt, a Jinja template over a line's fields.
        answer: The right answer, another such template.
        filter: Takes the answer out of the model's text; what it returns is compared, blanks at both ends aside.

    Raises:
        UserError: When the items are first needed: there is no such file, a line is no JSON object, or lacks a field
            that a template names; a template names none, or would write null, a list or a group.
    """

    path: str
    prompt: str
    answer: str
    filter: Callable[[str], str]

    def load(self) -> list[Item]:
        """Read the file."""
        file = Path(self.path).expanduser()
        items = [self._item(file, place, line) for place, line in read_lines(file)]
        if not items:
            raise UserError(f"task.path={self.path} has no item: write one a line")
        seen = {item.id: None for item in items}
        if len(seen) < len(items):
            raise UserError(f"task.path={self.path}: ids are not unique: give each line an 'id' of its own, or none")
        return items

    def score(self, item: Item, text: str) -> Score:
        """Compare what the filter takes out of the text with the item's answer."""
        found = self.filter(text).strip()
        if found == item.answer.strip():
            return Score(1.0)
        return Score(0.0, "wrong answer" if found else "no answer")

    def _item(self, file: Path, place: str, line: Mapping[str, Any]) -> Item:
        prompt, answer = (self._fill(template, key, place, line) for key, template in self._templates.items())
        return Item(
            id=str(line.get("id", place.replace(f"{file}, line ", f"{file.name}/"))), prompt=prompt, answer=answer
        )

    def _fill(self, template: Template, key: str, place: str, line: Mapping[str, Any]) -> str:
        try:
            return template.render(line)
        except TemplateError as error:
            raise UserError(f"{place}: task.{key} cannot be filled ({error}): it has {', '.join(line)}") from error

    @cached_property
    def _templates(self) -> dict[str, Template]:
        environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_as_text)
        found = {}
        for key in ("prompt", "answer"):
            text = getattr(self, key)
            try:
                found[key] = environment.from_string(text)
            except TemplateError as error:
                raise UserError(f"task.{key}={text!r} is no Jinja template ({error})") from error
            if not find_undeclared_variables(environment.parse(text)):
                raise UserError(f"task.{key}={text!r} names no field of a line: write it as {{{{ field }}}}")
        return found


def _as_text(value: object) -> object:
    """Return what a template writes. Raises TemplateRuntimeError for what Python would spell in its own way."""
    if value is None or isinstance(value, list | dict):
        raise TemplateRuntimeError(f"{json.dumps(value)} is no text and no number")
    return value

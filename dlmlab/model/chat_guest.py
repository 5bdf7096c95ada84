"""Render chat templates for another process, which sets the limits: requests and answers are lines of JSON.

It runs by itself and imports Jinja alone: a template is text from a stranger, and may take all memory or never end.
What a template finds here is what transformers gives to one.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """The tag `generation`, by which templates mark what a model wrote; its body stands as it is."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's name)

    def parse(self, parser: Parser) -> list[Node]:
        """Return the body's nodes."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def refuse(message: object) -> NoReturn:
    """Raise the error that a template asks for."""
    raise TemplateError(str(message))


def to_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    """Return a value as JSON; Jinja's own filter would escape it for HTML.

    Args:
        value: What a template has.
        ensure_ascii: Whether characters beyond ASCII are escaped.
        **how: Other options of `json.dumps`, such as `indent`.
    """
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


@lru_cache(maxsize=4)
def compiled(text: str) -> Template:
    """Return a template that is ready to be rendered. Raises TemplateError for a bad one."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.now().strftime(form))
    return environment.from_string(text)


def answer(line: str) -> dict[str, str]:
    """Return what a request's template renders to, under `text`, or under `error` why it doesn't."""
    request = json.loads(line)
    try:
        return {"text": compiled(request["template"]).render(**request["context"])}
    except TemplateError as error:
        return {"error": str(error)}
    except BaseException as error:  # of a stranger's code: it may be any
        return {"error": f"{type(error).__name__}: {error}"}


def main(memory: int) -> None:
    """Answer requests until there are no more.

    Args:
        memory: Bytes of address space that this process may take; Windows sets no such limit.
    """
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        print(json.dumps(answer(line)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

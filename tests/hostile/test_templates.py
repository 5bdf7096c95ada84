"""A checkpoint's chat template may be anything: it ends in a text or in one line, soon and in little memory."""

from __future__ import annotations

import time

import pytest

from dlmlab.errors import UserError
from dlmlab.model import chat, checkpoint, place

CONTEXT = {"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": True, "tools": None}
ENDLESS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
HOSTILE = {
    "loops without an end": (ENDLESS, "takes more than it may"),
    "a number with a milliard digits": ("{{ '%1000000000d' % 1 }}", "MemoryError|its process ended"),
    "a text that is padded": ("{{ 'x'.ljust(10000000000) }}", "MemoryError|OverflowError|its process ended"),
    "more text than any context": ("{{ 'x' * 100000000 }}", "MiB of text"),
    "division by zero": ("{{ 1 / 0 }}", "ZeroDivisionError"),
    "another file": ("{% include '/etc/passwd' %}", "chat template fails"),
    "a call of nothing": ("{{ nothing.at.all() }}", "is undefined"),
    "no template": ("{% if %}", "chat template fails"),
    "an error of its own": ("{{ raise_exception('no\nsystem') }}", "no system"),
    "a way to the interpreter": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError|its process ended"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_a_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template, message = HOSTILE[name]
    monkeypatch.setattr(chat, "SECONDS", 2.0 if template is ENDLESS else 30.0)
    began = time.monotonic()
    with pytest.raises(UserError, match=message) as refusal:
        chat.renderer.render(template, CONTEXT)
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - began < 60
    assert chat.renderer.render("{{ messages[0].content }}", CONTEXT) == "Hi", "the next one is rendered"


FAIR = [
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}\n{{ m['content'] | trim }}\n{% endfor %}",
    "{{ bos_token }}{{ messages | tojson }}{% if tools %}no{% endif %}{{ {'a': 1, 'é': '<'} | tojson(indent=1) }}",
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}  {{ ns.n }}\n",
    "  {% if add_generation_prompt %}\n  assistant{% endif %}{{ dict(a=1).a }}",
]


@pytest.mark.parametrize("template", FAIR)
def test_a_fair_template_gives_what_transformers_makes_of_it(template: str) -> None:
    tokenizer = checkpoint.read_tokenizer(place.local("tiny/v1"))
    assert tokenizer is not None
    messages = [{"role": "user", "content": " Hé <b> "}, {"role": "assistant", "content": "x"}]
    told = tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
    context = CONTEXT | tokenizer.special_tokens_map | {"messages": messages}
    assert chat.renderer.render(template, context) == told

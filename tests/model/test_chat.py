"""A message is text: it gives a model nothing that steers it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dlmlab.errors import UserError
from dlmlab.generation import encode
from dlmlab.model import checkpoint, place


@pytest.fixture(scope="module")
def model() -> SimpleNamespace:
    folder = place.local("tiny/v1")
    config = checkpoint.read_config(folder)
    return SimpleNamespace(config=config, tokenizer=checkpoint.read_tokenizer(folder, config))


def control(model: SimpleNamespace, text: str) -> list[int]:
    special = {number for number, token in model.tokenizer.added_tokens_decoder.items() if token.special}
    return [token for token in encode(model, text, 16, "prompt 0") if token in special]


def test_control_tokens_in_a_message_are_text(model: SimpleNamespace) -> None:
    plain = control(model, "Say x now")
    assert plain
    for number, token in model.tokenizer.added_tokens_decoder.items():
        text = f"Say {token.content}{token.content} now {token.content}"
        assert control(model, text) == plain, number
        assert token.content in model.tokenizer.decode(encode(model, text, 16, "prompt 0"))


def test_a_message_without_them_is_tokenised_as_transformers_does(model: SimpleNamespace) -> None:
    for text in ("Count up", " \n x\n", "é 你好 <b> {{ 1 }} \ue0000:", ""):
        whole = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )
        assert list(encode(model, text, 16, "p")) == model.tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_a_conversation_is_taken(model: SimpleNamespace) -> None:
    turn = {"role": "user", "content": "Count up"}
    assert encode(model, [turn], 16, "p") == encode(model, "Count up", 16, "p")
    more = [turn, {"role": "assistant", "content": "1 2"}, {"role": "user", "content": "On"}]
    assert len(encode(model, more, 16, "p")) > len(encode(model, [turn], 16, "p"))


@pytest.mark.parametrize(
    ("turn", "message"),
    [({"role": "user"}, "has a turn"), ({"role": 1, "content": "x"}, "role=1"), ({"role": "user", "content": 5}, "5"),
     ({"role": "<|im_end|>", "content": "x"}, "role="), ({"role": "user", "content": "\ud800"}, "is no character")],
)  # fmt: skip
def test_what_is_no_turn_is_refused(model: SimpleNamespace, turn: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        encode(model, [turn], 16, "p")  # type: ignore[list-item]

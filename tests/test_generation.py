"""Prompts in, answers out, and bad input refused in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

import dlmlab
from dlmlab.cache.dual import Dual
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.entropy import Entropy
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import StepTiming
from dlmlab.errors import UserError
from dlmlab.generation import answer_length, answer_text, decode
from dlmlab.rule import Rule
from dlmlab.types import Generation, Output, Request
from tests.fakes import EOS, EOT, VOCABULARY, FakeModel

SETTINGS: dict[str, Any] = {"gen_length": 8, "block_length": 4, "steps": 4}


def tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    words = {word: place for place, word in enumerate("abcdefghijklmnopqrst")} | {"<end>": EOS, "<turn>": EOT}
    plain = Tokenizer(WordLevel(words, unk_token="t"))
    plain.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", additional_special_tokens=["<turn>"])
    fast.chat_template = template
    return fast


def test_outputs_come_in_the_order_of_the_prompts() -> None:
    prompts = [[1], [1, 2, 3], [1, 2], [4] * 6]
    found = dlmlab.generate(FakeModel(), prompts, Threshold(0.5), **SETTINGS, batch_size=2)
    assert [output.index for output in found] == [0, 1, 2, 3]
    for place, prompt in enumerate(prompts):
        [alone] = dlmlab.generate(FakeModel(), [prompt], Threshold(0.5), **SETTINGS, batch_size=1)
        assert (alone.tokens, alone.forwards, alone.text) == (found[place].tokens, found[place].forwards, None)


def test_every_step_is_told() -> None:
    steps: list[StepTiming] = []
    found = dlmlab.generate(FakeModel(), [[1], [2, 3]], Baseline(), **SETTINGS, batch_size=2, on_step=steps.append)
    assert len(steps) == found[0].forwards == 4
    assert {step.rows for step in steps} == {2}


@pytest.mark.parametrize("asked", [True, False])
def test_a_bar_counts_the_answers_where_it_is_asked_for(asked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    dlmlab.generate(FakeModel(), [[1], [2, 3]], Baseline(), **SETTINGS, progress=asked)
    said = capsys.readouterr()
    assert said.out == ""
    assert ("answers" in said.err and "100%" in said.err) == asked


def test_an_output_shows_itself_in_a_short_line() -> None:
    tokens = list(range(256))
    shown = repr(Output(3, tokens, 7, tokens, text="Ann gets 7. " * 50))
    assert shown.startswith("Output(index=3, text='Ann gets 7. Ann")
    assert shown.endswith("... 7. Ann gets 7. Ann gets 7. ', 256 tokens in 7 forward passes)")
    assert len(shown) < 130
    assert repr(Output(0, tokens, 7, tokens)) == (
        "Output(index=0, tokens=[0, 1, 2, 3, 4, 5, ...], 256 tokens in 7 forward passes)"
    )


def test_a_block_is_the_canvas_unless_given() -> None:
    whole = dlmlab.generate(FakeModel(), [[1]], Baseline(), gen_length=8, steps=4)
    assert whole == dlmlab.generate(FakeModel(), [[1]], Baseline(), gen_length=8, block_length=8, steps=4)


def test_a_string_goes_through_the_chat_template_and_comes_back_as_text() -> None:
    template = "b {{ messages[0].content }}{% if add_generation_prompt %} c{% endif %}"
    model = FakeModel(tokenizer=tokenizer(template))
    [asked] = dlmlab.generate(model, ["d e"], Baseline(), **SETTINGS)
    [given] = dlmlab.generate(model, [[1, 3, 4, 2]], Baseline(), **SETTINGS)
    assert asked == given
    words = [chr(ord("a") + token) for token in asked.tokens[: answer_length(model, asked.tokens)]]
    assert asked.text == " ".join(words)


@pytest.mark.parametrize("end", [EOS, EOT])
def test_an_answer_ends_before_its_first_end_token(end: int) -> None:
    model = FakeModel(tokenizer=tokenizer(None))
    assert answer_length(model, [0, 1, end, 2, EOS]) == 2
    assert answer_text(model, [0, 1, end, 2, EOS]) == "a b"
    assert answer_text(model, [end]) == ""
    assert answer_length(model, [0, 1]) == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"gen_length": 10}, "gen_length=10"),
        ({"steps": 3}, "steps=3"),
        ({"steps": 16}, "steps=16"),
        *[
            ({key: bad}, f"{key}={bad!r}")
            for key in ("gen_length", "block_length", "steps")
            for bad in (0, -4, 4.0, True)
        ],
        *[({"batch_size": bad}, f"batch_size={bad!r}") for bad in (0, -1, 2.5, "8")],
        *[({"seed": bad}, f"seed={bad!r}") for bad in (-1, 0.5, "0", None)],
        *[({"temperature": bad}, f"temperature={bad!r}") for bad in (-0.1, float("nan"), "hot")],
        ({"confidence_dtype": "float16"}, "float16"),
        ({"prompts": []}, "empty"),
        ({"prompts": "a b"}, "give a list"),
        ({"prompts": [[1], "a b"]}, "prompt 1"),
        ({"prompts": [[1], [2] * 57]}, "prompt 1"),
        ({"prompts": [[23]]}, "prompt 0"),
        ({"prompts": [[-1]]}, "prompt 0"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_that_names_it(change: dict[str, Any], named: str) -> None:
    call: dict[str, Any] = {"prompts": [[1]], **SETTINGS, **change}
    with pytest.raises(UserError) as refusal:
        dlmlab.generate(FakeModel(), rule=Baseline(), **call)
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_string_needs_a_chat_template() -> None:
    with pytest.raises(UserError, match="chat template"):
        dlmlab.generate(FakeModel(tokenizer=tokenizer(None)), ["a"], Baseline(), **SETTINGS)


@pytest.mark.parametrize(
    "template", ["{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ cycler.__init__.__globals__ }}"]
)
def test_a_chat_template_cannot_reach_python(template: str) -> None:
    with pytest.raises(UserError, match="the checkpoint's chat template fails .*unsafe"):
        dlmlab.generate(FakeModel(tokenizer=tokenizer(template)), ["a"], Baseline(), **SETTINGS)


@pytest.mark.parametrize("number", [-0.1, 1.1, float("nan"), "0.9", None, True])
def test_probabilities_out_of_range_are_refused(number: Any) -> None:
    for build in (lambda: LocalLeap(number, 0.5, 1), lambda: LocalLeap(0.5, number, 1), lambda: Threshold(number)):
        with pytest.raises(UserError, match=r"^\w+=.* is not a number between 0 and 1$"):
            build()


@pytest.mark.parametrize("radius", [-1, 1.5, "4", True])
def test_a_radius_counts_places(radius: Any) -> None:
    with pytest.raises(UserError, match="radius="):
        LocalLeap(0.9, 0.75, radius)


def test_decode_answers_as_rows_finish_with_texts() -> None:
    model = FakeModel(tokenizer=tokenizer(None))
    requests = [Request(index, (index,), Threshold(index / 4)) for index in range(5)]
    found = list(decode(model, requests, Generation(8, 4, 4), batch_size=2))
    assert sorted(output.index for output in found) == list(range(5))
    assert all(isinstance(output.text, str) for output in found)


@pytest.mark.parametrize("switch", ["logits_eos_inf", "confidence_eos_eot_inf", "confidence_eos_eot_zero"])
def test_the_end_tokens_can_be_forbidden_or_put_last(switch: str) -> None:
    requests = [Request(0, (1, 2), Threshold(0.5))]
    [expected] = decode(FakeModel(favourite=EOS), requests, Generation(8, 4, 4, **{switch: True}), batch_size=1)
    [found] = dlmlab.generate(FakeModel(favourite=EOS), [[1, 2]], Threshold(0.5), **SETTINGS, **{switch: True})
    [plain] = dlmlab.generate(FakeModel(favourite=EOS), [[1, 2]], Threshold(0.5), **SETTINGS)
    assert found == expected
    assert found != plain


def test_what_stands_for_numbers_and_lists_is_taken() -> None:
    usual = dlmlab.generate(FakeModel(), [[1, 2], [3]], Baseline(), **SETTINGS, seed=3, batch_size=2)
    prompts = (ids for ids in (np.array([1, 2]), torch.tensor([3])))
    numpy = {key: np.int64(value) for key, value in {**SETTINGS, "seed": 3, "batch_size": 2}.items()}
    assert dlmlab.generate(FakeModel(), prompts, Baseline(), **numpy) == usual
    numbers = LocalLeap(kappa=np.float64(0.5), tau=torch.tensor(0.25), radius=np.int64(4))  # type: ignore[arg-type]
    assert repr(numbers) == repr(LocalLeap(kappa=0.5, tau=0.25, radius=4))
    precise = {"confidence_dtype": torch.float64, "logits_eos_inf": np.bool_(True), "temperature": np.float32(0.5)}
    assert len(dlmlab.generate(FakeModel(), [[1]], Baseline(), **SETTINGS, **precise)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": None}, "prompts is None: give a list"),
        ({"prompts": 5}, "prompts is 5: give a list"),
        ({"prompts": b"hello"}, "prompts is b'hello': give a list"),
        ({"prompts": {"a": 1}}, "give a list of prompts"),
        ({"prompts": [None]}, "prompt 0 is None: give text"),
        ({"prompts": [[1], b"hello"]}, "prompt 1 is b'hello': give text"),
        ({"prompts": [5]}, "prompt 0 is 5: give text"),
        ({"prompts": [[1.5]]}, "prompt 0 is"),
        ({"prompts": [[True]]}, "prompt 0 is"),
        ({"prompts": [np.array([[1]])]}, "prompt 0 is array"),
        ({"prompts": [torch.tensor([[1]])]}, "prompt 0 is tensor"),
        ({"prompts": ["\ud800"]}, "has '.ud800' at 0, which is no character"),
        ({"rule": "localleap"}, "rule='localleap' is no decoder"),
        ({"cache": "dual"}, "cache='dual' is no cache: make one"),
        ({"cache": Dual}, "cache=<class .*Dual.> is no cache"),
        ({"rule": LocalLeap}, "rule=LocalLeap is no decoder"),
        ({"rule": None}, "rule=None is no decoder"),
        ({"model": "tiny/v1"}, "model='tiny/v1' is a path"),
        ({"model": Path("tiny")}, "model='tiny' is a path"),
        ({"model": None}, "model=None is none"),
        ({"on_step": 3}, "on_step=3 is none"),
        ({"confidence_dtype": torch.float16}, "confidence_dtype='float16' is not one of float32, float64"),
    ],
)
def test_arguments_of_another_kind_are_a_line(arguments: dict[str, Any], message: str) -> None:
    model = FakeModel(tokenizer=tokenizer("{{ messages[0].content }}"))
    with pytest.raises(UserError, match=message):
        dlmlab.generate(**{"model": model, "prompts": [[1]], "rule": Baseline(), **SETTINGS, **arguments})


def test_a_path_of_another_kind_is_a_line() -> None:
    with pytest.raises(UserError, match="path=None is no path"):
        dlmlab.load(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rule", [Baseline(), Entropy()])
def test_nothing_beyond_the_vocabulary_is_proposed(rule: Rule, temperature: float) -> None:
    model = FakeModel(favourite=VOCABULARY - 4)
    model.config.vocab_size = VOCABULARY - 4  # the last rows of the embedding are padding
    model.config.mask_token_id, model.config.eos_token_id, model.end_token_ids = 3, 4, (4,)
    [output] = dlmlab.generate(model, [[1]], rule, **SETTINGS, temperature=temperature)
    assert max(output.tokens) < model.config.vocab_size

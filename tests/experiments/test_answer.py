"""Answers for people: one on the terminal, many as JSON lines."""

from __future__ import annotations

import io
import json
import sys

import pytest

from dlmlab.errors import UserError
from dlmlab.task.prompts import read_prompts
from tests.documented import check_summary
from tests.experiments.fakes import Bench

QUICK = ["experiment=answer", "decoder=threshold", "generation.gen_length=16", "generation.steps=8", "memo=off"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def go(bench, tmp_path, capfd):
    """Run the experiment, and answer its exit status, stdout and stderr."""

    def call(*arguments):
        capfd.readouterr()
        return bench(*QUICK, *arguments, f"hydra.run.dir={tmp_path}/run"), *capfd.readouterr()

    return call


def lines(folder):
    return [json.loads(line) for line in (folder / "run" / "answers.jsonl").read_text().splitlines()]


def pipe(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_prompt_s_answer_is_printed(go, tmp_path):
    status, out, _ = go("prompt='w1 w2'")
    assert status == 0
    [line] = lines(tmp_path)
    assert line.keys() == {"prompt", "answer", "forwards"}
    assert (line["prompt"], out.splitlines()[0]) == ("w1 w2", line["answer"])
    assert len(line["answer"].split()) > 1
    check_summary(tmp_path / "run")


def test_prompts_of_a_file_are_answered_in_their_order_and_keep_their_keys(go, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"id": 7, "prompt": "w1 w2"}\n\n"w3"\n{"prompt": "w4 w5 w6", "tags": ["a"]}\n')
    status, out, _ = go(f"prompts={file}")
    assert status == 0
    assert f"answers: {tmp_path}/run/answers.jsonl" in out
    assert [line["prompt"] for line in lines(tmp_path)] == ["w1 w2", "w3", "w4 w5 w6"]
    assert lines(tmp_path)[0]["id"] == 7
    assert lines(tmp_path)[2]["tags"] == ["a"]


def test_a_text_file_has_a_prompt_a_line(go, tmp_path):
    (tmp_path / "mine.txt").write_text("w1 w2\n\n  w3\n")
    assert go(f"prompts={tmp_path}/mine.txt")[0] == 0
    assert [line["prompt"] for line in lines(tmp_path)] == ["w1 w2", "w3"]


@pytest.mark.parametrize("text", ["w1 w2\nw3\n", '{"prompt": "w1 w2"}\n{"prompt": "w3"}\n'])
def test_prompts_come_from_a_pipe(monkeypatch, text):
    pipe(monkeypatch, text)
    assert [item.prompt for item in read_prompts("-")] == ["w1 w2", "w3"]


def test_a_run_goes_on_where_it_was_killed_and_takes_other_prompts_for_another_run(go, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("w1\nw2\nw3\n")
    assert go(f"prompts={file}")[0] == 0
    first, run = lines(tmp_path), tmp_path / "run"
    samples = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    for name in ("results.json", "answers.jsonl"):
        (run / name).unlink()
    (run / "samples.jsonl").write_text("".join(samples[:2]))
    assert go(f"prompts={file}")[0] == 0
    assert lines(tmp_path) == first
    (run / "results.json").unlink()
    file.write_text("w1\nw2\nw9\n")
    status, _, errors = go(f"prompts={file}")
    assert status == 1
    assert "holds another run: data.prompts.fingerprint was" in errors


def test_a_cache_and_a_decoder_s_settings_are_taken(go, tmp_path):
    assert go("prompt='w1 w2'", "decoder.threshold=0.3", "cache=prefix")[0] == 0
    settings = json.loads((tmp_path / "run" / "results.json").read_text())["settings"]
    assert settings["decoder"] == "Threshold(threshold=0.3)"
    assert settings["cache"].startswith("Prefix(")


BAD = {
    "nothing": ([], "prompt is empty: give one"),
    "both": (["prompt=w1", "prompts=a.txt"], "give one of the two"),
    "no file": (["prompts=no.txt"], "prompts=no.txt could not be read"),
    "out of range": (["prompt=w1", "generation.steps=65"], "generation.steps=65"),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(go, arguments, expected):
    status, _, errors = go(*arguments)
    assert (status, errors.count("\n")) == (1, 1)
    assert errors.startswith("error: ")
    assert expected in errors


FILES = {
    "empty": ("\n \n", "has no prompt: write one a line"),
    "no JSON": ('{"prompt": "a"}\n{"prompt"\n', "line 2: no JSON"),
    "no prompt": ('{"text": "a"}\n', "line 1: no prompt"),
    "a number": ('{"prompt": 3}\n', "line 1: no prompt"),
    "a list": ("[1]\n", "line 1: no prompt"),
}


@pytest.mark.parametrize(("text", "expected"), FILES.values(), ids=FILES)
def test_a_line_without_a_prompt_is_named(tmp_path, text, expected):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(UserError, match=expected):
        read_prompts(f"{tmp_path}/a.jsonl")


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        read_prompts(f"{tmp_path}/a.txt")


def test_a_prompt_s_key_is_not_overwritten(go, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "w1", "answer": "w2"}\n')
    status, _, errors = go(f"prompts={tmp_path}/a.jsonl")
    assert status == 1
    assert "a.jsonl/1 has 'answer', a key of the answers': rename it" in errors

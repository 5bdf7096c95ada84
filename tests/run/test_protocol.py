"""Protocols: settings of published tables, applied to tasks, and their rows held against ours."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dlmlab.errors import UserError
from dlmlab.measure.published import explain, judge
from dlmlab.run import build, conf, protocol
from dlmlab.settings import kinds_of
from dlmlab.types import Generation
from dlmlab.verify import verify
from tests.conftest import ROOT

NAMES = sorted(path.stem for path in (ROOT / "conf" / "protocol").glob("*.yaml"))


def config(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Any:
    monkeypatch.setenv("DLMLAB_ROOT", str(ROOT))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_names_settings_tasks_and_decoders_that_exist(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(monkeypatch, f"protocol={name}")
    published = protocol.Protocol(**OmegaConf.to_container(cfg.protocol))
    assert published.name == name
    for task, settings in published.tasks.items():
        part = conf.choice(cfg, "task", task)
        assert settings.keys() <= set(part), task
        assert settings["gen_length"] % settings["block_length"] == 0
    for task, switches in published.generation.items():
        assert task in published.tasks
        assert switches.keys() <= kinds_of(Generation).keys() & set(protocol.SWITCHES)
    assert published.y_max.keys() <= published.tasks.keys()
    for row in published.rows:
        assert row.task in published.tasks
        assert row.decoder is None or row.decoder in conf.options("decoder")
        assert row.source


def test_a_protocol_sets_the_task_and_what_is_typed_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(monkeypatch, "protocol=llada", "model=llada", "task=humaneval")
    monkeypatch.setattr(protocol, "overridden", lambda: {"task.limit"})
    cfg.task.limit = 7
    protocol.apply(cfg)
    assert (cfg.task.limit, cfg.task.gen_length, cfg.task.steps) == (7, 512, 512)
    task = build.task(cfg, "humaneval")
    assert build.generation(cfg, task).logits_eos_inf is True
    cfg.generation.logits_eos_inf = False
    assert build.generation(cfg, task).logits_eos_inf is False


@pytest.mark.parametrize(
    ("task", "given", "expected"),
    [
        ("gsm8k", {"gen_length": 512}, (512, 32, 512)),  # one token a step, as the task has it
        ("gsm8k", {"gen_length": 64}, (64, 32, 64)),
        ("gsm8k", {"gen_length": 24}, (24, 24, 24)),
        ("gsm8k", {"gen_length": 8, "block_length": 8}, (8, 8, 8)),
        ("gsm8k", {"gen_length": 64, "steps": 16}, (64, 32, 16)),
        ("tiny_humaneval", {"gen_length": 128}, (128, 64, 16)),
        ("tiny_humaneval", {"gen_length": 8}, (8, 8, 8)),
        ("tiny_humaneval", {"gen_length": 32, "block_length": 8}, (32, 8, 16)),
        ("gsm8k", {"block_length": 64}, (256, 64, 256)),
    ],
)
def test_block_and_steps_of_a_task_fit_another_canvas(
    task: str, given: dict[str, int], expected: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = (f"generation.{key}={value}" for key, value in given.items())
    cfg = config(monkeypatch, "experiment=evaluate", f"task={task}", *typed)
    layout: Any = SimpleNamespace(**cfg.task)
    found = build.generation(cfg, layout)
    assert (found.gen_length, found.block_length, found.steps) == expected


@pytest.mark.parametrize("task", ["gsm8k", "minerva_math", "humaneval", "mbpp"])
def test_dream_is_decoded_as_its_own_code_does(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(monkeypatch, "protocol=dream", "model=dream", f"task={task}")
    protocol.apply(cfg)
    layout: Any = SimpleNamespace(**cfg.task)
    generation = build.generation(cfg, layout)
    assert (generation.schedule, generation.top_k, generation.tempered) == ("timesteps", 50, True)
    cfg.generation.schedule = "even"
    assert build.generation(cfg, layout).schedule == "even"


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ({"ci_low": 0.75, "ci_high": 0.80, "n": 1319}, "agrees"),
        ({"ci_low": 0.60, "ci_high": 0.90, "n": 20}, "cannot tell with 20 items"),
        ({"ci_low": 0.78, "ci_high": 0.82, "n": 1319}, "differs"),
        ({"ci_low": 0.7764, "ci_high": 0.82, "n": 1319}, "agrees"),  # within the table's rounding
    ],
)
def test_a_score_agrees_differs_or_cannot_be_told(ours: dict[str, Any], verdict: str) -> None:
    assert judge(0.776, ours, 0.03) == verdict


def test_a_difference_names_the_scoring_that_it_hangs_on() -> None:
    scorings = {"raw": {"ci_low": 0.1, "ci_high": 0.2, "n": 9}, "fenced": {"ci_low": 0.3, "ci_high": 0.5, "n": 9}}
    assert explain(0.43, scorings, 0.03) == "; within the interval when scored by fenced"
    assert explain(0.9, scorings, 0.03) == ""


OWN = """
name: own
about: ours.
models: [tiny/v1]
tokens: canvas tokens
template: one turn
tasks: {tiny_mmlu: {limit: 3, gen_length: 8, block_length: 4, steps: 8}}
y_max: {tiny_mmlu: 90}
rows:
  - {task: tiny_mmlu, method: usual, decoder: baseline, score: 50, source: nowhere}
  - {task: tiny_mmlu, method: fast, decoder: threshold, score: 50, source: nowhere}
  - {task: tiny_mmlu, method: unknown, score: 50, source: nowhere}
"""


def test_compare_prints_published_beside_ours_and_it_follows(command: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "protocol").mkdir(parents=True)
    (tmp_path / "conf" / "protocol" / "own.yaml").write_text(OWN)
    status, shown, errors = command(
        "experiment=compare", "decoders=[threshold]", "tasks=[tiny_mmlu]", "protocol=own", "timed_items=0", "memo=off",
        "device=cpu", "tracking=terminal", f"hydra.searchpath=[file://{tmp_path}/conf]",
    )  # fmt: skip
    assert status == 0, errors
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["method"] for row in results["published"]] == ["usual", "fast"]
    assert {row["verdict"] for row in results["published"]} <= {"cannot tell with 3 items", "differs"}
    assert "Published beside ours: protocol own" in shown
    assert results["points"][0]["n"] == 3
    found = verify(tmp_path / "run")
    assert (found.problems, found.unchecked) == ([], [])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["protocol=fast_dllm", "task=gsm8k"], "is of GSAI-ML/LLaDA-8B-Instruct, not of model.path=tiny/v1"),
        (["protocol=fast_dllm", "model=llada", "task=mmlu"], "says nothing of task=mmlu, but of gsm8k"),
        (["protocol=fast_dllm", "model=llada", "task=gsm8k", "+protocol.rwos=1"], "unexpected keyword argument 'rwos'"),
        (["protocol=fast_dllm", "model=llada", "task=gsm8k", "+protocol.tolerance=7"], r"protocol\.tolerance=7 is"),
    ],
)  # fmt: skip
def test_a_protocol_that_does_not_fit_is_one_line(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    cfg = config(monkeypatch, *overrides)
    with pytest.raises(UserError, match=message) as error:
        protocol.apply(cfg)
    assert "\n" not in str(error.value)

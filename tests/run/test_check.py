"""A bad config: a line for each thing that is wrong with it, before a model is loaded, and never a traceback."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from functools import wraps
from typing import Any, get_args

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from dlmlab.run import build, declared
from dlmlab.run.experiment import find
from dlmlab.run.kinds import GROUPS, KINDS, SPECIAL
from dlmlab.settings import fits, kinds_of
from dlmlab.types import Generation
from tests.conftest import ROOT
from tests.task import benchmark_data as data

COMPARE, GATE, CALIBRATE, TRAIN, EVALUATE, TRACE = (
    f"experiment={name}" for name in ("compare", "quality_gate", "calibration", "train_tiny", "evaluate", "trace")
)
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))

# What is typed, and a pattern for each line that is answered.
BAD: dict[str, list[str]] = {
    # a value of the wrong type, or out of range
    "decoder.kappa=1.5": [r"decoder\.kappa=1\.5 is not a number between 0 and 1"],
    "decoder.kappa=null": [r"decoder\.kappa=None is not a number between 0 and 1"],
    "decoder.kappa=true": [r"decoder\.kappa=True is not a number"],
    "decoder.kappa=[0.5]": [r"decoder\.kappa=\[0\.5\] is not a number"],
    "decoder.tau=-inf": [r"decoder\.tau=-inf is not a number"],
    "decoder.radius=4.0": [r"decoder\.radius=4\.0 is not a whole number, 0 or more"],
    "decoder.radius=99999999999999999999": [r"decoder\.radius=9+ is not a whole number, 0 or more, 2147483647 at most"],
    "decoder.anchors=scheduld": [r"decoder\.anchors='scheduld' is not one of scheduled, all; did you mean scheduled\?"],
    "decoder=eb decoder.gamma=inf": [r"decoder\.gamma=inf is not a number of at least 0"],
    "decoder=saber decoder.n=0 decoder.mu=1.5": [r"decoder\.n=0 is not", r"decoder\.mu=1\.5 is not a positive integer"],
    "generation.temperature=-1": [r"generation\.temperature=-1 is not a number of at least 0"],
    "generation.temperature=nan": [r"generation\.temperature=nan is not a number of at least 0"],
    "generation.confidence_dtype=float23": [r"'float23' is not one of float32, float64.*did you mean float32\?"],
    "generation.logits_eos_inf=1": [r"generation\.logits_eos_inf=1 is not true or false"],
    "generation.gen_length=64.0": [r"generation\.gen_length=64\.0 is not a positive integer"],
    "seed=-1": [r"seed=-1 is not a whole number, 0 or more"],
    "seed=99999999999999999999": [r"seed=9+ is not a whole number"],
    "batch_size=true": [r"batch_size=True"],
    "memo=perhaps": [r"memo=perhaps is neither on nor off, nor force"],
    "memo_gb=inf": [r"memo_gb=inf is not a number of at least 0\.001"],
    "memo_path=null": [r"memo_path=None is not text"],
    "device=cuda:9": [r"device=cuda:9 asked for"],
    "device=gpu": [r"device='gpu' is not one of auto, cpu, cuda, cuda:N"],
    "model.dtype=float16": [r"model\.dtype='float16' is not one of float32, bfloat16; did you mean"],
    "model.quantization=nf8": [r"model\.quantization='nf8' is not one of none, nf4, int8.*; did you mean nf4\?"],
    "model.load_format=pickle": [r"model\.load_format='pickle' is not one of safetensors, dummy"],
    "model.path=null decoder=baseline": [r"model\.path=None is not text"],
    "model.localleap.kappa=7": [r"model\.localleap\.kappa=7 is not a number between 0 and 1"],
    "sandbox.kind=docker": [r"sandbox\.kind='docker' is not one of bubblewrap, rlimit"],
    "sandbox.memory_mb=1e99": [r"sandbox\.memory_mb=1e\+99 is not a positive integer"],
    "tracking=wandb tracking.wandb.mode=ofline": [r"tracking\.wandb\.mode='ofline' is not .*did you mean offline\?"],
    "tracking=wandb tracking.wandb.timeout=0": [r"tracking\.wandb\.timeout=0 is not a number between"],
    "tracking.markdown.log_file=3": [r"tracking\.markdown\.log_file=3 is not text"],
    "prompts=0": [r"prompts=0 is not a positive integer"],
    "batch_sizes=[1,two]": [r"batch_sizes has 'two', which is not a positive integer"],
    "task=tiny_open task.limit=0": [r"task\.limit=0 is not a positive integer or null"],
    "task=tiny_open task.per_kind=1.5": [r"task\.per_kind=1\.5 is not a positive integer"],
    f"{EVALUATE} task.limit=all": [r"task\.limit='all' is not a positive integer or null"],
    f"{EVALUATE} task=tiny_humaneval task.extract=sanitized": [r"task\.extract='sanitized' .*did you mean sanitised\?"],
    f"{EVALUATE} task=mmlu task.subjects=astronomy": [r"task\.subjects='astronomy' is not a list, each text"],
    f"{COMPARE} decoders=baseline": [r"decoders='baseline' is not a non-empty list"],
    f"{COMPARE} decoders=[baselin,eb]": [r"decoders has 'baselin', which is not one of .*did you mean baseline\?"],
    f"{COMPARE} tasks=[tiny_opn]": [r"tasks has 'tiny_opn', which is not one of .*did you mean tiny_open\?"],
    f"{COMPARE} timed_items=-1 timed_rounds=0": [r"timed_items=-1 is not", r"timed_rounds=0 is not"],
    f"{GATE} tasks=[mmul,bleu]": [r"tasks has 'mmul', which is not one of mmlu, .*did you mean mmlu\?"],
    f"{GATE} gates.mmlu.margin=2 gates.bleu.margin=a": [r"gates\.mmlu\.margin=2 is", r"gates\.bleu\.margin='a' is"],
    f"{GATE} task=tiny_edit": [r"task=tiny_edit is no gate's: 'tasks=\[tiny_edit\]' \+gates\.tiny_edit\.margin=0\.01"],
    f"{GATE} tasks=[bleu,tiny_open] +gates.tiny_open.margin=0.1 +gates.tiny_open.steps=8": [
        "gates.tiny_open and gates.bleu decode tiny_open in two ways: give both one limit and canvas"
    ],
    f"{GATE} tasks=[tiny_mmlu]": [r"gates\.tiny_mmlu\.margin is not given: .*\+gates\.tiny_mmlu\.margin=0\.01"],
    f"{GATE} tasks=[open_prompts] +gates.open_prompts.margin=0.1": [r"gates\.open_prompts: answers .*by=text"],
    f"{GATE} +gates.mmlu.margn=0.1": [r"gates\.mmlu\.margn is not a setting of gates\.mmlu.*did you mean margin\?"],
    f"{GATE} gates.bleu.by=eye": [r"gates\.bleu\.by='eye' is not one of score, text, repeat"],
    f"{GATE} tasks=[jsonl] +gates.jsonl.margin=0.1": [r"task\.path is not given, and jsonl has none of its own"],
    f"{COMPARE} tasks=[jsonl] task.path=/nowhere.jsonl": [r"/nowhere\.jsonl could not be read"],
    f"{GATE} gates.bleu.limit=0": [r"gates\.bleu\.limit=0 is not a positive integer or null"],
    f"{CALIBRATE} calibration.split=1.0": [r"calibration\.split=1\.0 is not a number between 0\.1 and 0\.9"],
    f"{CALIBRATE} grid.kappa=[]": [r"grid\.kappa=\[\] has no values"],
    f"{CALIBRATE} grid.kappa=[0.5,1.5] grid.radius=[a]": [r"grid\.kappa has 1\.5, ", r"grid\.radius has 'a', "],
    f"{TRAIN} training.steps=0 training.block_share=2": [r"training\.steps=0 is", r"training\.block_share=2 is"],
    f"{TRAIN} data.puzzles={{fewest:0,most:30,forms:1}}": [r"data\.puzzles=\{'fewest': 0"],
    "experiment=train model=llada": [r"model='llada' is not one of sudoku, tiny, tiny_dream, tiny_sdar, tiny_v2"],
    f"{TRAIN} training.adamw.betas=0.9": [r"training\.adamw\.betas=0\.9 is not a non-empty list"],
    f"{TRACE} prompt=Hi decoders=[eb,ebb]": [r"decoders has 'ebb', which is not one of .*; did you mean eb\?"],
    f"{TRACE} decoders=[eb]": [r"prompt is empty: give one"],
    f"{EVALUATE} trace=1 trace_limit=0": [r"trace=1 is not true or false", r"trace_limit=0 is not a positive integer"],
    # keys that there aren't
    "decoder.kapa=0.7": [r"decoder\.kapa is not a setting; did you mean decoder\.kappa\?"],
    "+decoder.kapa=0.7": [r"decoder\.kapa is not a setting of decoder, which has kappa, .*; did you mean kappa\?"],
    "+sedd=3": [r"sedd is not a setting; did you mean seed\?"],
    "++batchsize=3": [r"batchsize is not a setting; did you mean batch_size\?"],
    "+generation.stpes=3": [r"generation\.stpes is not a setting; did you mean generation\.steps\?"],
    "+model.dtyp=float32": [r"model\.dtyp is not a setting of model, which has .*; did you mean dtype\?"],
    "~seed": [r"seed=None is not a whole number"],
    f"{CALIBRATE} +grid.nonsense=[1]": [r"grid\.nonsense is no parameter of the decoder, which has"],
    f"{TRAIN} +data.weights.Shopp=1": [r"data\.weights\.Shopp is no kind of exercise; did you mean Shop\?"],
    # choices that there aren't: Hydra's own errors come alone
    "model=llada2 decoder.kappa=9": [r"Could not find 'model/llada2' .*llada llada15 .*tiny_v2; did you mean llada"],
    "tracking=wandbb": [r"Could not find 'tracking/wandbb' .*; did you mean wandb\?"],
    "experiment=quality_gates": [r"Could not find 'experiment/quality_gates' .*; did you mean quality_gate\?"],
    "tracking=null": [r"tracking=null: a group has one of its choices"],
    "generation=5": [r"generation=5 is not a group of settings"],
    f"{GATE} gates=null": [r"gates=None is not a group of settings"],
    f"{CALIBRATE} grid=x": [r"grid='x' is no group of parameters"],
    f"{TRAIN} data.layouts=[]": [r"data\.layouts=\[\] is not a non-empty list"],
    f"{CALIBRATE} model.tasks.humaneval=null": [r"model\.tasks\.humaneval=None is not text"],
    "model.localleap=3": [r"model\.localleap=3 is not a group of settings"],
    "model.localleap=null": [r"tiny/v1 has no calibrated kappa"],
    "decoder._target_=x": [r"decoder\._target_='x' cannot be imported \(No module named 'x'\)"],
    "_target_=null": [r"experiment=null: choose one of answer, calibration, compare"],
    "_target_=x.y": [r"_target_='x\.y' cannot be imported"],
    f"{GATE} gates.mmlu=null": [r"gates\.mmlu=None is not a group of settings"],
    # what does not go together
    "decoder=klass memo=force": [r"KLASS sees more of the model than the memo keeps"],
    "cache=dual memo=force": [r"memo=force cannot be kept with a cache, .*: set memo=on or cache=none"],
    "memo=force generation.temperature=0.5": [r"memo=force cannot be kept at generation\.temperature=0\.5"],
    "generation.block_length=128": [r"generation\.block_length=128 is longer than the canvas of gen_length=64"],
    "generation.block_length=24": [r"generation\.gen_length=64 is not divisible by block_length=24"],
    "generation.steps=65": [r"generation\.steps=65 is more than gen_length=64"],
    "generation.gen_length=2048": [r"gen_length=2048 more than the model's context of 2048"],
    "model=llada model.load_format=dummy generation.gen_length=4096": [r"leaves no room for a prompt in .* of 4096"],
    "prompts=3": [r"prompts=3 cannot fill a batch of 8"],
    f"{EVALUATE} task=tiny_open task.limit=3 task.shard=3 task.num_shards=4": [r"task\.shard=3 of num_shards=4 is"],
    f"{EVALUATE} task=tiny_open task.shard=2 task.num_shards=2": [r"task\.shard=2 is out of range"],
    f"{EVALUATE} task=open_prompts task.limit=51": [r"task\.limit=51 is more than the 50 items there are"],
    f"{EVALUATE} task=open_prompts task.path=/no/such": [r"/no/such could not be read"],
    f"{EVALUATE} task=mmlu task.path=/no/such": [r"/no/such does not exist"],
    f"{COMPARE} tasks=[open_prompts]": [r"tasks has 'open_prompts', whose answers have no score"],
    f"{COMPARE} generation.block_length=16 tasks=[tiny_open] baseline_steps=10": [r"baseline_steps=10 is not"],
    f"{CALIBRATE} generation.temperature=0.5": [r"forward passes can be shared at 0 only"],
    f"{CALIBRATE} decoder=threshold": [rf"grid\.{key} is no parameter" for key in ("kappa", "tau", "radius")],
    f"{CALIBRATE} task.limit=1": [r"two items"],
    f"{TRAIN} data.emphasis=4": [r"data\.emphasis=4 needs .* set training\.measure_at and data\.passes"],
    "experiment=train model=sudoku data.emphasis=4": [r"data\.emphasis=4 is for kinds of exercises"],
    f"{TRAIN} data.rows=100": [r"data\.rows=100 is less than training\.batch_size=512"],
    f"{TRAIN} architecture.n_heads=7": [r"d_model=192 is no even multiple of n_heads=7"],
    "model.path=/no/such decoder=baseline": [r"'/no/such' does not exist"],
    "model.path=tiny/v2": [r"tiny/v2 has no calibrated kappa"],
    "cache=d2cache cache.sigma=0": [r"cache.sigma=0 is not a number of at least 0.001"],
    # several at once, of parts that have nothing to do with each other
    "decoder.kappa=1.5 decoder.tau=-1 generation.steps=0 batch_size=0 sandbox.cpu_seconds=0 prompts=x device=tpu": [
        r"decoder\.kappa=1\.5 ", r"decoder\.tau=-1 ", r"generation\.steps=0 ", r"batch_size=0 ",
        r"sandbox\.cpu_seconds=0 ", r"prompts='x' ", r"device='tpu' ",
    ],
}  # fmt: skip


@pytest.fixture
def no_model(monkeypatch):
    """Loading or training a model fails the test, and none is left from another one."""
    build.load.forget()
    for name in ("dlmlab.model.loader.load", "experiments.train.train.train"):

        @wraps(get_object(name))
        def loaded(*args: Any, **kwargs: Any) -> None:
            pytest.fail("a model was loaded")

        monkeypatch.setattr(name, loaded)


@pytest.mark.parametrize("typed", BAD)
def test_a_line_for_each_mistake_before_a_model_is_loaded(typed, command, no_model):
    status, out, errors = command(*typed.split())
    assert (status, out) == (1, "")
    lines = errors.splitlines()
    assert all(line.startswith("error: ") for line in lines), errors
    assert len(lines) == len(BAD[typed]), errors
    for pattern in BAD[typed]:
        assert any(re.search(pattern, line) for line in lines), errors


def test_a_value_from_the_environment_is_checked_too(command, no_model, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    status, _, errors = command("tracking=wandb", "prompts=0")
    assert status == 1
    assert re.findall(r"^error: (\S+?)=", errors, re.MULTILINE) == ["prompts", "tracking.wandb.mode"], errors


def test_there_are_many():
    assert len(BAD) >= 40


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_config_without_a_mistake_gets_to_the_model(command, no_model, tmp_path, experiment):
    if experiment == "likelihood":
        pytest.importorskip("lm_eval", reason="needs pip install 'dlmlab[eval]'")
    mmlu = data.write(tmp_path / "data") / "mmlu"
    needed = {
        "answer": ["prompt=Hi"],
        "reliability": ["model=sudoku", "task=sudoku9"],
        "trace": ["prompt=Hi"],
        "likelihood": ["task=mmlu_likelihood", "task.task=mmlu_astronomy", "task.num_fewshot=0", f"task.path={mmlu}"],
    }
    with pytest.raises(pytest.fail.Exception, match="a model was loaded"):
        command(f"experiment={experiment}", "tracking=terminal", *needed.get(experiment, []))


def leaves(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict) or not node:
        return [prefix]
    return [leaf for key, child in node.items() for leaf in leaves(child, f"{prefix}.{key}" if prefix else str(key))]


def nested_kind(kinds: dict[str, Any], key: str) -> Any:
    """The kind of a setting in a group of groups, such as `gates.mmlu.limit`; None where no group has one."""
    parent, _, name = key.rpartition(".")
    above, _, _ = parent.rpartition(".")
    members = get_args(kinds.get(above))
    return kinds_of(members[1]).get(name) if members and is_dataclass(members[1]) else None


TARGETS = sorted(
    {
        found
        for path in (ROOT / "conf").rglob("*.yaml")
        for found in re.findall(r"^_target_: (dlmlab\.\S+)$", path.read_text(), re.MULTILINE)
    }
)


def read_whole(kind: Any) -> bool:
    """Whether an annotation was read with all of its parts."""
    return kind not in (Any, declared.Unread) and all(read_whole(part) for part in get_args(kind) if part != ())


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_read_from_the_sources_is_what_is_declared(target):
    told, real = declared.kinds(target), kinds_of(get_object(target))
    assert told is not None
    assert list(told) == list(real)
    assert {key: kind for key, kind in told.items() if read_whole(kind)} == {
        key: kind for key, kind in real.items() if read_whole(told[key])
    }


def test_kinds_of_experiments_are_read_too():
    for experiment in EXPERIMENTS:
        module = "experiments.train.train" if experiment == "train_tiny" else f"experiments.{experiment}"
        told = declared.constant(f"{module}.KINDS")
        assert told is not None
        assert set(told) == set(find(f"{module}.run").kinds)


def test_what_cannot_be_read_is_left_to_the_import(tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text(
        "from somewhere import base\nKINDS = dict(a=int)\nMine = type('Mine', (base,), {})\n"
        "def rule(level: base.Level, *, depth: 'int' = 1, **more): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert declared.constant("my_rules.KINDS") is None
    assert declared.kinds("my_rules.Mine") is None
    assert declared.kinds("my_rules.Missing") is None
    assert declared.kinds("no_such_module.Mine") is None
    told = declared.kinds("my_rules.rule")
    assert (told["depth"], told["**"]) == (int, Any)
    assert fits("anything", told["level"])


def test_a_package_needs_no_init_file(tmp_path, monkeypatch):
    """Nor to be imported before, as it isn't in a launcher's workers."""
    place = tmp_path / "no_init" / "inner"
    place.mkdir(parents=True)
    (place / "rules.py").write_text("def rule(depth: int = 1): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert declared.kinds("no_init.inner.rules.rule") == {"depth": int}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_setting_has_a_kind(experiment, monkeypatch):
    """A new key of conf/ is checked where it is read: by an annotation, by `KINDS`, or by name."""
    monkeypatch.setenv("DLMLAB_ROOT", str(ROOT))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[f"experiment={experiment}", "tracking=wandb", "task=tiny_humaneval"])
    kinds = {**KINDS, **find(cfg._target_).kinds}
    for key in leaves(OmegaConf.to_container(cfg, resolve=False)):
        group, _, name = key.rpartition(".")
        if (
            key in SPECIAL
            or group in kinds
            or key.startswith(("grid.", "model.config", "model.localleap", "sandbox._"))
        ):
            continue
        if name == "_target_" or (group == "task" and name == "sandbox"):
            continue
        if (named := nested_kind(kinds, key)) is not None:
            kinds[key] = named
        if group == "decoder.published":
            kinds[key] = kinds_of(Generation)[name]
        if key not in kinds and (group in GROUPS or group.startswith("tracking.")):
            kinds[key] = kinds_of(get_object(OmegaConf.select(cfg, f"{group}._target_")))[name]
        assert key in kinds, f"{key} is checked by nothing: give it a kind"
        assert not fits(object(), kinds[key]), f"{key} takes anything"

"""How fast is a decoder against the baseline, and the loop against the reference?

    python run.py decoder=localleap model=llada15
    python run.py workload=gsm8k decoder=baseline cache=dual

Every setting (a decoder at a batch size) decodes the same distinct prompts, none of whose forward passes are shared.
Settings take turns, `repeats` times, after a warm-up that isn't counted; figures are medians over the repeats. Tokens
are generated ones, pooled over the prompts: a rate is all tokens of a repeat by its wall time. Devices are idle
whenever a clock is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dlmlab.errors import UserError
from dlmlab.generation import encode
from dlmlab.measure.rates import (
    Setting,
    Timings,
    describe,
    peak_gb,
    rate,
    same_canvases,
    step_ratio,
    times_faster,
    timings_of,
)
from dlmlab.measure.reference import reference
from dlmlab.measure.speed_gates import BASELINE, STEP_BATCH, Gate, find_gates
from dlmlab.measure.speed_gates import summary as gates_summary
from dlmlab.measure.timing import (
    Timing,
    TimingFile,
    clock,
    count,
    peak_memory,
    reset_peak_memory,
    take_turns,
    time_decode,
)
from dlmlab.policy import Policy
from dlmlab.rule import Rule
from dlmlab.run import build, conf
from dlmlab.run.begin import begin
from dlmlab.run.check import check_fit
from dlmlab.run.display import bar
from dlmlab.run.kinds import gathered
from dlmlab.run.speed_tables import (
    REFERENCE,
    computed_table,
    ledger_table,
    performance_table,
    reference_table,
    step_table,
)
from dlmlab.settings import NonNegativeFloat, NonNegativeInt, PositiveInt, fits, list_of
from dlmlab.task.base import Task
from dlmlab.tracking import Report
from dlmlab.types import Generation, Request

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

KINDS: Mapping[str, Any] = {
    "batch_sizes": list_of(PositiveInt),
    "prompts": PositiveInt,
    "prompt_lengths": list_of(PositiveInt) | None,
    "repeats": PositiveInt,
    "warmup": NonNegativeInt,
    "memory_limit_gb": NonNegativeFloat,
}
RANDOM_PROMPT = 32
"""Tokens of a random prompt, which random weights without a tokenizer are given."""


class Parts(NamedTuple):
    """What is timed.

    Attributes:
        task: The task that the prompts are of.
        generation: How their canvases are filled.
        texts: The prompts' texts.
        chosen: The decoder that the config names.
        rules: The decoders by the name that reports give them.
        caches: Those of decoders that have one, by the same name; the baseline has none.
    """

    task: Task
    generation: Generation
    texts: list[str]
    chosen: Rule
    rules: dict[str, Rule]
    caches: dict[str, Policy]


def check(cfg: DictConfig) -> Parts:
    """Return the prompts and the decoders.

    Raises:
        UserError: A decoder can't be had, or the task does not fit the settings or the model.
    """
    texts = list[str]()
    with gathered() as errors:
        if all(fits(cfg[key], KINDS[key]) for key in ("prompts", "batch_sizes")):
            widest = max(STEP_BATCH, *cfg.batch_sizes)
            if cfg.prompts < widest:
                also = f" (batch {STEP_BATCH} is always timed)" if widest not in cfg.batch_sizes else ""
                errors.append(
                    f"prompts={cfg.prompts} cannot fill a batch of {widest}: set prompts={widest} or more{also}"
                )
        with errors:
            rules = {BASELINE: build.decoder(cfg, BASELINE)}
            chosen = build.decoder(cfg)
            cache = build.cache(cfg, [chosen])
            own = BASELINE if chosen == rules[BASELINE] else display_name(chosen)
            own = build.with_cache(own, conf.labels()["cache"])
            rules.setdefault(own, chosen)
            caches = {own: cache} if cache.keeps else {}
        with errors:
            task = build.task(cfg, cfg.task.name if "_target_" in cfg.task else build.role(cfg, "bleu"))
            generation = build.generation(cfg, task)
            with errors:
                check_fit(cfg, task, generation)
            if cfg.prompt_lengths is None and fits(cfg.prompts, PositiveInt):
                texts = distinct_prompts(task, cfg.prompts)
    return Parts(task, generation, texts, chosen, rules, caches)


def run(cfg: DictConfig, parts: Parts) -> None:
    """Time the decoder and the baseline at `batch_sizes`, and the reference loop.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    generation = parts.generation
    batches = list(dict.fromkeys(cfg.batch_sizes))
    with begin(cfg, [parts.task] if parts.texts else []) as run:
        prompts = token_ids(cfg, run.model, parts.texts, generation)
        jobs = {name: (rule, parts.caches.get(name)) for name, rule in parts.rules.items()}
        timings = measure(cfg, run.model, prompts, generation, jobs, batches, run.timings)
        chosen = " with ".join(map(str, [parts.chosen, *parts.caches.values()]))
        report = Report(
            title="Performance benchmark",
            question=f"How fast is {chosen} against the baseline with {build.model_name(cfg)}?",
            settings=settings(cfg, generation, parts.chosen) | cache_settings(run.model, parts, prompts),
            **report_fields(
                cfg, timings, run.model.device.type, same_canvases(timings, Setting(BASELINE, 1), Setting(REFERENCE, 1))
            ),
        )
        run.publish(report)


def report_fields(cfg: DictConfig, timings: Timings, device: str, same_tokens: float | None) -> dict[str, Any]:
    """Return what the timings say, in a Report's fields.

    Args:
        cfg: The run's config.
        timings: By setting, a timing for each round.
        device: The device's kind, such as `cuda`.
        same_tokens: The share of prompts with the reference's tokens, see `rates.same_canvases`; None if not timed.
    """
    names = list(dict.fromkeys(setting.decoder for setting in timings if setting.decoder != REFERENCE))
    batches = list(dict.fromkeys(cfg.batch_sizes))
    gates = find_gates(timings, names, batches, cfg.memory_limit_gb)
    return {
        "tables": [
            performance_table(timings, names, batches, cfg.memory_limit_gb, device),
            *([reference_table(timings, build.model_name(cfg))] if Setting(REFERENCE, 1) in timings else []),
            ledger_table(timings),
            computed_table(timings),
            step_table(timings),
        ],
        "verdict": answer(timings, names, batches, gates),
        "results": {
            "timings": [describe(setting, runs) for setting, runs in timings.items()],
            "performance_gates": [gate._asdict() for gate in gates],
            "same_tokens_as_reference": same_tokens,
        },
        "summary": summary_of(timings, names, batches),
    }


def summary_of(timings: Timings, names: Sequence[str], batches: Sequence[int]) -> dict[str, float]:
    """Return the decoder's figures and the baseline's, under keys that are the same for every decoder.

    Args:
        timings: By setting, a timing for each round.
        names: The decoders, the baseline first; the last is the one that is asked about.
        batches: The batch sizes that are reported.
    """
    found = dict[str, float]()
    for whose, name in (("", names[-1]), ("baseline ", BASELINE)):
        for batch in batches:
            found[f"{whose}tokens per second/batch={batch}"] = rate(timings, Setting(name, batch)).median
        found[f"{whose}step p99 by p50"] = step_ratio(timings, Setting(name, STEP_BATCH))
        found[f"{whose}memory peak GB"] = peak_gb(timings, name)
    for batch in batches if len(names) > 1 else []:
        faster = times_faster(timings, Setting(names[-1], batch), than=Setting(BASELINE, batch))
        found[f"speedup/batch={batch}"] = faster.median
    return found


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run with these timings; see `dlmlab.verify`."""
    recorded = saved.results
    timings = {Setting(each["decoder"], each["batch"]): timings_of(each) for each in recorded["timings"]}
    device = saved.manifest["model"]["device"].partition(":")[0]
    return report_fields(saved.cfg, timings, device, recorded["same_tokens_as_reference"])


def distinct_prompts(task: Task, wanted: int) -> list[str]:
    """Return the task's first prompts, no two of them the same.

    Args:
        task: The task.
        wanted: How many prompts.

    Raises:
        UserError: The task has fewer.
    """
    prompts = list(dict.fromkeys(item.prompt for item in task.items()))
    if len(prompts) < wanted:
        raise UserError(
            f"prompts={wanted} is more than the {len(prompts)} distinct prompts of {task.name}: lower it, or choose "
            "another task or task.limit"
        )
    return prompts[:wanted]


def display_name(rule: Rule) -> str:
    """Return the rule's name as the performance log writes it, where the choice of decoder is that rule's only one."""
    choice: str = HydraConfig.get().runtime.choices["decoder"]
    return type(rule).__name__ if choice == type(rule).__name__.lower() else choice


def token_ids(cfg: DictConfig, model: Any, texts: Sequence[str], generation: Generation) -> list[tuple[int, ...]]:
    """Return the prompts as the model reads them: the texts, or random tokens.

    Random tokens are for `prompt_lengths`, and for random weights that have no tokenizer.

    Args:
        cfg: The run's config.
        model: The model.
        texts: The prompts' texts; they play no part where tokens are random.
        generation: How canvases are filled.
    """
    dummy = cfg.model.get("load_format", "dummy") == "dummy"  # a family may have no checkpoints to load
    if cfg.prompt_lengths is None and not (model.tokenizer is None and dummy):
        return [encode(model, text, generation.gen_length, f"prompt {index}") for index, text in enumerate(texts)]
    lengths = [RANDOM_PROMPT] if cfg.prompt_lengths is None else list(cfg.prompt_lengths)
    shuffled = np.random.default_rng(cfg.seed).permutation(np.resize(lengths, cfg.prompts))
    return random_prompts(model, shuffled.tolist(), generation, cfg.seed)


def random_prompts(model: Any, lengths: Sequence[int], generation: Generation, seed: int) -> list[tuple[int, ...]]:
    """Return a prompt of random tokens of each length.

    Args:
        model: The model, whose vocabulary they are from.
        lengths: Tokens of each prompt.
        generation: How canvases are filled.
        seed: The seed of the draw.

    Raises:
        UserError: One leaves no room for the canvas in the model's context.
    """
    draw = np.random.default_rng(seed)
    prompts = [draw.integers(0, model.config.vocab_size, length).tolist() for length in lengths]
    return [encode(model, prompt, generation.gen_length, "prompt") for prompt in prompts]


def measure(
    cfg: DictConfig,
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    generation: Generation,
    decoders: Mapping[str, tuple[Rule, Policy | None]],
    batches: Sequence[int],
    file: TimingFile | None = None,
) -> dict[Setting, list[Timing]]:
    """Time every setting, after a warm-up of one batch for each.

    Args:
        cfg: The run's config: rounds, warm-up and seed.
        model: The model.
        prompts: Token ids of each prompt.
        generation: How canvases are filled.
        decoders: Rules with the cache that each has, by name; None for no cache.
        batches: The batch sizes beside 1 and STEP_BATCH, which are always timed.
        file: Where what is timed is kept; None keeps nothing.

    Returns:
        By setting, a timing for each round; the reference's is among them where it knows the generation's settings.
    """

    def jobs(only_one_batch: bool) -> dict[Setting, Callable[[], Timing]]:
        found: dict[Setting, Callable[[], Timing]] = {}
        for batch in sorted({1, STEP_BATCH, *batches}):
            some = prompts[:batch] if only_one_batch else prompts
            for name, (rule, cache) in decoders.items():
                requests = [Request(index, prompt, rule, cache=cache) for index, prompt in enumerate(some)]
                found[Setting(name, batch)] = partial(time_decode, model, requests, generation, batch, cfg.seed)
            if batch == 1 and expressible(generation):
                found[Setting(REFERENCE, 1)] = partial(time_reference, model, some, generation)
        return found

    warm_up, counted = jobs(only_one_batch=True), jobs(only_one_batch=False)
    with bar("warm-up", len(counted) * (cfg.warmup + cfg.repeats), display=cfg.display) as shown:

        def show(label: str, setting: Setting) -> None:
            shown.advance(f"{label}: {setting.decoder}, batch {setting.batch}")

        # The largest batch first: where more rows need another memory, what was recorded with the old one is lost.
        take_turns(dict(reversed(warm_up.items())), cfg.warmup, partial(show, "warm-up"))
        kept = {} if file is None else {"keep": file.keep}
        return take_turns(counted, cfg.repeats, partial(show, "timing"), **kept)


def expressible(generation: Generation) -> bool:
    """Return whether the reference loop, which is greedy and takes every token as it is, knows these settings."""
    plain = replace(
        generation,
        temperature=0.0,
        logits_eos_inf=False,
        confidence_eos_eot_inf=False,
        confidence_eos_eot_zero=False,
        cfg_scale=0.0,
    )
    return generation == plain


def time_reference(model: Any, prompts: Sequence[tuple[int, ...]], generation: Generation) -> Timing:
    """Time the reference loop's baseline, prompt after prompt.

    Args:
        model: The model.
        prompts: Token ids of each prompt.
        generation: How canvases are filled.
    """
    reset_peak_memory(model.device)
    begun = clock(model.device)
    outputs = [reference(model, [prompt], generation) for prompt in prompts]
    seconds = clock(model.device) - begun
    tokens, forwards = [out.tokens[0] for out in outputs], [out.forwards[0] for out in outputs]
    positions = sum(n * (len(prompt) + generation.gen_length) for n, prompt in zip(forwards, prompts, strict=True))
    ledger = count(model, tokens, forwards)._replace(positions=positions, full_passes=float(sum(forwards)))
    return Timing(seconds, ledger, [], max(forwards), peak_memory(model.device), tokens)


def answer(timings: Timings, names: Sequence[str], batches: Sequence[int], gates: Sequence[Gate]) -> str:
    """Say how much faster the decoder is, and which gates are missed.

    Args:
        timings: By setting, a timing for each round.
        names: The decoders, the baseline first.
        batches: The batch sizes that are reported.
        gates: The gates of these timings.
    """
    faster = [
        (name, batch, times_faster(timings, Setting(name, batch), than=Setting(BASELINE, batch)).median)
        for name in names[1:]
        for batch in batches
    ]
    said = [f"{name} is {times:.2f}× as fast as the baseline at batch={batch}." for name, batch, times in faster]
    return " ".join([*said, gates_summary(gates)])


def settings(cfg: DictConfig, generation: Generation, rule: Any) -> dict[str, Any]:
    """Return the settings that a reader must know to compare the figures.

    Args:
        cfg: The run's config.
        generation: How canvases are filled.
        rule: The chosen decoder.
    """
    numbers = {key: cfg.model[key] for key in ("path", "dtype", "quantization", "load_format") if key in cfg.model}
    schedule = {key: value for key, value in asdict(generation).items() if value is not False}
    lengths = {} if cfg.prompt_lengths is None else {"prompt_lengths": str(cfg.prompt_lengths)}
    return numbers | schedule | asdict(rule) | {key: cfg[key] for key in ("prompts", "repeats", "seed")} | lengths


def cache_settings(model: Any, parts: Parts, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return what a reader must know of the cache: which, and the memory in MB that the longest row's store takes.

    Args:
        model: The model, which makes the store.
        parts: What `check` returned.
        prompts: Token ids of each prompt.
    """
    found: dict[str, Any] = {"cache": conf.labels()["cache"]}
    for cache in parts.caches.values():
        positions = max(map(len, prompts)) + parts.generation.gen_length
        found["MB of a row's store"] = model.new_store(positions, cache.needs).nbytes / 1e6
    return found

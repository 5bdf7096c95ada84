"""How does a canvas fill? One prompt, decoded by one decoder or by several beside each other.

    python run.py experiment=trace prompt="Count from 3 to 12" decoder=localleap
    python run.py experiment=trace prompt="Count from 3 to 12" 'decoders=[baseline,localleap]'

The run's folder then holds the film (denoising.gif), the full canvases for a paper (denoising.png), the viewer
(viewer.html) and what they were made of (traces.jsonl).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from dlmlab.errors import UserError
from dlmlab.page.viewer import viewer_page
from dlmlab.picture.animation import film, still
from dlmlab.policy import Policy
from dlmlab.record.files import visible, write_text
from dlmlab.record.traces import Trace, TraceFile, read
from dlmlab.rule import Rule
from dlmlab.run import build, conf
from dlmlab.run.begin import begin
from dlmlab.run.check import check_fit, decoders
from dlmlab.run.kinds import gathered
from dlmlab.settings import list_of
from dlmlab.task.base import Item
from dlmlab.task.prompts import Prompts
from dlmlab.tracking import Report, Table

KINDS: Mapping[str, Any] = {"prompt": str | float | None, "decoders": list_of(str) | None}
VIEWER = "viewer.html"


class Parts(NamedTuple):
    """The prompt, and the decoders by name, all with the same cache."""

    task: Prompts
    rules: dict[str, Rule]
    cache: Policy


def check(cfg: DictConfig) -> Parts:
    """Return the prompt, as a task, and the decoders.

    Raises:
        UserError: One of them can't be had, or the prompt doesn't fit the model.
    """
    with gathered() as errors:
        with errors:
            rules = decoders(cfg, cfg.decoders or [conf.labels()["decoder"]])
            cache = build.cache(cfg, rules.values())
        with errors:
            task = Prompts([Item("prompt", prompt_of(cfg), "")], build.own_generation(cfg), "prompt")
            check_fit(cfg, task, task.generation)
    return Parts(task, rules, cache)


def run(cfg: DictConfig, parts: Parts) -> None:
    """Decode the prompt with each of the decoders, and keep what every forward pass did.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    task, rules, cache = parts
    with begin(cfg, [task]) as run:
        run.traces = TraceFile(run.folder, limit=1)
        samples = run.evaluate(task, rules, task.generation, dict.fromkeys(rules, cache))
        run.traces.finish()
        found = {trace.decoder: trace for trace in read(run.traces.path).values()}
        report = Report(
            title="How a canvas fills",
            question=f"In which order do {', '.join(rules)} answer “{visible(task.given[0].prompt)}” with "
                     f"{build.model_name(cfg)}?",
            settings={"model": build.model_name(cfg), "generation": str(task.generation), "cache": str(cache)}
            | {f"decoder {name}": str(rule) for name, rule in rules.items()},
            tables=[Table("", ["decoder", "forward passes", "positions computed", "answer"],
                          [[name, each.forwards, each.positions, each.text] for name, [each] in samples.items()])],
            results={"forwards": {name: each.forwards for name, [each] in samples.items()}},
            summary=fewest({name: each.forwards for name, [each] in samples.items()}),
            pictures=show([found[name] for name in rules], run.folder),
        )  # fmt: skip
        run.publish(report)


def fewest(forwards: Mapping[str, int]) -> dict[str, str | int]:
    """The decoder with the fewest forward passes, and how many these are."""
    name = min(forwards, key=lambda each: forwards[each])
    return {"decoder": name, "forwards": forwards[name]}


def prompt_of(cfg: DictConfig) -> str:
    """Return the prompt. Raises UserError where there is none, or no text."""
    if OmegaConf.is_missing(cfg, "prompt") or cfg.prompt is None or not str(cfg.prompt).strip():
        raise UserError('prompt is empty: give one, such as prompt="Count from 3 to 12"')
    prompt = str(cfg.prompt)
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"prompt={visible(prompt[:80])} is not UTF-8: give it in UTF-8") from error
    return prompt


def show(traces: list[Trace], folder: Path) -> list[Path]:
    """Write the viewer, the film and the still, and return the paths of the two pictures among them.

    Args:
        traces: The decoders' traces of the prompt, in the order in which they are shown.
        folder: The run's folder.
    """
    write_text(folder / VIEWER, viewer_page(traces))
    print(f"viewer: {folder / VIEWER}")
    return [film(traces, folder / "denoising.gif"), still(traces, folder / "denoising.png")]

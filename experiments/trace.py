"""How does a canvas fill? One prompt, decoded by one decoder or by several beside each other.

    python run.py experiment=trace prompt="Count from 3 to 12" decoder=localleap
    python run.py experiment=trace prompt="Count from 3 to 12" 'decoders=[baseline,localleap]'

The run's folder then holds the film (denoising.gif), the full canvases for a paper (denoising.png), the viewer
(viewer.html) and what they were made of (traces.jsonl).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlmlab.errors import UserError
from dlmlab.loop.batch import Batch
from dlmlab.page.viewer import viewer_page
from dlmlab.picture.animation import film, still
from dlmlab.record.files import write_text
from dlmlab.record.report import visible
from dlmlab.record.samples import SampleFile
from dlmlab.record.traces import Trace, TraceFile, read
from dlmlab.run import build
from dlmlab.run.check import check_decoders, check_fit, gathered
from dlmlab.run.evaluate import evaluate_all
from dlmlab.settings import list_of
from dlmlab.task.base import Item, fingerprint_items
from dlmlab.tracking import Report, Table
from dlmlab.types import Generation

KINDS: Mapping[str, Any] = {"prompt": str | float | None, "decoders": list_of(str) | None}
VIEWER = "viewer.html"


@dataclass(frozen=True)
class OnePrompt:
    """A task of one item, whose answer has no score."""

    prompt: str
    generation: Generation
    name: str = "prompt"
    version: str = "1"

    @property
    def gen_length(self) -> int:
        return self.generation.gen_length

    @property
    def block_length(self) -> int:
        return self.generation.block_length

    @property
    def steps(self) -> int:
        return self.generation.steps

    @property
    def fingerprint(self) -> str:
        return fingerprint_items(self.items())

    def items(self) -> list[Item]:
        return [Item("prompt", self.prompt, "")]

    def score(self, item: Item, text: str) -> None:
        """None."""


def run(cfg: DictConfig) -> None:
    """Decode `prompt` with each of `decoders`, or with `decoder`, and keep what every forward pass did."""
    task = OnePrompt(prompt_of(cfg), Generation(**cfg.generation))
    chosen = build.labels()["decoder"]  # its parameters may have been changed on the command line
    rules = {name: build.decoder(cfg, None if name == chosen else name) for name in cfg.decoders or [chosen]}
    model = build.model(cfg)
    batch = Batch(cfg.batch_size)
    made = build.begin(cfg, model, [task]) | {"batch": batch.log}
    file, kept = SampleFile(build.folder()), TraceFile(build.folder(), limit=1)
    memo = build.memo(cfg, model, task.generation)
    samples = evaluate_all(
        model, task, rules, task.generation, batch_size=batch, seed=cfg.seed, memo=memo, traces=kept, file=file
    )
    file.finish()
    kept.finish()
    found = {trace.decoder: trace for trace in read(kept.path).values()}
    pictures = show([found[name] for name in rules], build.folder())
    report = Report(
        title="How a canvas fills",
        question=f"In which order do {', '.join(rules)} answer “{visible(task.prompt)}” with {cfg.model.path}?",
        settings={"model": cfg.model.path, "generation": str(task.generation)}
        | {f"decoder {name}": str(rule) for name, rule in rules.items()},
        tables=[Table("", ["decoder", "forward passes", "answer"],
                      [[name, each.forwards, each.text] for name, [each] in samples.items()])],
        results={"forwards": {name: each.forwards for name, [each] in samples.items()}},
        summary={f"{name}/forwards": each.forwards for name, [each] in samples.items()},
        pictures=pictures,
    )  # fmt: skip
    build.publish(cfg, "trace", made, report)


def check(cfg: DictConfig) -> None:
    """Raise UserError for a prompt, schedule or decoder that can't be had, and a prompt that doesn't fit the model."""
    with gathered() as errors:
        with errors:
            check_decoders(cfg, cfg.decoders or [build.labels()["decoder"]])
        with errors, build.homes(dict.fromkeys(map(str, cfg.generation), "generation")):
            task = OnePrompt(prompt_of(cfg), Generation(**cfg.generation))
            check_fit(cfg, task, task.generation)


def prompt_of(cfg: DictConfig) -> str:
    """The prompt. Raises UserError where there is none, or no text."""
    if OmegaConf.is_missing(cfg, "prompt") or not str(cfg.prompt).strip():
        raise UserError('prompt is empty: give one, such as prompt="Count from 3 to 12"')
    prompt = str(cfg.prompt)
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"prompt={visible(prompt[:80])} is not UTF-8: give it in UTF-8") from error
    return prompt


def show(traces: list[Trace], folder: Path) -> list[Path]:
    """Write the viewer, the film and the still; the pictures among them."""
    write_text(folder / VIEWER, viewer_page(traces))
    print(f"viewer: {folder / VIEWER}")
    return [film(traces, folder / "denoising.gif"), still(traces, folder / "denoising.png")]

"""A run under way: the folder that it writes, and everything in it, until its report is published.

with begin(cfg, [task]) as run:
    samples = run.evaluate(task, {"candidate": rule}, generation)
    run.publish(Report(title="…", …))
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dlmlab import manifest
from dlmlab.denoise import StepTiming
from dlmlab.loop.batch import Batch
from dlmlab.measure.timing import TimingFile
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample, SampleFile
from dlmlab.record.traces import TraceFile
from dlmlab.rule import Rule
from dlmlab.run import build, conf, resume
from dlmlab.run.evaluate import Decoding, evaluate
from dlmlab.run.experiment import name_of
from dlmlab.run.gpus import spread
from dlmlab.tracking import Report, RunRecord, following, track
from dlmlab.types import Generation, Output

if TYPE_CHECKING:
    from dlmlab.task.base import Task
    from dlmlab.tracking import Tracker

log = logging.getLogger(__name__)


class Run:
    """A run that has begun.

    Attributes:
        cfg: The run's whole config.
        model: What it decodes with; None for an experiment that loads none.
        folder: Where it writes, alone.
        manifest: What makes its results, of its first start where it goes on.
        trackers: Those that are told what it finds.
        batch: How many canvases go through the model at once.
        steps: Every step of the loop that the run took in this sitting.
        samples: The file of the samples it has so far.
        traces: The file of the traces it has so far.
        timings: The file of what it has timed so far.
    """

    def __init__(
        self, cfg: DictConfig, model: Any, tasks: Sequence[Task], decode: Callable[..., Iterator[Output]]
    ) -> None:
        """decode: What decodes, on however many devices."""
        self.cfg, self.model, self.folder, self._decode = cfg, model, conf.folder(), decode
        overrides = OmegaConf.to_container(HydraConfig.get().overrides.task)
        found = {**manifest.manifest(cfg, model, tasks), "overrides": overrides}
        self.manifest = resume.begin(self.folder, found, bool(cfg.resume_force))
        self.trackers: Sequence[Tracker] = build.trackers(cfg)
        self.batch, self.steps = Batch(cfg.batch_size), list[StepTiming]()
        self.traces = TraceFile(self.folder, cfg.trace_limit if cfg.get("trace") else 0)

    @cached_property
    def samples(self) -> SampleFile:
        return SampleFile(self.folder)

    @cached_property
    def timings(self) -> TimingFile:
        return TimingFile(self.folder)

    @property
    def computed(self) -> int | None:
        """Canvases that went through the model; a run that was resumed does not know."""
        return None if self.manifest["resumes"] else sum(step.computed for step in self.steps)

    def decoding(self, generation: Generation | None = None) -> Decoding:
        """Return how the run decodes: into its files and with its batch.

        Args:
            generation: The settings whose memo answers; without any, every canvas is computed.
        """
        memo = None if generation is None else build.memo(self.cfg, self.model, generation)
        return Decoding(
            self.batch,
            self.cfg.seed,
            memo=memo,
            traces=self.traces,
            file=self.samples,
            on_step=self.steps.append,
            display=self.cfg.display,
            decode=self._decode,
        )

    def evaluate(
        self, task: Task, rules: Mapping[str, Rule], generation: Generation, caches: Mapping[str, Policy] | None = None
    ) -> dict[str, list[Sample]]:
        """Decode and score all of a task's items with each of the rules; see `dlmlab.run.evaluate.evaluate`.

        Args:
            task: The task whose items are decoded.
            rules: By what they are called in the samples.
            generation: How canvases are filled.
            caches: By the same names; a rule that isn't there has none.
        """
        how = replace(self.decoding(generation), caches=caches or {})
        return evaluate(self.model, task, rules, generation, how)

    def record(self, report: Report) -> RunRecord:
        """Return the run as trackers are given it."""
        return RunRecord(self.folder, name_of(self.cfg), conf.labels(), self.manifest, report)

    def publish(self, report: Report) -> None:
        """Finish the run's files, then write and report what it answers."""
        if "samples" in vars(self):
            self.samples.finish()
            self.manifest["batch"] = self.batch.log
        self.traces.finish()
        self.manifest = manifest.finish(self.manifest)
        track(self.trackers, self.record(report))
        log.info("ends: %s", report.verdict or report.title)


@contextmanager
def begin(cfg: DictConfig, tasks: Sequence[Task] | None = None) -> Iterator[Run]:
    """Begin a run in Hydra's folder, or let it go on there; the trackers that follow it know when it ends, and how.

    Args:
        cfg: The run's whole config.
        tasks: The tasks whose items the config's model decodes; None where no model is loaded.

    Raises:
        UserError: The folder holds another run, or the model can't be had.
        OSError: The folder can't be written.
    """
    with spread(cfg) as decode:
        run = Run(cfg, None if tasks is None else build.model(cfg), tasks or (), decode)
        remember()
        log.info("begins: %s", run.manifest["command"])
        with following(run.trackers, run.record(Report(title=""))):
            yield run


def remember() -> None:
    """Let `resume=last` mean the run that begins now, or the multirun that it is a job of."""
    job = HydraConfig.get()
    if job.mode is RunMode.MULTIRUN:
        resume.remember("hydra.sweep.dir", Path(job.sweep.dir))
    else:
        resume.remember("hydra.run.dir", conf.folder())

"""A run's folder made without a model, so that a test can put anything into it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from dlmlab import manifest
from dlmlab.model import checkpoint, place
from dlmlab.record.report import Report, RunRecord
from dlmlab.record.samples import Sample, SampleFile
from dlmlab.run.samples import Evaluated
from dlmlab.task.extract import answer_letter
from dlmlab.task.tiny.tasks import TinyMMLU
from dlmlab.tracking import save
from experiments import evaluate

ROOT = Path(__file__).resolve().parents[2]
ITEMS = 3


def conf(group: str, name: str) -> dict[str, Any]:
    """A file of conf/, as it stands."""
    return dict(yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text()))


def write_run(folder: Path) -> Path:
    """An evaluation of three questions that were answered with nothing, finished and sound."""
    folder.mkdir(parents=True)
    task = conf("task", "tiny_mmlu") | {"per_kind": 1, "limit": ITEMS}
    asked = TinyMMLU(**{key: each for key, each in task.items() if key != "_target_"} | {"filter": answer_letter})
    tokenizer = checkpoint.read_tokenizer(place.local("tiny/v1"))
    assert tokenizer is not None
    end = int(tokenizer.eos_token_id)
    samples = [
        Sample(
            "tiny_mmlu", "candidate", index, item.id, item.prompt, "", [end] * 4, [0, 1, 1, 1], 2, 0.0, "no answer", {}
        )
        for index, item in enumerate(asked.items())
    ]
    file = SampleFile(folder)
    for sample in samples:
        file.add(sample)
    file.finish()
    made = {
        "started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:01:00+00:00", "command": "python run.py",
        "config": {
            "model": {"path": "tiny/v1", "revision": None}, "task": task, "sandbox": conf("sandbox", "bubblewrap"),
            "decoder": {"_target_": "dlmlab.decoder.threshold.Threshold", "threshold": 0.9},
        },
        "git": {"commit": "0" * 40, "dirty": False}, "code": "", "seed": 0, "overrides": ["task=tiny_mmlu"],
        "model": {"device": "cpu", "tokenizer": manifest.tokenizer_fingerprint(tokenizer), "end_token_ids": [end]},
        "data": manifest.describe_data([asked]), "machine": {"cpu": "A", "cores": 2, "gpus": []}, "torch": {},
        "packages": {}, "resumes": [],
    }  # fmt: skip
    settings = {"task": "tiny_mmlu", "model": "tiny", "decoder": "threshold", "items": f"{ITEMS}"}
    of = Evaluated("tiny_mmlu", "tiny", "threshold", ITEMS, beats_empty=True)
    found = evaluate.report_fields(SimpleNamespace(end_token_ids=(end,)), samples, None, of, {})
    report = Report("Evaluation: tiny_mmlu", "How well?", settings, **found)
    save(RunRecord(folder, "evaluate", {"model": "tiny", "decoder": "threshold", "task": "tiny_mmlu"}, made, report))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("- task=tiny_mmlu\n")
    return folder


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))

"""A finished run to report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlmlab.tracking import Report, RunRecord, Table

MANIFEST = {
    "started": "2026-05-24T10:00:00+02:00",
    "ended": "2026-05-24T10:05:00+02:00",
    "command": "python run.py decoder=localleap model=llada15",
    "config": {"seed": 0, "decoder": {"kappa": 0.5, "tau": 0.75}},
    "git": {"commit": "0123456789abcdef", "dirty": True},
    "model": {"device": "cuda:0"},
    "machine": {"cpu": "Some CPU", "cores": 2, "gpus": [{"name": "RTX 5070", "memory_gb": 12.0}]},
}
SPEED = Table(
    "",
    ["Metric", "Value", "Gate"],
    [["Tokens/sec batch=1 (baseline)", 32.9, None], ["LocalLeap speedup batch=1", "1.77×", "≥1.10× ✓"]],
    note="Canvas tokens.",
)


@pytest.fixture
def make_run(tmp_path):
    """Builds a run whose folder exists; keywords replace parts of its report."""

    def make(**changes: Any) -> RunRecord:
        folder: Path = tmp_path / "outputs" / "2026-05-24" / "10-00-00"
        folder.mkdir(parents=True, exist_ok=True)
        report = {
            "title": "Performance benchmark",
            "question": "How much faster is LocalLeap?",
            "settings": {"steps": 16, "gen_length": 64},
            "tables": [SPEED],
            "verdict": "LocalLeap is 1.77× as fast.",
            "summary": {"speedup/batch=1": 1.77, "passed": True},
        }
        labels = {"model": "llada15", "decoder": "localleap", "task": "open_prompts"}
        return RunRecord(folder, "throughput", labels, MANIFEST, Report(**(report | changes)))

    return make

"""Benchmarks from a hub: the real libraries load them from a server on this machine."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import yaml

from tests.task import benchmark_data as data
from tests.task.fake_hub import serve

ROOT = Path(__file__).resolve().parents[2]
REVISION = yaml.safe_load((ROOT / "conf/task/gsm8k.yaml").read_text())["revision"]
CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
---
"""


def table(rows: list[dict[str, str]]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def answer(home: Path, name: str, *typed: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python run.py experiment=evaluate task=gsm8k …` with a cache of its own."""
    pytest.importorskip("lm_eval", reason="needs pip install 'dlmlab[eval]'")
    command = [sys.executable, str(ROOT / "run.py"), "experiment=evaluate", "task=gsm8k", "task.limit=2", "device=cpu"]
    command += ["task.num_fewshot=1", "generation.gen_length=8", "decoder=threshold", "tracking=terminal", "memo=off"]
    places = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "0", **environment}
    return subprocess.run(
        [*command, f"hydra.run.dir={home / name}", *typed],
        env={**os.environ, **places}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_task_comes_from_the_hub_at_its_pinned_revision_then_from_the_cache(tmp_path: Path) -> None:
    files = {
        "README.md": CARD.encode(),
        "main/train-0.parquet": table(data.GSM8K[:8]),
        "main/test-0.parquet": table(data.GSM8K[8:]),
    }
    with serve(files, REVISION) as hub:
        first = answer(tmp_path, "first", HF_ENDPOINT=hub.url)
        assert first.returncode == 0, first.stderr
        assert {path for path in hub.asked if "gsm8k" in path and REVISION not in path} == set()
        assert any(path.endswith("main/test-0.parquet") for path in hub.asked)
        other = answer(tmp_path, "none", f"task.revision={'0' * 40}", HF_ENDPOINT=hub.url)
    assert "2 of 3" in first.stdout
    assert other.returncode == 1
    assert "openai/gsm8k could not be loaded from the hub" in other.stderr.splitlines()[-1]
    cached = answer(tmp_path, "cached", HF_HUB_OFFLINE="1")
    assert cached.returncode == 0, cached.stderr
    assert (tmp_path / "cached" / "samples.jsonl").read_bytes() == (tmp_path / "first" / "samples.jsonl").read_bytes()
    stale = answer(tmp_path, "stale", f"task.revision={'0' * 40}", HF_HUB_OFFLINE="1")
    assert stale.returncode == 1
    assert f"the cache holds openai/gsm8k at {REVISION}, not at {'0' * 40}" in stale.stderr.splitlines()[-1]

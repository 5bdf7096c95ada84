"""The same config gives the same bytes, in whichever process; a row gets the same, in whichever company."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from dlmlab.generation import decode, encode
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from dlmlab.types import Generation, Output, Request
from tests.decoder.steps import NAMES, rule_of

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = [
    "Share 21 nuts fairly among Ann, Ida and Bob.",
    "Count from 3 to 9.",
    "Name a colour.",
    "Invent a pilot of Bangkok, aged 64, who has a younger sister or brother, and tell the age of both.",
    "Count from 3 to 9.",
]


@pytest.mark.parametrize(("decoder", "temperature"), [("random", 0.0), ("credit", 0.8)])
def test_two_processes_write_the_same_samples_to_the_byte(tmp_path: Path, decoder: str, temperature: float) -> None:
    arguments = ["experiment=evaluate", "task=tiny_open", "task.limit=3", "device=cpu", "tracking=terminal"]
    arguments += [f"decoder={decoder}", f"generation.temperature={temperature}", f"memo_path={tmp_path}/memo.sqlite"]
    folders = [tmp_path / name for name in ("one", "two")]
    running = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *arguments, f"hydra.run.dir={folder}"],
            env={**os.environ, "PYTHONHASHSEED": str(place)},
            stdout=subprocess.DEVNULL,
        )
        for place, folder in enumerate(folders)
    ]
    assert [process.wait() for process in running] == [0, 0]
    one, two = ((folder / "samples.jsonl").read_bytes() for folder in folders)
    assert one == two
    assert one.count(b"\n") == 3


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("name", NAMES)
def test_neighbours_do_not_matter_on_a_cpu_in_float32(name: str, temperature: float) -> None:
    together = outputs(name, temperature, batch_size=4)
    assert outputs(name, temperature, batch_size=1) == together
    assert outputs(name, temperature, batch_size=4, only=[3, 0]) == [together[0], together[3]]


def outputs(name: str, temperature: float, batch_size: int, only: list[int] | None = None) -> list[Output]:
    generation = Generation(gen_length=16, block_length=8, steps=8, temperature=temperature)
    asked = range(len(PROMPTS)) if only is None else only
    requests = [Request(place, encode(model(), PROMPTS[place], 16, "prompt"), rule_of(name)) for place in asked]
    found = decode(model(), requests, generation, batch_size=batch_size)
    return sorted(found, key=lambda output: output.index)


@cache
def model() -> LLaDAModelLM:
    return load("tiny/v1", device="cpu")

"""Whatever lies in a run's folder, it is listed, and the page is written."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from dlmlab.page.collect import collect, read_run
from dlmlab.page.render import render
from dlmlab.page.rows import rows_of
from dlmlab.page.speeds import speeds

JUNK = [None, True, -1, 1e308, "text", "\ud800", [], [[]], {}, {"name": []}, {"a": {"b": None}}]


def mutated(value, rng):
    """A value with one thing in it, at any depth, replaced or lost."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        rest = {name: each for name, each in value.items() if name != key}
        return rest if rng.random() < 0.2 else {**rest, key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], mutated(value[place], rng), *value[place + 1 :]]
    return rng.choice(JUNK)


@pytest.mark.parametrize("name", ["grid", "speed", "2026-11-20/first"])
def test_no_content_of_a_file_is_an_error(outputs, tmp_path, name):
    rng = random.Random(0)
    run = shutil.copytree(outputs / name, tmp_path / "run")
    for file in ("results.json", "manifest.json", "traces.jsonl"):
        if not (run / file).exists():
            continue
        whole = (run / file).read_text().split("\n", 1)[0] if file.endswith("l") else (run / file).read_text()
        for _ in range(60):
            (run / file).write_text(json.dumps(mutated(json.loads(whole), rng)))
            render(tmp_path, collect(tmp_path))
        for cut in (0, 1, len(whole) // 2):
            (run / file).write_bytes(whole.encode()[:cut] + b"\xff")
            assert collect(tmp_path)[0].state == "damaged"
            render(tmp_path, collect(tmp_path))
        (run / file).write_text(whole)


def test_a_changed_sample_is_damage(outputs, tmp_path):
    run = shutil.copytree(outputs / "2026-11-20/first", tmp_path / "run")
    assert collect(tmp_path)[0].state == "finished"
    file = run / "samples.jsonl"
    file.write_text(file.read_text().replace('"score": 1.0', '"score": 0.0', 1))
    found = collect(tmp_path)[0]
    assert (found.state, len(found.samples)) == ("damaged", 11)
    assert found.problem == "1 of 12 lines of samples.jsonl are damaged"


def test_rates_are_compared_on_the_same_machine_alone(outputs):
    [run] = [each for each in collect(outputs) if each.name == "speed"]
    found = speeds([run])
    assert [(each.decoder, each.batch) for each in found] == [("baseline", 1), ("LocalLeap", 1)]
    machine = run.manifest["machine"]
    assert all(f"machine={machine['id']}" in each.setting for each in found)
    assert all(f"threads={machine['threads']}" in each.setting for each in found)
    del machine["id"]
    assert speeds([run]) == [], "a run that does not say where it was made"


def test_a_run_that_was_killed_names_its_decoder(outputs, tmp_path):
    killed = shutil.copytree(outputs / "2026-11-20/first", tmp_path / "killed")
    (killed / "results.json").unlink()
    [row] = rows_of(read_run(killed, tmp_path))
    assert (row.decoder, row.series) == ("localleap", "candidate")

"""Films and stills of traces."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.saber import Saber
from dlmlab.generation import generate
from dlmlab.model.loader import load
from dlmlab.picture.animation import COLUMNS, FRAMES, after, film, spots, still
from dlmlab.record.journal import Journal
from dlmlab.record.traces import Trace, read, trace_of
from tests.fakes import FakeModel
from tests.model.families import CONFIGS


def traced(gen_length: int = 12) -> Trace:
    model = FakeModel()
    [output] = generate(model, [[1, 2]], Saber(2, 2), gen_length=gen_length, block_length=6, steps=6, trace=True)
    return trace_of(model, output, "saber", "1 2")


def test_a_canvas_fills_as_its_trace_says() -> None:
    trace = traced()
    assert {(position.text, position.number) for position in after(trace, 0)} == {(None, 0)}
    assert [position.text for position in after(trace, len(trace.steps))] == trace.tokens
    revoking = next(number for number, step in enumerate(trace.steps) if step["revoke"])
    before, then = after(trace, revoking), after(trace, revoking + 1)
    step = trace.steps[revoking]
    for each in step["revoke"]:
        position = step["begin"] + each
        assert before[position].number > 0
        assert then[position].text is None
    fresh = [position for position, each in enumerate(then) if each.fresh]
    assert fresh == [step["begin"] + each for each in step["commit"]]


def test_where_blocks_are_counted_from_the_prompts_first_position_the_first_one_is_shorter(tmp_path: Path) -> None:
    model = load("none", device="cpu", load_format="dummy", config=CONFIGS["sdar"])
    settings = {"gen_length": 8, "block_length": 4, "steps": 4, "trace": True}
    [output] = generate(model, [[1, 2, 3, 4, 5]], Baseline(), **settings)
    trace = trace_of(model, output, "baseline", "1 2 3 4 5")
    assert [trace.block_of(position) for position in range(trace.gen_length)] == [0, 0, 0, 1, 1, 1, 1, 2]
    for step in trace.steps:
        assert {trace.block_of(step["begin"] + place) for place in range(len(step["tokens"]))} == {step["block"]}
    assert [position.text for position in after(trace, len(trace.steps))] == trace.tokens
    assert film([trace], tmp_path / "film.gif").exists()


def test_a_trace_of_an_earlier_version_says_where_its_blocks_begin(tmp_path: Path) -> None:
    trace = traced()
    entry = asdict(trace)
    for step in entry["steps"]:
        del step["begin"]
    Journal(tmp_path / "traces.jsonl").append(entry)
    assert list(read(tmp_path / "traces.jsonl").values()) == [trace]


def test_tokens_stand_as_in_the_text_and_within_the_line() -> None:
    trace = replace(traced(), tokens=["a", ":\n  ", "b", "x" * 100, *["word"] * 8], end_tokens=[])
    found = list(spots(trace))
    assert found[0][:2] == (0, 0)
    assert found[2][:2] == (1, 2), "the indent of the next line"
    assert all(column + width <= COLUMNS for _, column, width in found)
    assert len({(row, column) for row, column, _ in found}) == len(found)


def test_a_film_has_a_frame_for_every_pass_and_goes_on(tmp_path: Path) -> None:
    one = traced()
    other = replace(one, decoder="<&\u202e", steps=one.steps[:3])
    path = film([one, other], tmp_path / "film.gif")
    with Image.open(path) as moving:
        assert moving.n_frames == len(one.steps) + 1
        assert moving.info["loop"] == 0
        first = np.asarray(moving.convert("RGB"))
        moving.seek(moving.n_frames - 1)
        assert (np.asarray(moving.convert("RGB")) != first).any()


def test_a_long_film_leaves_passes_out(tmp_path: Path) -> None:
    one = traced()
    with Image.open(film([replace(one, steps=one.steps * 60)], tmp_path / "film.gif")) as moving:
        assert moving.n_frames <= FRAMES + 1


def test_a_still_is_the_last_frame_in_a_papers_resolution(tmp_path: Path) -> None:
    one = traced()
    with (
        Image.open(still([one], tmp_path / "still.png")) as large,
        Image.open(film([one], tmp_path / "f.gif")) as small,
    ):
        assert large.size == (3 * small.width, 3 * small.height)
        assert round(large.info["dpi"][0]) == 300

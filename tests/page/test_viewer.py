"""The viewer in a browser: opened from disk, what it shows after each pass is what the trace says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import dlmlab
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.decoder.saber import Saber
from dlmlab.page.viewer import Viewer, viewer_page
from dlmlab.picture.animation import after
from dlmlab.record.traces import Trace, trace_of

RULES = {"baseline": Baseline(), "localleap": LocalLeap(0.9, 0.75, 4), "saber": Saber(2, 8)}
PROMPT = "Share 21 nuts fairly among Ann, Ida and Bob."
HOSTILE = (
    '</script><script>document.title = "owned"</script><img src=x onerror="document.title = 1">\x1b[31m\u202e\ud800'
)
STATE = """() => [...document.querySelectorAll(".dv-pane")].map((pane) =>
    [...pane.querySelectorAll(".dv-cell")].map((cell) =>
        [cell.lastChild.textContent, ...["dv-committed", "dv-fresh"].map((name) => cell.classList.contains(name))]))"""


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    """One prompt by three decoders, in two blocks."""
    model = dlmlab.load("tiny/v1", device="cpu")
    settings = {"gen_length": 32, "block_length": 16, "steps": 8}
    return [
        trace_of(model, dlmlab.generate(model, [PROMPT], rule, **settings, trace=True)[0], name, PROMPT)
        for name, rule in RULES.items()
    ]


@pytest.fixture
def view(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """Opens a page; afterwards it must have asked for nothing else and have said nothing on the console."""
    context = browser.new_context(reduced_motion="reduce")
    page, heard = context.new_page(), list[str]()
    page.on("request", lambda request: heard.append(request.url))
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    file = tmp_path / "viewer.html"

    def open_page(html: str) -> Page:
        file.write_text(html, encoding="utf-8")
        page.clock.install()
        page.goto(file.as_uri())
        page.locator(".dv-player").focus()
        return page

    yield open_page
    context.close()
    assert heard == [file.as_uri()]


def expected(trace: Trace, passes: int) -> list[list[Any]]:
    own = min(passes, len(trace.steps))
    ends = set(trace.end_tokens)
    return [
        [
            "·" if place.text is None else "∎" if place.text in ends else place.text.replace("\n", "⏎"),
            place.number > 0,
            place.fresh and own == passes,
        ]
        for place in after(trace, own)
    ]


def test_decoders_play_side_by_side_as_their_traces_say(view: Any, traces: list[Trace]) -> None:
    page = view(viewer_page(traces))
    most = max(len(trace.steps) for trace in traces)
    player = page.locator(".dv-player")
    assert player.get_attribute("data-pass") == str(most)
    page.keyboard.press("Home")
    for passes in range(most + 1):
        assert player.get_attribute("data-pass") == str(passes)
        assert page.evaluate(STATE) == [expected(trace, passes) for trace in traces]
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert player.get_attribute("data-pass") == str(most - 1)
    assert page.locator(".dv-pane").nth(1).locator(".dv-block").all_text_contents() == ["2"]


def test_space_plays_to_the_end_and_stops_it(view: Any, traces: list[Trace]) -> None:
    page = view(viewer_page(traces))
    player, most = page.locator(".dv-player"), max(len(trace.steps) for trace in traces)
    page.keyboard.press("Space")  # at the end, so it begins anew
    page.clock.run_for(600)
    page.clock.run_for(600)
    assert player.get_attribute("data-pass") == "2"
    page.keyboard.press("Space")
    page.clock.run_for(6000)
    assert player.get_attribute("data-pass") == "2"
    page.get_by_label("play", exact=True).click()
    for _ in range(most):
        page.clock.run_for(600)
    assert player.get_attribute("data-pass") == str(most)
    assert page.get_by_label("play", exact=True).is_visible()


def test_a_place_tells_what_was_proposed_there_and_why(view: Any, traces: list[Trace]) -> None:
    page = view(viewer_page(traces[1:2]))
    first = traces[1].steps[0]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    place = first["marks"]["anchor"][0]
    assert page.locator(".dv-cell.dv-anchor").count() == len(first["marks"]["anchor"])
    assert page.locator(".dv-cell.dv-neighbour").count() == len(first["marks"]["neighbour"])
    for _ in range(place + 1):
        page.keyboard.press("ArrowDown")
    assert f"place {place + 1}, block 1" in page.locator(".dv-readout").inner_text()
    past = page.locator(".dv-past")
    assert past.count() == 1 + next(number for number, step in enumerate(traces[1].steps) if place in step["commit"])
    assert past.first.locator(".dv-number").inner_text() == f"{first['confidence'][place]:.2f}"
    assert "anchor" in str(past.first.get_attribute("title"))


def test_hostile_text_is_text(view: Any, traces: list[Trace]) -> None:
    steps = [{**step, "tokens": [HOSTILE if token else token for token in step["tokens"]]} for step in traces[1].steps]
    bad = replace(
        traces[1], prompt=HOSTILE + "x" * 100_000, decoder=HOSTILE, task=HOSTILE, id=HOSTILE, steps=steps,
        tokens=[HOSTILE] * len(traces[1].tokens),
    )  # fmt: skip
    page = view(viewer_page([bad, traces[0], replace(traces[0], id="broken", steps=[])]))
    assert page.title() == "dlmlab: how a canvas fills"
    assert page.locator("img").count() == 0
    shown = page.locator(".dv-name").inner_text()
    assert "<img src=x" in shown
    assert "\\u{202e}" in shown
    assert "\\u{1b}" in shown
    assert "1 traces can't be read" in page.locator(".dv").inner_text()
    page.locator(".dv-choice").select_option(index=1)
    assert page.locator(".dv-name").inner_text() == "baseline"


def test_it_fits_a_phone_and_moves_only_where_movement_is_welcome(view: Any, traces: list[Trace]) -> None:
    page = view(viewer_page(traces))
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    transition = "getComputedStyle(document.querySelector('.dv-cell')).transitionDuration"
    assert page.evaluate(transition) == "0s"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(transition) != "0s"


def test_a_notebook_shows_the_same_page(view: Any, traces: list[Trace]) -> None:
    frame = Viewer(traces)._repr_html_()
    assert frame.count("<iframe") == 1
    assert "<script" not in frame
    assert "&lt;main id=&quot;viewer&quot;&gt;" in frame
    view(viewer_page(traces))

"""The page in a browser, opened from disk: it filters, sorts, compares and plots, and nothing in a run acts on it."""

from __future__ import annotations

import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from dlmlab.measure.stats import compare_right
from dlmlab.page.render import PAGE, write
from tests.page.conftest import LONG


def rows(page):
    return page.locator(".results tbody tr")


def scores_of(folder):
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return {sample["id"]: sample["score"] == 1 for sample in samples}


@pytest.fixture
def page(outputs, open_page):
    return open_page(outputs / PAGE)


def pick(page, *runs):
    for run in runs:
        page.get_by_label("Search", exact=True).fill(f"{run} evaluate")
        rows(page).first.get_by_role("checkbox").check()


def test_it_lists_every_run_with_what_is_wrong(page):
    expect(page.get_by_role("status").first).to_contain_text("of 10 runs")
    said = {"cut": "damaged", "torn": "damaged", "old": "older", "killed": "unfinished", "failed": "unfinished"}
    page.locator(".problems summary").click()
    for name, state in said.items():
        line = page.locator(".problems li", has=page.get_by_role("link", name=name, exact=True))
        expect(line).to_contain_text(state)
    expect(page.locator(".problems li")).to_have_count(len(said))
    expect(page.get_by_text("kappa=7 is out of range")).to_be_visible()


def test_it_filters_and_sorts(page):
    page.get_by_label("decoder", exact=True).select_option("threshold")
    expect(rows(page)).to_have_count(1)
    page.get_by_label("decoder", exact=True).select_option("")
    page.get_by_label("experiment", exact=True).select_option("calibration")
    expect(rows(page)).to_have_count(9)
    heading = page.get_by_role("columnheader", name="forwards", exact=True)
    shown = {}
    for order in ("ascending", "descending"):
        heading.get_by_role("button").press("Enter")
        expect(heading).to_have_attribute("aria-sort", order)
        shown[order] = [float(text) for text in page.locator("td[data-label=forwards]").all_inner_texts()]
    assert shown["ascending"] == sorted(shown["ascending"])
    assert shown["descending"] == shown["ascending"][::-1]
    page.get_by_label("Search", exact=True).fill("no such thing")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    expect(page.locator(".plot").first).to_be_hidden()
    expect(page.locator(".panel .note").first).to_have_text("Nothing to plot.")


def test_two_runs_are_compared_as_in_python(page, outputs):
    pick(page, "2026-11-20/first", "2026-11-21/second")
    page.get_by_role("link", name="Compare", exact=True).click()
    first, second = (scores_of(outputs / name) for name in ("2026-11-20/first", "2026-11-21/second"))
    comparison = compare_right([first[key] for key in second], list(second.values()), margin=0.02)
    told = rows_of_comparison(page)[1]
    assert told["difference"] == f"{100 * comparison.difference:+.1f}".replace("-", "−")
    ends = f"{100 * comparison.ci_low:+.1f} … {100 * comparison.ci_high:+.1f}"
    assert told["95 % interval"] == ends.replace("-", "−")
    assert comparison.verdict in told["verdict"]
    assert float(told["p"]) == pytest.approx(comparison.mcnemar_p, rel=0.05)
    expect(page.get_by_role("row", name="config.decoder.threshold – 0.02")).to_be_visible()
    disagree = [key for key in second if first[key] != second[key]]
    assert disagree
    details = page.locator(".items details")
    expect(details).to_have_count(len(disagree))
    details.first.locator("summary").click()
    expect(details.first.locator(".canvas")).to_have_count(2)
    expect(details.first.locator("pre.answer mark").first).to_be_visible()


def rows_of_comparison(page):
    expect(page.get_by_role("heading", name="Comparison")).to_be_visible()
    table = page.locator("main section").first.get_by_role("table")
    names = table.locator("thead th").all_inner_texts()
    return [
        dict(zip(names, row.locator("td").all_inner_texts(), strict=True)) for row in table.locator("tbody tr").all()
    ]


def test_two_traces_play_side_by_side(page, outputs):
    pick(page, "2026-11-20/first", "2026-11-21/second")
    page.get_by_role("link", name="Compare", exact=True).click()
    page.get_by_label("show", exact=True).select_option("all")
    page.locator(".items summary").first.click()
    expect(page.locator(".dv-pane")).to_have_count(2)
    where = page.locator(".dv-where")
    begun = where.inner_text()
    page.get_by_role("button", name="Play").click()
    expect(where).not_to_have_text(begun)


def test_a_margin_decides(page):
    pick(page, "2026-11-20/first", "2026-11-21/second")
    page.get_by_role("link", name="Compare", exact=True).click()
    page.get_by_label("margin, points").fill("100")
    expect(page.get_by_role("table").first).to_contain_text("pass")


def test_a_calibration_is_plotted(outputs, open_page):
    page = open_page(outputs / "grid" / PAGE)
    expect(page.get_by_role("heading", name="Score by κ, τ and W")).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    quality, heat = (plot.evaluate("plot => plot.data") for plot in page.locator(".js-plotly-plot").all())
    points = {
        tuple(point)
        for trace in quality
        if trace["mode"] == "markers"
        for point in zip(trace["x"], trace["y"], strict=True)
    }
    saved = json.loads((outputs / "grid" / "results.json").read_text())["points"]
    assert points == {(point["forwards"], 100 * point["score"]) for point in saved}
    score = {tuple(point[key] for key in ("radius", "kappa", "tau")): 100 * point["score"] for point in saved[1:]}
    assert [trace["z"] for trace in heat] == [
        [[score[radius, kappa, tau] for tau in (0.012, 0.02)] for kappa in (0.02, 0.09)] for radius in (1, 2)
    ]


def test_hostile_text_is_text(outputs, open_page):
    page = open_page(outputs / "hostile" / PAGE)
    page.locator(".items summary").nth(2).click()
    expect(page.locator("pre.answer").first).to_contain_text("</script><script>window.hit = 1</script><img src=x")
    shown = page.inner_text("main")
    assert "\\x1b[31mred" in shown
    assert "\\u202edesrever" in shown
    assert not set("\x1b\u202e\u2028\x00") & set(shown)
    page.locator(".items summary").nth(0).click()
    expect(page.get_by_text("80000 more characters in samples.jsonl")).to_be_visible()
    page.locator(".items summary").nth(1).click()
    expect(page.locator("pre.answer").nth(1)).to_contain_text("<b>��</b>")
    assert page.evaluate("window.hit") is None
    assert page.locator("main img, main script").count() == 0


def test_hostile_text_is_text_among_other_runs(page):
    page.get_by_label("Search", exact=True).fill("desrever")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("<img src=x")
    assert page.evaluate("window.hit") is None


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1300, "light")])
def test_nothing_is_wider_than_the_window_in_either_scheme(outputs, open_page, width, scheme):
    page = open_page(outputs / PAGE, viewport={"width": width, "height": 800}, color_scheme=scheme)
    pick(page, "2026-11-20/first", "2026-11-21/second")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("link", name="Compare", exact=True).click()
    expect(page.get_by_role("heading", name="Comparison")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    run = open_page(outputs / "grid" / PAGE, viewport={"width": width, "height": 800}, color_scheme=scheme)
    expect(run.locator(".js-plotly-plot")).to_have_count(2)
    assert run.evaluate("document.documentElement.scrollWidth") <= width
    for plot in run.locator(".js-plotly-plot").all():
        drawn = plot.locator(".main-svg").first.bounding_box()
        assert drawn["width"] == pytest.approx(plot.bounding_box()["width"], abs=1)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
    assert dark == (scheme == "dark")


def test_the_keyboard_is_enough(page):
    page.get_by_label("Search", exact=True).fill("evaluate 2026-11-2")
    page.locator("td.pick input").nth(0).focus()
    for _ in range(2):
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
    page.get_by_role("link", name="Compare", exact=True).press("Enter")
    expect(page.get_by_role("heading", name="Comparison")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Results")).to_be_visible()


def test_a_folder_without_runs_says_so(tmp_path, open_page):
    expect(open_page(write(tmp_path)).get_by_text("No runs yet")).to_be_visible()


def test_a_page_that_has_no_room_for_all_samples_says_so(outputs, open_page, monkeypatch, tmp_path):
    monkeypatch.setattr("dlmlab.page.shelf.ROOM", 20_000)
    page = open_page(write(outputs / "grid"))
    expect(page.get_by_text("samples stand on this page whole")).to_be_visible()
    assert LONG not in page.content()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("view", ["all", "run", "compare"])
def test_axe_finds_nothing(outputs, open_page, scheme, view):
    page = open_page(outputs / PAGE, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    if view == "run":
        page.get_by_label("Search", exact=True).fill("2026-11-20/first")
        page.locator(".results tbody a").first.click()
        page.locator(".items summary").first.click()
        page.locator(".canvas").first.wait_for()
    if view == "compare":
        pick(page, "2026-11-20/first", "2026-11-21/second")
        page.get_by_role("link", name="Compare", exact=True).click()
        expect(page.get_by_role("heading", name="Comparison")).to_be_visible()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_title_says_what_is_shown(page):
    assert page.title().startswith("All runs · ")
    page.get_by_label("Search", exact=True).fill("2026-11-20/first")
    page.locator(".results tbody a").first.click()
    page.get_by_role("heading", name="Samples").wait_for()
    assert not page.title().startswith("All runs")


def test_the_verdict_is_on_screen_at_1280(outputs, open_page):
    page = open_page(outputs / PAGE, viewport={"width": 1280, "height": 900})
    box = page.get_by_role("columnheader", name="verdict").bounding_box()
    assert box["x"] + box["width"] <= 1280


def test_a_plot_holds_what_can_be_compared_and_names_what_it_left_out(page):
    said = page.locator(".panel .note").first
    expect(said).to_contain_text("on other items or models")
    expect(said).to_contain_text("of a run that is")
    names = page.locator(".js-plotly-plot").first.evaluate("plot => plot.data.map(each => each.name)")
    assert "candidate" not in names


def test_a_sample_shows_what_a_right_answer_has_and_is_found_by_its_text(outputs, open_page):
    page = open_page(outputs / "2026-11-20/first" / PAGE)
    samples = [json.loads(line) for line in (outputs / "2026-11-20/first/samples.jsonl").read_text().splitlines()]
    wanted = samples[3]
    page.get_by_label("search samples").fill(wanted["id"])
    expect(page.locator(".items summary").first).to_contain_text(wanted["id"])
    page.locator(".items summary").first.click()
    if wanted["target"]:
        expect(page.locator("pre.target").first).to_have_text(wanted["target"])


def test_end_tokens_are_one_chip(outputs, open_page):
    page = open_page(outputs / "2026-11-20/first" / PAGE)
    page.locator(".items summary").first.click()
    chips = page.locator(".canvas").first.locator(".token")
    sample = json.loads((outputs / "2026-11-20/first/samples.jsonl").read_text().splitlines()[0])
    same = len(sample["pieces"]) - max(
        (i + 1 for i, p in enumerate(sample["pieces"]) if p != sample["pieces"][-1]), default=0
    )
    expect(chips).to_have_count(len(sample["pieces"]) - (same - 1 if same > 2 else 0))

"""Pictures of the page, from runs on disk: README's, and every state of it, to be looked at.

python run.py experiment=compare 'tasks=[tiny_open]' trace=true    # and whatever else shall be seen
python -m benchmarks.screenshots outputs/                          # docs/images/dashboard.png and comparison.png
python -m benchmarks.screenshots outputs/ states/                  # each state, narrow and wide, light and dark
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.common import exit_status
from dlmlab.page.render import write

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
COMPARED = ("baseline", "localleap_paper", "eb")


def main(folders: Sequence[str]) -> bool:
    """Open the page over a folder, look at it and at a comparison; into a second folder, at all that it can show."""
    page = write(Path(folders[0] if folders else "outputs")).resolve()
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        if len(folders) > 1:
            states(browser, page.as_uri(), Path(folders[1]))
        else:
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.as_uri())
            all_runs(tab)
            tab.screenshot(path=IMAGES / "dashboard.png")
            compare(tab)
            tab.set_viewport_size({"width": 1280, "height": 1240})
            tab.screenshot(path=IMAGES / "comparison.png")
        browser.close()
    return True


def states(browser: Browser, page: str, folder: Path) -> None:
    """Write a picture of each state of the page, narrow and wide, light and dark.

    Args:
        browser: The browser.
        page: The page's address.
        folder: Where the pictures go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for scheme, width, (name, show) in product(SCHEMES, (390, 1280), STATES.items()):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.goto(page)
        show(tab)
        tab.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
        tab.close()


def all_runs(tab: Page) -> None:
    """Plot the runs of one task."""
    tab.get_by_label("task", exact=True).first.select_option("tiny_open")
    tab.locator(".js-plotly-plot .xtick").first.wait_for()


def problems(tab: Page) -> None:
    """Open the list of runs that are not whole."""
    tab.locator(".problems summary").click()


def nothing(tab: Page) -> None:
    """Look for what no run has."""
    tab.get_by_label("Search", exact=True).fill("no such thing")


def one_run(tab: Page) -> None:
    """Open a traced run, and its first sample."""
    tab.get_by_label("experiment", exact=True).select_option("evaluate")
    tab.locator(".results tbody a").first.click()
    tab.locator(".items summary").first.click()
    tab.locator(".canvas").first.wait_for()


def gates(tab: Page) -> None:
    """Open a quality gate's run."""
    tab.get_by_label("experiment", exact=True).select_option("quality_gate")
    tab.locator(".results tbody a").first.click()
    tab.get_by_role("heading", name="Samples").wait_for()


def compare(tab: Page) -> None:
    """Select some decoders of a comparison, and open the first sample on which two disagree."""
    tab.get_by_label("experiment", exact=True).select_option("compare")
    for decoder in COMPARED:
        tab.get_by_label("decoder", exact=True).select_option(decoder)
        tab.locator("td.pick input").first.check()
    tab.get_by_role("link", name="Compare", exact=True).click()
    tab.get_by_role("heading", name="Samples").wait_for()
    tab.locator(".items summary").first.click()
    tab.locator(".canvas").first.wait_for()


STATES: Mapping[str, Callable[[Page], None]] = {
    "all": all_runs,
    "problems": problems,
    "nothing": nothing,
    "run": one_run,
    "gates": gates,
    "compare": compare,
}


if __name__ == "__main__":
    sys.exit(exit_status(main))

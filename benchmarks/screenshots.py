"""The README's pictures of the page, from runs on disk.

python run.py experiment=compare 'tasks=[tiny_open]' trace=true    # and whatever else shall be seen
python -m benchmarks.screenshots outputs/                          # docs/images/dashboard.png and comparison.png
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.common import exit_status
from dlmlab.page.render import write

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
COMPARED = ("baseline", "localleap_paper", "eb")


def main(folders: Sequence[str]) -> bool:
    """Open the page over a folder, look at it and at a comparison."""
    page = write(Path(folders[0] if folders else "outputs")).resolve()
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(page.as_uri())
        tab.get_by_label("task", exact=True).first.select_option("tiny_open")
        tab.locator(".js-plotly-plot .xtick").first.wait_for()
        tab.screenshot(path=IMAGES / "dashboard.png")
        compare(tab)
        tab.screenshot(path=IMAGES / "comparison.png")
        browser.close()
    return True


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
    tab.set_viewport_size({"width": 1280, "height": 1240})


if __name__ == "__main__":
    sys.exit(exit_status(main))

"""Does the page over 500 runs and 50,000 samples stay small, and open at once?

    python -m benchmarks.page                         copies of two real runs of 100 items each

The page is opened from disk in Chromium. It is ready when its table can be filtered; its plots follow.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.common import exit_status, mark, show
from dlmlab.page.render import write
from dlmlab.tracking import Table

ROOT = Path(__file__).resolve().parents[1]
RUNS, ITEMS, OPENED = 500, 100, 5
MAX_BYTES, MAX_SECONDS = 30e6, 3.0
DECODERS = ("localleap", "threshold")


def main(overrides: Sequence[str]) -> bool:
    """Make, build, open, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = multiply([make(folder / decoder, decoder, overrides) for decoder in DECODERS], folder / "outputs")
        begun = time.perf_counter()
        page = write(folder / "outputs")
        built, size = time.perf_counter() - begun, page.stat().st_size
        ready, plotted = open_page(page)
    small, quick = size < MAX_BYTES, ready < MAX_SECONDS
    rows = [
        ["runs", str(RUNS), ""],
        ["samples", str(samples), ""],
        ["building the page", f"{built:.1f} s", ""],
        ["size", f"{size / 1e6:.1f} MB", f"< {MAX_BYTES / 1e6:g} MB {mark(small)}"],
        ["opened, table ready", f"{ready:.2f} s", f"< {MAX_SECONDS:g} s {mark(quick)}"],
        ["opened, plots drawn", f"{plotted:.2f} s", ""],
    ]
    show(Table("The page over many runs", ["", "found", "goal"], rows, note=f"Times to open: medians of {OPENED}."))
    return small and quick


def make(folder: Path, decoder: str, overrides: Sequence[str]) -> Path:
    """A real run."""
    task = ["experiment=evaluate", f"decoder={decoder}", "task=tiny_open", f"task.limit={ITEMS}", "memo=off"]
    command = [sys.executable, str(ROOT / "run.py"), *task, "tracking=terminal", f"hydra.run.dir={folder}", *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def multiply(made: Sequence[Path], outputs: Path) -> int:
    """Copy the runs, each copy a day after the one before it and with texts of its own; how many samples there are."""
    samples = 0
    for number in range(RUNS):
        run = Path(shutil.copytree(made[number % len(made)], outputs / f"{number:03d}"))
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["started"] = f"20{10 + number // 336}-{1 + number // 28 % 12:02d}-{1 + number % 28:02d}T12:00:00+00:00"
        (run / "manifest.json").write_text(json.dumps(manifest))
        lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().split("\n") if line]
        for sample in lines:
            del sample["crc32"]
            sample["text"] += f" {number}"
        (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in lines))
        samples += len(lines)
    return samples


def open_page(page: Path) -> tuple[float, float]:
    """Seconds until the table can be filtered, and until the plot is drawn: medians."""
    ready, plotted = [], []
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for _ in range(OPENED):
            tab = browser.new_page()
            begun = time.perf_counter()
            tab.goto(page.as_uri())
            tab.get_by_label("Search").fill("threshold")
            tab.get_by_text(f"of {RUNS} runs").wait_for()
            ready.append(time.perf_counter() - begun)
            tab.locator(".js-plotly-plot .xtick").first.wait_for()
            plotted.append(time.perf_counter() - begun)
            tab.close()
        browser.close()
    return statistics.median(ready), statistics.median(plotted)


if __name__ == "__main__":
    sys.exit(exit_status(main))

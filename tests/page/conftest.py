"""A folder of outputs as months leave it behind, and a browser that tells of every request and error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from dlmlab.page.render import write
from tests.experiments.fakes import Bench

SMALL = ["decoder.tau=0.012", "decoder.radius=1"]
HOSTILE = (
    "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 1'><b>bold</b> &amp; <!-- -->"
    " \x1b[31mred\x1b[0m \u202edesrever\u202c \x00 \u2028 \ud83d <a href='javascript:window.hit=1'>x</a>"
)
LONG = "long " * 20_000


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real runs, and after them what goes wrong with runs; with its page."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    folder = bench.folder / "outputs"
    log = ["tracking=markdown", f"tracking.markdown.log_file={folder}/perf_log.md"]

    def make(name: str, *arguments: str) -> Path:
        assert bench(*arguments, *log, f"hydra.run.dir={folder}/{name}") in (0, 3)  # a busy machine may miss a gate
        return folder / name

    first = make("2026-11-20/first", "experiment=evaluate", *SMALL, "decoder.kappa=0.02", "trace=true")
    make("2026-11-21/second", "experiment=evaluate", "decoder=threshold", "decoder.threshold=0.02", "trace=true")
    make("grid", "experiment=calibration", "decoder=localleap", "grid.kappa=[0.02,0.09]", "grid.tau=[0.012,0.02]",
         "grid.radius=[1,2]", "calibration.timed_items=0")  # fmt: skip
    canvas = ["generation.gen_length=16", "generation.block_length=8", "generation.steps=8"]
    make("speed", *SMALL, *canvas, "decoder.kappa=0.02", "prompts=4", "repeats=1", "batch_sizes=[1]")
    make_hostile(shutil.copytree(first, folder / "hostile"))
    write(folder / "hostile")
    make_damaged(first, folder)
    write(folder)
    return folder


def make_hostile(run: Path) -> None:
    """Text in a run that would act, if anything let it."""
    results = json.loads((run / "results.json").read_text())
    results["title"] = results["question"] = HOSTILE
    results["labels"] = dict.fromkeys(results["labels"], HOSTILE)
    results["settings"] = {HOSTILE: HOSTILE}
    results["tables"].append({"title": HOSTILE, "columns": [HOSTILE, "n"], "rows": [[HOSTILE, 1]], "note": HOSTILE})
    (run / "results.json").write_text(json.dumps(results))
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for sample in samples:
        del sample["crc32"]
        sample |= {"id": f"{sample['id']} {HOSTILE}", "prompt": HOSTILE, "text": HOSTILE, "reason": HOSTILE}
        sample["pieces"] = [HOSTILE] * len(sample["tokens"])
    samples[0]["text"] = LONG
    lines = [json.dumps(sample).encode() for sample in samples]
    lines[1] = lines[1].replace(b"bold", b"\xff\xfe")
    (run / "samples.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (run / "traces.jsonl").unlink()


def make_damaged(run: Path, folder: Path) -> None:
    """Runs that ended badly, or were written by another version."""
    cut = shutil.copytree(run, folder / "cut")
    (cut / "results.json").write_text((cut / "results.json").read_text()[:200])
    torn = shutil.copytree(run, folder / "torn")
    with (torn / "samples.jsonl").open("ab") as file:
        file.write(b'{"task": "words", "dec')
    old = shutil.copytree(run, folder / "old")
    results = json.loads((old / "results.json").read_text())
    (old / "results.json").write_text(json.dumps({key: results[key] for key in results if key != "labels"}))
    killed = shutil.copytree(run, folder / "killed")
    for name in ("results.json", "manifest.json"):
        (killed / name).unlink()
    failed = folder / "failed"
    (failed / ".hydra").mkdir(parents=True)
    (failed / "error.txt").write_text("kappa=7 is out of range\n")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if path is None:
            pytest.skip("needs Chromium: apt install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a file. Afterwards it must have asked for nothing else, and nothing may have gone wrong."""
    problems: list[str] = []
    contexts = []

    def opened(file: Path, **how: Any) -> Page:
        context = browser.new_context(**how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: problems.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on(
            "request", lambda request: request.url.partition("#")[0] == file.as_uri() or problems.append(request.url)
        )
        page.goto(file.as_uri())
        page.wait_for_selector("main[aria-busy=false]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []

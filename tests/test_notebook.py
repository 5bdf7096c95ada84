"""The notebook in docs/: every cell runs."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
LARGEST = 400_000


def test_the_quickstart_runs(monkeypatch):
    """A cell that fails fails the test, which shows its error."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    folder = {"metadata": {"path": str(ROOT / "docs")}}
    done = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
    said = "".join(output.get("text", "") for cell in done.cells for output in cell.get("outputs", ()))
    assert "localleap, 9 forward passes" in said
    assert "inconclusive" in said
    assert "canvas tokens per forward" in said
    shown = [key for cell in done.cells for output in cell.get("outputs", ()) for key in output.get("data", ())]
    assert {"text/html", "image/png"} <= set(shown)


def test_it_stays_light():
    assert (ROOT / "docs" / "quickstart.ipynb").stat().st_size < LARGEST

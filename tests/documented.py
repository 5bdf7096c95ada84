"""docs/wandb.md names the summary keys that experiments write: called where an experiment is tested as a whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs" / "wandb.md"


def check_summary(folder: Path) -> None:
    """Every key of a run's summary is on the page, and every key on the page is in the summary."""
    results = json.loads((folder / "results.json").read_text())
    [row] = re.findall(rf"^\| {results['experiment']} \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    patterns = [re.escape(name).replace("…", ".+") for name in re.findall("`(.*?)`", row)]
    keys = list(results["summary"])
    assert [key for key in keys if not any(re.fullmatch(pattern, key) for pattern in patterns)] == []
    assert [each for each in patterns if not any(re.fullmatch(each, key) for key in keys)] == []

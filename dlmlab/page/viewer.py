"""The viewer by itself: a page, or a notebook's output, in which traces play."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from dlmlab.page.render import script_json
from dlmlab.record.files import plain
from dlmlab.record.traces import Trace

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>dlmlab: how a canvas fills</title>
<style>
html { background: light-dark(#fbfaf7, #14161a); }
body { max-width: 76rem; margin: 0 auto; padding: 1rem; }
%s
</style>
</head>
<body>
<main id="viewer"></main>
<script type="application/json" id="traces">%s</script>
<script>
%s
dlmlabViewer(document.getElementById("viewer"), JSON.parse(document.getElementById("traces").textContent));
</script>
</body>
</html>
"""


def viewer_page(traces: Sequence[Trace]) -> str:
    """Return the HTML of a page that asks the network for nothing and plays traces; those of one item side by side."""
    static = resources.files("dlmlab.page") / "static"
    style, script = ((static / f"viewer.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return PAGE % (style, script_json(plain(traces)), script)


@dataclass(frozen=True)
class Viewer:
    """Shows traces in a notebook.

    Attributes:
        traces: The traces; those of one item stand side by side.
        height: The height in pixels.
    """

    traces: Sequence[Trace] = field(repr=False)
    height: int = 560

    def _repr_html_(self) -> str:
        page = html.escape(viewer_page(self.traces))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: {self.height}px; border: 0"></iframe>'

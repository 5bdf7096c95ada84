"""Draw canvases being filled: a moving picture (GIF), and a still of the full canvases (PNG) for a paper."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.colors import to_hex, to_rgb
from PIL import Image, ImageDraw, ImageFont

from dlmlab.record.files import visible
from dlmlab.record.traces import Trace

COLUMNS = 56
"""Characters a line of a canvas."""
LONGEST_TOKEN = 18
FRAMES = 128
"""Most frames of a GIF; beyond it passes are left out."""
SECONDS = 10.0
"""Seconds that a film of many passes takes."""
STILL_SCALE = 3
GLYPHS = {"anchor": "◆", "neighbour": "◇"}
INK, FAINT, LINE, PAPER, ACCENT = "#1d1f24", "#666b76", "#d9d7d0", "#ffffff", "#b3530a"
LETTER, ROW, PAD = 8.0, 23.0, 14.0
"""At scale 1, in pixels: a character's width, a line's height, the margin."""


@dataclass
class Position:
    """A position of a canvas after a pass."""

    text: str | None = None
    confidence: float = 0.0
    number: int = 0
    fresh: bool = False
    marks: list[str] = field(default_factory=list)


def after(trace: Trace, passes: int) -> list[Position]:
    """Return the canvas after that many passes.

    Args:
        trace: How the canvas was filled.
        passes: The number of passes, counted from the first; what the last of them committed is fresh.
    """
    canvas = [Position() for _ in trace.tokens]
    for number, step in enumerate(trace.steps[:passes], 1):
        begin, count = step["begin"], len(step["tokens"])
        for position, text, confidence in zip(
            canvas[begin : begin + count], step["tokens"], step["confidence"], strict=True
        ):
            position.fresh = False
            if text is not None:
                position.text, position.confidence, position.marks = text, confidence, []
        for mark, positions in step["marks"].items():
            for each in positions:
                canvas[begin + each].marks.append(mark)
        for each in step["commit"]:
            canvas[begin + each].number, canvas[begin + each].fresh = number, number == passes
        for each in step["revoke"]:
            canvas[begin + each] = Position()
    return canvas


def spots(trace: Trace) -> Iterator[tuple[int, int, int]]:
    """Return the line, column and width of each token of the full canvas, so that nothing moves while it fills."""
    room = 2 if any(step["marks"] for step in trace.steps) else 1
    row = column = 0
    for position, token in enumerate(trace.tokens):
        width = min(LONGEST_TOKEN, max(1, len(shown(trace, token)))) + room
        if position and trace.block_of(position) > trace.block_of(position - 1):
            column += 1  # room for the line between blocks
        if column + width > COLUMNS:
            row, column = row + 1, 0
        yield row, column, width
        column += width
        if "\n" in token and token not in trace.end_tokens:
            row, column = row + 1, min(len(token) - token.rindex("\n") - 1, COLUMNS // 2)


def shown(trace: Trace, token: str) -> str:
    """Return a token's text in which every character can be seen.

    Args:
        trace: The trace, which says what texts end an answer: they become one sign.
        token: The token's text.
    """
    return "∎" if token in trace.end_tokens else visible(token.replace("\n", "⏎"))


def still(traces: Sequence[Trace], path: Path) -> Path:
    """Write the full canvases of one item as a PNG, of three pixels where the film has one.

    Args:
        traces: How the canvases were filled, one for each decoder.
        path: The file.

    Returns:
        The file.
    """
    passes = max(len(trace.steps) for trace in traces)
    frame(traces, passes, STILL_SCALE).save(path, dpi=(300, 300))
    return path


def film(traces: Sequence[Trace], path: Path) -> Path:
    """Write how the canvases of one item fill, in step, as a GIF that goes on and on.

    Args:
        traces: How the canvases were filled, one for each decoder.
        path: The file.

    Returns:
        The file.
    """
    passes = max(len(trace.steps) for trace in traces)
    numbers = [*range(0, passes, math.ceil(passes / FRAMES)), passes]
    frames = [frame(traces, number, 1) for number in numbers]
    both = Image.new("RGB", (frames[-1].width, 2 * frames[-1].height))
    both.paste(frames[len(frames) // 2])
    both.paste(frames[-1], (0, frames[-1].height))
    palette = both.quantize(128, dither=Image.Dither.NONE)
    first, *others = (each.quantize(palette=palette, dither=Image.Dither.NONE) for each in frames)
    pace = int(1000 * min(0.6, SECONDS / passes))
    first.save(path, save_all=True, append_images=others, duration=[pace] * len(others) + [2500], loop=0, optimize=True)
    return path


def frame(traces: Sequence[Trace], passes: int, scale: int) -> Image.Image:
    """Draw the canvases after that many passes, two beside each other.

    Args:
        traces: How the canvases of one item were filled; their prompt stands above them.
        passes: The number of passes; a canvas that was full before stays so.
        scale: Pixels of the image for one of the layout.
    """
    most = max(len(trace.steps) for trace in traces)
    beside = min(2, len(traces))
    across = COLUMNS * LETTER + PAD
    question = textwrap.wrap(visible(traces[0].prompt), int(beside * across / LETTER) - 2, max_lines=3)
    heights = [30 + ROW * (1 + max(row for row, _, _ in spots(trace))) for trace in traces]
    bands = [max(heights[begin : begin + beside]) + PAD for begin in range(0, len(traces), beside)]
    top = PAD + 18 * len(question) + 8
    size = (beside * across + PAD, top + sum(bands) + 22)
    image = Image.new("RGB", (int(size[0] * scale), int(size[1] * scale)), PAPER)
    pen = Pen(ImageDraw.Draw(image), scale)
    for number, line in enumerate(question):
        pen.write(PAD, PAD + 18 * number, line, INK, bold=True)
    for number, trace in enumerate(traces):
        draw_canvas(pen, trace, passes, most, PAD + number % beside * across, top + sum(bands[: number // beside]))
    draw_legend(pen, traces, most, size[1] - 22)
    return image


def draw_canvas(pen: Pen, trace: Trace, passes: int, most: int, left: float, top: float) -> None:
    """Draw one canvas with its heading, from a corner.

    Args:
        pen: What draws.
        trace: How the canvas was filled.
        passes: The number of passes after which it is shown.
        most: Passes of the canvas that took most, at which the scale of colours ends.
        left: Left edge, in pixels at scale 1.
        top: Upper edge, in pixels at scale 1.
    """
    done = passes >= len(trace.steps)
    pen.write(left, top, visible(trace.decoder)[: COLUMNS // 2], INK, bold=True)
    note = f"full after {len(trace.steps)} passes" if done else f"pass {passes}"
    pen.write(left + COLUMNS * LETTER - LETTER * len(note), top, note, FAINT)
    pen.line(left, top + 19, left + COLUMNS * LETTER, FAINT)
    for number, (position, (row, column, width)) in enumerate(
        zip(after(trace, min(passes, len(trace.steps))), spots(trace), strict=True)
    ):
        x, y, wide = left + column * LETTER, top + 26 + row * ROW, width * LETTER - 2
        if number and number % trace.block_length == 0:
            pen.box(x - 6, y - 1, 2, ROW - 2, FAINT)
        text = "" if position.text is None else shown(trace, position.text)[: width - 1]
        if position.number:
            share = (position.number - 1) / max(1, most - 1)
            ink = PAPER if share < 0.4 else INK
            pen.box(x, y, wide, ROW - 4, ramp(share), edge=ACCENT if position.fresh and not done else None)
            pen.write(x + 2, y + 1, text, ink)
            pen.write(x + wide - 7, y - 2, "".join(map(glyph, position.marks)), ink, small=True)
        else:
            pen.box(x, y, wide, ROW - 4, PAPER, edge=LINE)
            pen.write(x + 2, y + 1, text, blend(FAINT, PAPER, 0.35 + 0.65 * position.confidence))
            pen.box(x, y + ROW - 6, wide * position.confidence, 2, ACCENT)


def draw_legend(pen: Pen, traces: Sequence[Trace], most: int, top: float) -> None:
    """Draw what the colours and signs mean.

    Args:
        pen: What draws.
        traces: The traces of the picture, whose marks are explained.
        most: Passes of the canvas that took most, at which the scale of colours ends.
        top: Upper edge, in pixels at scale 1.
    """
    marks = sorted({mark for trace in traces for step in trace.steps for mark, where in step["marks"].items() if where})
    pen.write(PAD, top, "pass 1", FAINT)
    for number in range(96):
        pen.box(PAD + 54 + number, top + 4, 1, 9, ramp(number / 95))
    pen.write(PAD + 156, top, f"{most}   " + "   ".join(f"{glyph(mark)} {visible(mark)}" for mark in marks), FAINT)


@dataclass(frozen=True)
class Pen:
    """Draws in pixels of scale 1."""

    draw: ImageDraw.ImageDraw
    scale: int

    def write(self, x: float, y: float, text: str, ink: str, bold: bool = False, small: bool = False) -> None:
        """Write a line of text.

        Args:
            x: Left edge, in pixels.
            y: Upper edge, in pixels.
            text: The text, which isn't broken.
            ink: Its colour, such as `#1d1f24`.
            bold: Whether it is in bold type.
            small: Whether letters are of 8 pixels, and not of 13.
        """
        self.draw.text(
            (x * self.scale, y * self.scale), text, ink, font("-Bold" * bold, (8 if small else 13) * self.scale)
        )

    def box(self, x: float, y: float, wide: float, high: float, fill: str, edge: str | None = None) -> None:
        """Draw a rectangle, with an edge of two pixels (of one in LINE) or without.

        Args:
            x: Left edge, in pixels.
            y: Upper edge, in pixels.
            wide: Width in pixels; nothing is drawn where less than one pixel of the image is left of it.
            high: Height in pixels.
            fill: Colour of the inside.
            edge: Colour of the edge; None for no edge.
        """
        corners = [x * self.scale, y * self.scale, (x + wide) * self.scale - 1, (y + high) * self.scale - 1]
        if corners[2] >= corners[0]:
            self.draw.rectangle(corners, fill, edge, width=(1 if edge == LINE else 2) * self.scale)

    def line(self, x: float, y: float, end: float, ink: str) -> None:
        """Draw a hairline to the right.

        Args:
            x: Where it begins, in pixels.
            y: Its upper edge, in pixels.
            end: The x at which it ends.
            ink: Its colour.
        """
        self.box(x, y, end - x, 1, ink)


@cache
def font(style: str, size: int) -> ImageFont.FreeTypeFont:
    """Return a font of equally wide characters that comes with matplotlib.

    Args:
        style: The end of its file's name: `-Bold`, or nothing for upright type.
        size: Height of the letters, in pixels of the image.
    """
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSansMono{style}.ttf", size)


def ramp(share: float) -> str:
    """Return the colour of a pass, from the first, 0, to the last, 1."""
    return to_hex(matplotlib.colormaps["viridis"](0.02 + 0.93 * share))


def blend(ink: str, paper: str, share: float) -> str:
    """Mix so much of an ink into a paper's colour.

    Args:
        ink: A colour, such as `#666b76`.
        paper: The colour below it.
        share: The ink's part of the mixture, from 0 to 1.
    """
    red, green, blue = (share * a + (1 - share) * b for a, b in zip(to_rgb(ink), to_rgb(paper), strict=True))
    return to_hex((red, green, blue))


def glyph(mark: str) -> str:
    """Return the sign of a mark."""
    return GLYPHS.get(mark, "●")

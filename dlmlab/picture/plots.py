"""Plot the content of a results.json: quality against forward passes, and the grid of settings as heat maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import ScalarFormatter

from dlmlab.record.files import replacing
from dlmlab.record.folder import fits
from dlmlab.types import Output

Point: TypeAlias = Mapping[str, Any]
"""A setting: `name`, `role` (baseline, chosen or empty), `score` with `ci_low` and `ci_high`, `forwards` an item, its
parameters, and its `task` where points are of several; `full_passes`, the full-pass equivalents, where it has them."""

GRID = ("kappa", "tau", "radius")
NUMBER = (int, float)
MARKS: Mapping[str, Mapping[str, Any]] = {
    "": {"color": "tab:blue", "marker": "o"},
    "baseline": {"color": "black", "marker": "s"},
    "chosen": {"color": "tab:red", "marker": "*", "markersize": 12},
}
RIM = 1.0
"""By how much the colours' scale goes beyond the scores, so that equal ones have a colour."""
FEW = 20
"""Points that can all be named without covering each other."""
PASSES, COST = "forward passes an item", "full-pass equivalents an item"
LABELS = {"": "a setting", "baseline": "baseline", "chosen": "the one chosen"}


def draw(folder: Path, points: Sequence[Point]) -> list[Path]:
    """Draw what the points allow, as PNG files in the folder: none for points without a score.

    Args:
        folder: The run's folder.
        points: The settings; those that have kappa, tau and radius are drawn as heat maps too.

    Returns:
        The files.
    """
    points = [point for point in points if is_drawable(point)]
    if not points:
        return []
    pictures = [save(quality_against_forwards(points), folder / "quality_against_forwards.png")]
    if grid := [point for point in points if all(fits(point.get(name), NUMBER) for name in GRID)]:
        pictures.append(save(heat_maps(grid), folder / "heat_map.png"))
    return pictures


def is_drawable(point: Any) -> bool:
    """Return whether a point, maybe one from disk, has a score and its cost."""
    texts, numbers = ("name", "role"), ("score", "ci_low", "ci_high", "forwards")
    return (
        isinstance(point, Mapping)
        and all(fits(point.get(key), str) for key in texts)
        and all(fits(point.get(key), NUMBER) for key in numbers)
        and fits(point.get("full_passes", 1.0), NUMBER)
        and fits(point.get("task", ""), str)
        and point["forwards"] > 0
    )


def quality_against_forwards(points: Sequence[Point]) -> Figure:
    """Plot one point a setting with its 95 % interval, and the Pareto front; a panel a task where there are several."""
    tasks = list(dict.fromkeys(point.get("task", "") for point in points))
    figure = Figure(figsize=(8, 5 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), squeeze=False)
    for [axes], task in zip(grid, tasks, strict=True):
        panel(axes, [point for point in points if point.get("task", "") == task])
        axes.set_title(task, parse_math=False)
    return figure


def panel(axes: Axes, points: Sequence[Point]) -> None:
    """Plot quality against forward passes at one task.

    Args:
        axes: Where it is plotted.
        points: The settings at that task.
    """
    for role, mark in MARKS.items():
        chosen = [point for point in points if point["role"] == role]
        if chosen:
            axes.errorbar(
                [cost(point) for point in chosen],
                [100 * point["score"] for point in chosen],
                [[max(0.0, 100 * (point["score"] - point["ci_low"])) for point in chosen],
                 [max(0.0, 100 * (point["ci_high"] - point["score"])) for point in chosen]],
                linestyle="none", elinewidth=0.7, capsize=2, label=LABELS[role], **mark,
            )  # fmt: skip
    front = pareto(points)
    notable = [*front, *(point for point in points if point["role"] and point not in front)]
    for point in points if len(points) <= FEW else notable:
        place = (cost(point), 100 * point["score"])
        axes.annotate(point["name"], place, (4, 4), textcoords="offset points", fontsize=6, parse_math=False)
    axes.plot(
        [cost(point) for point in front],
        [100 * point["score"] for point in front],
        color="grey", linewidth=1, drawstyle="steps-post", zorder=0, label="Pareto front",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel=COST if is_cached(points) else PASSES, ylabel="score in points of 100, with its 95 % interval")
    axes.legend()


def cost(point: Point) -> float:
    """Return the full-pass equivalents of an item, which are its forward passes where nothing is cached."""
    return float(point.get("full_passes") or point["forwards"])


def is_cached(points: Sequence[Point]) -> bool:
    """Return whether forward passes are not what any of the points costs."""
    return any(cost(point) != point["forwards"] for point in points)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in score at the same cost or less, from the cheapest on."""
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (cost(each), -each["score"])):
        if not front or point["score"] > front[-1]["score"]:
            front.append(point)
    return front


def heat_maps(points: Sequence[Point]) -> Figure:
    """Plot the score by kappa and tau, a map for each radius, all on one scale; the chosen setting is framed."""
    kappas, taus, radii = (sorted({point[name] for point in points}) for name in GRID)
    figure = Figure(figsize=(1.5 + (1 + 0.7 * len(taus)) * len(radii), 1.8 + 0.45 * len(kappas)), layout="constrained")
    row: Sequence[Axes] = figure.subplots(1, len(radii), squeeze=False)[0]
    scale = Normalize(*(pick(100 * each["score"] for each in points) + rim for pick, rim in ((min, -RIM), (max, RIM))))
    for axes, radius in zip(row, radii, strict=True):
        found = {(point["kappa"], point["tau"]): point for point in points if point["radius"] == radius}
        scores = [[100 * found.get((kappa, tau), {}).get("score", math.nan) for tau in taus] for kappa in kappas]
        image = axes.imshow(scores, norm=scale, cmap="viridis", aspect="auto")
        for (kappa, tau), point in found.items():
            weight = "bold" if point["role"] == "chosen" else "normal"
            text = f"{100 * point['score']:.1f}"
            text = f"[{text}]" if point["role"] == "chosen" else text
            color = "white" if scale(100 * point["score"]) < 0.5 else "black"
            place = (taus.index(tau), kappas.index(kappa))
            axes.text(*place, text, ha="center", va="center", fontsize=7, weight=weight, color=color)
        axes.set(title=f"W = {radius}", xlabel="τ", ylabel="κ")
        axes.set_xticks(range(len(taus)), [f"{tau:g}" for tau in taus])
        axes.set_yticks(range(len(kappas)), [f"{kappa:g}" for kappa in kappas])
    figure.colorbar(image, ax=list(row), label="score in points of 100")
    return figure


def step_parts(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot a bar for each batch size: the step by part, the device's waits hatched, and the floor as a line."""
    figure = Figure(figsize=(9, 1.6 + 0.7 * len(steps)), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(part["name"] for step in steps for part in step["parts"]))
    colours = {name: f"C{place}" for place, name in enumerate(names)}
    for place, step in enumerate(steps):
        left = 0.0
        for part in step["parts"]:
            for kind, hatch in (("busy", ""), ("idle", "////")):
                width = 1e3 * part[kind]
                axes.barh(place, width, left=left, color=colours[part["name"]], hatch=hatch, edgecolor="white")
                left += width
        floor = 1e3 * step["floor"]
        axes.plot([floor, floor], [place - 0.45, place + 0.45], color="black", linewidth=2)
        above = f"{step['ratio']:.2f} × floor" if step["ratio"] else ""
        axes.annotate(above, (left, place), (4, -3), textcoords="offset points", fontsize=8)
    axes.set_yticks(range(len(steps)), [f"batch {step['batch']}" for step in steps])
    axes.set_xlim(0, 1.2e3 * max(step["p50"] for step in steps))
    axes.set(xlabel="milliseconds a step; the black line is the floor, hatched is waiting for launches")
    keys = [Patch(color=colours[name], label=name) for name in names]
    figure.legend(handles=keys, loc="outside upper center", ncols=min(5, len(keys)), fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure.

    Args:
        figure: The figure.
        path: The file.

    Raises:
        OSError: The file can't be written.
        ValueError: The figure is too large.
    """
    with replacing(path) as draft:
        figure.savefig(draft, dpi=150, format="png")
    return path


def denoising_order(model: Any, output: Output, columns: int = 16) -> Figure:
    """Draw a filled canvas, each token coloured by the forward pass after which it was committed.

    Args:
        model: The model, whose tokenizer gives the tokens' texts; end tokens are left empty.
        output: The filled canvas.
        columns: Tokens a line.
    """
    lines = math.ceil(len(output.tokens) / columns)
    figure = Figure(figsize=(0.75 * columns, 0.45 * lines + 0.6), layout="constrained")
    axes = figure.subplots()
    steps = np.full(lines * columns, np.nan)
    steps[: len(output.step_of)] = np.array(output.step_of) + 1
    image = axes.imshow(steps.reshape(lines, columns), cmap="viridis", aspect="auto", vmin=1)
    for place, token in enumerate(output.tokens):
        text = "" if token in model.end_token_ids else repr(model.tokenizer.decode([token]))[1:-1]
        late = output.step_of[place] + 1 > output.forwards / 2
        axes.text(place % columns, place // columns, text, ha="center", va="center", fontsize=8,
                  color="black" if late else "white", parse_math=False)  # fmt: skip
    axes.set_axis_off()
    figure.colorbar(image, ax=axes, label="forward pass")
    return figure

"""What a comparison's points say: who wins, the tables, and a protocol's published rows beside ours.

A point is what `experiments.compare` knows of one decoder at one task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dlmlab.measure.published import explain, judge
from dlmlab.measure.timing import Spread
from dlmlab.run import shown
from dlmlab.run.protocol import Protocol
from dlmlab.run.samples import AGAIN, TOKENS
from dlmlab.run.shown import times
from dlmlab.tracking import Cell, Table

SUMMARY = ("score", "forwards", "speedup in forwards", "aup")
BESIDE = ("name", "score", "ci_low", "ci_high", "n", "tokens_per_forward")


def winner(points: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return a task's decoder that computes least of those that keep the baseline's score; None without one.

    Where nobody has anything right, nobody keeps anything.
    """
    kept = [each for each in points if each["role"] == "" and each["against_baseline"]["verdict"] == "pass"]
    if not kept or not solved(points):
        return None
    return min(kept, key=lambda each: float(each.get("full_passes", each["forwards"])))


def solved(points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any decoder has anything right."""
    return any(each["score"] for each in points)


def answer(task: str, points: Sequence[Mapping[str, Any]]) -> str:
    """Say who wins at a task, in a sentence.

    Args:
        task: The task's name.
        points: Its points, the baseline first.
    """
    best = winner(points)
    if not solved(points):
        return f"{task}: no decoder has anything right, so that none can be told from another."
    if best is None:
        return f"{task}: none is shown to keep the baseline's score."
    fewer = f"{best['speedup in forwards']:.2f}× fewer forward passes"
    if best.get("full_passes", best["forwards"]) < best["forwards"]:
        fewer += f", the work of {best['full_passes']:.2f} full ones an item,"
    timed = f" and {times(Spread(**best['speedup']))} the tokens/s" if best["speedup"] else ""
    return f"{task}: {best['name']} is the fastest that keeps the baseline's score, with {fewer}{timed}."


def summary_of(task: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the winner at a task and its figures, under keys that are the same whoever wins.

    Args:
        task: The task's name.
        points: Its points, the baseline first.
    """
    best = winner(points) or {}
    return {f"{task}/winner": best.get("name")} | {f"{task}/{key}": best.get(key) for key in SUMMARY}


def comparison_table(points: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with a row for each decoder; the baseline that they are compared with comes first at each task."""
    columns = [
        "task",
        "decoder",
        "setting",
        "score",
        "95 % interval",
        "difference",
        "verdict",
    ]  # what a screen shows first
    columns += ["forwards", "positions", "full passes", "tokens per forward", "tokens/s"]
    columns += ["speedup in forwards", "speedup", "AUP"]
    rows: list[list[Cell]] = []
    for each in points:
        against, rate, speedup = each["against_baseline"], each["tokens_per_second"], each["speedup"]
        baseline = each["role"] == "baseline"
        rows.append(
            [
                each["task"],
                each["name"],
                each["setting"],
                shown.points(each["score"]),
                shown.interval(each["ci_low"], each["ci_high"]),
                None if baseline else shown.points(against["difference"], "+"),
                None if baseline else against["verdict"],
                f"{each['forwards']:.2f}",
                f"{each['positions']:.0f}",
                f"{each['full_passes']:.2f}",
                f"{each['tokens_per_forward']:.2f}",
                f"{rate['median']:.0f}" if rate else None,
                None if baseline else f"{each['speedup in forwards']:.2f}×",
                None if baseline or not speedup else times(Spread(**speedup)),
                f"{each['aup']:.0f}",
            ]
        )
    items = {each["task"]: f"{each['n']} items of {each['task']}" for each in points}
    note = (
        f"{', '.join(items.values())}. Scores and differences in points of 100, + is a gain; canvas tokens; speedups, "
        "with their range over the rounds, differences and verdicts are against the task's first row. Setting: the "
        "schedule, of rules that have one, and the softmax's precision; the authors', where a decoder's config names "
        "them. Positions: computed for an item; full passes: to how many over a whole row they amount. AUP: accuracy "
        "under parallelism, arXiv:2601.07568, of the curve from the first row to this one."
    )
    known = [place for place in range(len(columns)) if any(row[place] is not None for row in rows)]
    return Table(
        "Decoders", [columns[place] for place in known], [[row[place] for place in known] for row in rows], note
    )


def token_table(points: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the tokens per forward pass, in each way in which the field counts tokens."""
    counted = [name for name in (*TOKENS, AGAIN) if all(name in each["counted"] for each in points)]
    rows: list[list[Cell]] = [
        [each["task"], each["name"], *(f"{each['counted'][name] / each['passes']:.2f}" for name in counted)]
        for each in points
    ]
    note = "What papers call tokens per forward or second differs by what they count; a protocol says what its own do."
    return Table("Tokens per forward pass, by what is counted", ["task", "decoder", *counted], rows, note)


def beside_published(published: Protocol, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a protocol's rows for the tasks and decoders that were run, each with our score and whether they agree.

    Args:
        published: The protocol.
        points: The points of all tasks.
    """
    found = []
    for row in published.rows:
        for own in (each for each in points if (each["task"], decoder_of(each)) == (row.task, row.decoder)):
            score = row.score / 100
            verdict = judge(score, own, published.tolerance)
            if verdict == "differs":
                verdict += explain(score, own["scorings"], published.tolerance)
            found.append({**asdict(row), "ours": {key: own[key] for key in BESIDE}, "verdict": verdict})
    return found


def decoder_of(point: Mapping[str, Any]) -> str:
    """Return the name in conf/decoder/ of a point's decoder, which may have a cache beside it."""
    return "baseline" if point["role"] else str(point["name"]).partition(" + ")[0]


def published_table(published: Protocol, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of published figures beside ours, a row for each.

    Args:
        published: The protocol.
        rows: What `beside_published` returns.
    """
    columns = [
        "task",
        "method",
        "its cache",
        "our decoder",
        "published",
        "ours",
        "95 % interval",
        "items",
        "verdict",
        "setting",
        "source",
    ]
    cells: list[list[Cell]] = [
        [
            *(row[key] for key in ("task", "method", "cache")),
            row["ours"]["name"],
            f"{row['score']:.2f}",
            f"{100 * row['ours']['score']:.2f}",
            shown.interval(row["ours"]["ci_low"], row["ours"]["ci_high"]),
            row["ours"]["n"],
            row["verdict"],
            " ".join(filter(None, (row["setting"], row["hardware"]))),
            row["source"],
        ]
        for row in rows
    ]
    note = (
        f"Scores in points of 100. {published.name}: {published.about} It counts {published.tokens}; "
        f"{published.template}. A score agrees where the published one lies in our interval and that is no wider than "
        f"± {100 * published.tolerance:g}."
    )
    return Table(f"Published beside ours: protocol {published.name}", columns, cells, note)

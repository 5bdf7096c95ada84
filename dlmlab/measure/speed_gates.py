"""The performance log's gates: bounds on speedup, on how even steps are, and on memory.

A bound is kept or missed by the figure of the report. But a machine that does other work besides makes figures of time
uncertain, so one of them misses its bound only where it does in every round; otherwise that is not decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dlmlab.measure.rates import Setting, Timings, peak_gb, step_ratio, step_ratios, times_faster

BASELINE = "baseline"
STEP_BATCH = 4
"""The batch size at which the performance log reports step durations and compares with the reference."""
MIN_SPEEDUP = 1.10
MAX_STEP_RATIO = 3.0
MARKS = {"pass": " ✓", "fail": " ✗", "inconclusive": ": inconclusive"}
"""What follows a bound in a table, by verdict."""


class Gate(NamedTuple):
    """A figure and the bound that it should keep.

    Attributes:
        name: What it is of.
        value: The figure.
        bound: The bound, in words.
        verdict: `pass`, `fail` or `inconclusive`.
        low: The figure's lowest value in any round.
        high: Its highest.
    """

    name: str
    value: float
    bound: str
    verdict: str
    low: float
    high: float

    @property
    def shown(self) -> str:
        """Return the bound as a table has it."""
        return f"{self.bound}{MARKS[self.verdict]}"

    @property
    def said(self) -> str:
        """Return what a bound that isn't kept has to say for itself."""
        rounds = "" if self.low == self.high else f" ({self.low:.2f}–{self.high:.2f} over the rounds)"
        return f"{self.name} = {self.value:.2f}{rounds}, not {self.bound}"


def find_gates(timings: Timings, names: Sequence[str], batches: Sequence[int], limit: float) -> list[Gate]:
    """Return the gates of a run.

    Args:
        timings: By setting, a timing for each round.
        names: The decoders, the baseline first.
        batches: The batch sizes that have a speedup.
        limit: The most memory that a decoder may take, in GB.
    """
    gates = []
    for name in names[1:]:
        for batch in batches:
            ratio = times_faster(timings, Setting(name, batch), than=Setting(BASELINE, batch))
            decided = verdict(ratio.median >= MIN_SPEEDUP, ratio.high >= MIN_SPEEDUP)
            label = f"{name} speedup batch={batch}"
            gates.append(Gate(label, ratio.median, f"≥{MIN_SPEEDUP:.2f}×", decided, ratio.low, ratio.high))
    for name in names:
        at = Setting(name, STEP_BATCH)
        if renews(timings, at):
            continue  # its steps are uneven by design, not by what disturbs it
        value, rounds = step_ratio(timings, at), step_ratios(timings, at)
        decided = verdict(value <= MAX_STEP_RATIO, rounds.low <= MAX_STEP_RATIO)
        bound = f"p99/p50 ≤ {MAX_STEP_RATIO:g}×"
        gates.append(Gate(f"p99/p50 ratio ({name})", value, bound, decided, rounds.low, rounds.high))
    for name in names:
        value = peak_gb(timings, name)
        decided = verdict(value <= limit, value <= limit)
        gates.append(Gate(f"mem peak ({name})", value, f"≤ {limit:g} GB", decided, value, value))
    return gates


def renews(timings: Timings, setting: Setting) -> bool:
    """Return whether a cache renews what it keeps in some of a setting's passes, which take longer than the others.

    Args:
        timings: By setting, a timing for each round.
        setting: A setting that is timed.
    """
    ledger = timings[setting][0].ledger
    return 0 < ledger.full_passes < ledger.forwards


def verdict(kept: bool, in_some_round: bool) -> str:
    """Return the verdict as results.json has it.

    Args:
        kept: Whether the figure of all rounds keeps its bound.
        in_some_round: Whether that of any round does.
    """
    return "pass" if kept else "inconclusive" if in_some_round else "fail"


def summary(gates: Sequence[Gate]) -> str:
    """Return which gates are missed and which can't be told, in words."""
    missed = "; ".join(gate.said for gate in gates if gate.verdict == "fail")
    open_ones = "; ".join(gate.said for gate in gates if gate.verdict == "inconclusive")
    if not missed and not open_ones:
        return "Every gate is kept."
    return " ".join(
        [
            *([f"Gates missed: {missed}."] if missed else []),
            *([f"Inconclusive, since rounds differ: {open_ones}; repeats=10 may tell."] if open_ones else []),
        ]
    )

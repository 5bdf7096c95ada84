"""Compute figures from timings: rates, ratios and step durations of settings that took turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dlmlab.denoise import StepTiming
from dlmlab.measure.timing import Ledger, Spread, Timing, percentile, spread


class Setting(NamedTuple):
    """One timed setting: a decoder's name, or the reference loop, and the batch size."""

    decoder: str
    batch: int


Timings = Mapping[Setting, Sequence[Timing]]


def rate(timings: Timings, setting: Setting, kind: str = "canvas") -> Spread:
    """Compute tokens per second, over the rounds.

    Args:
        timings: By setting, a timing for each round.
        setting: The setting whose rate it is.
        kind: What counts as a token: `canvas`, `answer` or `non_eos`, as in `Ledger`.
    """
    return spread(getattr(timing.ledger, kind) / timing.seconds for timing in timings[setting])


def times_faster(timings: Timings, setting: Setting, than: Setting) -> Spread:
    """Compute the ratio of canvas tokens per second, of runs of the same round.

    Args:
        timings: By setting, a timing for each round.
        setting: The setting whose rate is divided.
        than: The setting by whose rate it is divided.
    """
    pairs = zip(timings[setting], timings[than], strict=True)
    return spread(a.ledger.canvas / a.seconds * b.seconds / b.ledger.canvas for a, b in pairs)


def step_percentile(timings: Timings, setting: Setting, percent: float) -> float:
    """Compute a percentile of step durations, in seconds, over all repeats; only steps with the whole batch count.

    Args:
        timings: By setting, a timing for each round.
        setting: The setting whose steps they are.
        percent: From 0 to 100; 50 for the median.
    """
    full = [seconds for run in timings[setting] for seconds in full_steps(run, setting)]
    return percentile(full, percent)


def full_steps(run: Timing, setting: Setting) -> list[float]:
    """Return the durations, in seconds, of one round's steps with the whole batch.

    Args:
        run: The round's timing.
        setting: The setting, whose batch size a whole batch has.
    """
    return [tick.seconds for tick in run.steps if tick.rows == setting.batch]


def step_ratio(timings: Timings, setting: Setting) -> float:
    """Divide the slowest steps' duration by the usual one's: p99 by p50, over all repeats.

    Args:
        timings: By setting, a timing for each round.
        setting: The setting whose steps they are.
    """
    return step_percentile(timings, setting, 99) / step_percentile(timings, setting, 50)


def step_ratios(timings: Timings, setting: Setting) -> Spread:
    """Divide the slowest steps' duration by the usual one's, in each round by itself.

    Args:
        timings: By setting, a timing for each round.
        setting: The setting whose steps they are; rounds without a step of the whole batch are left out.
    """
    rounds = [full_steps(run, setting) for run in timings[setting]]
    return spread(percentile(steps, 99) / percentile(steps, 50) for steps in rounds if steps)


def peak_gb(timings: Timings, name: str) -> float:
    """Return the most memory that the decoder took at any batch size, in GB of 10^9 bytes.

    Args:
        timings: By setting, a timing for each round.
        name: The decoder's name in the settings.
    """
    return max(run.peak_bytes for setting, runs in timings.items() if setting.decoder == name for run in runs) / 1e9


def most_steps(timings: Timings, name: str) -> int:
    """Return the forward passes of the row that took most.

    Args:
        timings: By setting, a timing for each round.
        name: The decoder's name in the settings; its rows at every batch size are looked at.
    """
    return max(run.most_steps for setting, runs in timings.items() if setting.decoder == name for run in runs)


def same_canvases(timings: Timings, one: Setting, other: Setting) -> float | None:
    """Return the share of prompts for which two settings end on the same tokens; None where the other is not timed.

    Args:
        timings: By setting, a timing for each round; the first round's tokens are compared.
        one: A setting that is timed.
        other: The setting that it is compared with.
    """
    if other not in timings:
        return None
    pairs = list(zip(timings[one][0].tokens, timings[other][0].tokens, strict=True))
    return sum(ours == theirs for ours, theirs in pairs) / len(pairs)


def describe(setting: Setting, runs: Sequence[Timing]) -> dict[str, Any]:
    """Return all that was measured of a setting, as JSON values.

    Args:
        setting: The setting.
        runs: Its timings, one a round, at least one; what stands outside `repeats` is the first's.
    """
    return {
        **setting._asdict(),
        "ledger": runs[0].ledger._asdict(),
        "most_steps": runs[0].most_steps,
        "ran_over": runs[0].ran_over,
        "repeats": [
            {
                "seconds": run.seconds,
                "peak_bytes": run.peak_bytes,
                "step_seconds": [tick.seconds for tick in run.steps],
                "step_rows": [tick.rows for tick in run.steps],
            }
            for run in runs
        ],
    }


def timings_of(described: Mapping[str, Any]) -> list[Timing]:
    """Return the timings that `describe` was given, as far as its answer holds them."""
    ledger = Ledger(**described["ledger"])
    return [
        Timing(
            each["seconds"],
            ledger,
            [StepTiming(*tick, computed=tick[1]) for tick in zip(each["step_seconds"], each["step_rows"], strict=True)],
            described["most_steps"],
            each["peak_bytes"],
            tokens=[],
            ran_over=described.get("ran_over", 0),
        )
        for each in described["repeats"]
    ]

"""The tables of `experiments/throughput.py`: the performance log's two, and what it lacks."""

from __future__ import annotations

from collections.abc import Sequence

from dlmlab.measure.rates import Setting, Timings, most_steps, peak_gb, rate, step_percentile, step_ratio, times_faster
from dlmlab.measure.speed_gates import BASELINE, STEP_BATCH, find_gates
from dlmlab.run.shown import paired_times, times_range
from dlmlab.tracking import Cell, Table

REFERENCE = "reference"
"""What the reference loop is called among the decoders."""


def performance_table(
    timings: Timings, names: Sequence[str], batches: Sequence[int], limit: float, device: str
) -> Table:
    """Return the performance log's rows.

    Args:
        timings: By setting, a timing for each round.
        names: The decoders, the baseline first.
        batches: The batch sizes that are reported.
        limit: The most memory that a decoder may take, in GB.
        device: The device's kind, such as `cuda`.
    """
    shown = {gate.name: gate.shown for gate in find_gates(timings, names, batches, limit)}
    rows = [
        [f"Tokens/sec batch={batch} ({name})", f"{rate(timings, Setting(name, batch)).median:.1f}", ""]
        for name in names
        for batch in batches
    ]
    ranges = list[str]()
    for name in names[1:]:
        for batch in batches:
            metric = f"{name} speedup batch={batch}"
            faster = times_faster(timings, Setting(name, batch), than=Setting(BASELINE, batch))
            medians = rate(timings, Setting(name, batch)).median / rate(timings, Setting(BASELINE, batch)).median
            rows.append([metric, paired_times(faster.median, medians), shown[metric]])
            ranges.append(f"{metric}: {times_range(faster)}")
    for name in names:
        at = Setting(name, STEP_BATCH)
        spared = most_steps(timings, name) < most_steps(timings, BASELINE)
        fewer = "(fewer than baseline = parallel commits working)" if spared else ""
        memory = "GPU mem peak" if device == "cuda" else "Process mem peak"
        rows += [
            [f"Step duration p50 ({name})", f"{1e3 * step_percentile(timings, at, 50):.1f} ms", ""],
            [
                f"Step duration p99 ({name})",
                f"{1e3 * step_percentile(timings, at, 99):.1f} ms",
                shown.get(f"p99/p50 ratio ({name})", ""),
            ],
            [f"p99/p50 ratio ({name})", f"{step_ratio(timings, at):.2f}×", ""],
            [f"Steps executed ({name})", str(most_steps(timings, name)), fewer],
            [f"{memory} ({name})", f"{peak_gb(timings, name):.2f} GB", shown[f"mem peak ({name})"]],
        ]
    cached = any(f"p99/p50 ratio ({name})" not in shown for name in names)
    notes = [explain(device), *(["A cache's steps are uneven by design: their ratio has no bound."] if cached else [])]
    note = " ".join([*notes, *([f"Over the rounds: {'; '.join(ranges)}."] if ranges else [])])
    return Table("", ["Metric", "Value", "Gate"], rows, note)


def explain(device: str) -> str:
    """Explain what the figures count."""
    memory = "allocated on the GPU" if device == "cuda" else "resident in the process, Python and torch included"
    return (
        f"Tokens are canvas tokens. Step durations at batch={STEP_BATCH}, of steps with the whole batch; steps "
        f"executed: the most that any row took. Memory is {memory}. Medians; a speedup is of runs of one round."
    )


def reference_table(timings: Timings, model: str) -> Table:
    """Return the performance log's comparison of the loop with the reference, both decoding as the baseline does.

    Args:
        timings: By setting, a timing for each round, the reference's among them.
        model: The model's name.
    """
    base = Setting(REFERENCE, 1)
    usual = rate(timings, base).median
    rows = [["reference (dlmlab/measure/reference.py), batch=1 sequential", f"{usual:.1f} tok/s"]]
    rounds = []
    for batch, how in ((1, " sequential"), (STEP_BATCH, "")):
        ours = Setting(BASELINE, batch)
        fast = rate(timings, ours).median
        rows.append([f"dlmlab batch={batch}{how}", f"{fast:.1f} tok/s ({fast / usual:.2f}× reference)"])
        rounds.append(f"batch={batch}: {times_range(times_faster(timings, ours, than=base))}")
    note = f"Ratios are of these medians; those of runs of one round: {', '.join(rounds)}."
    return Table("Reference comparison", ["Path", model], rows, note)


def ledger_table(timings: Timings) -> Table:
    """Return a table of every setting's tokens and forward passes, with the spread over the repeats."""
    rates = ["Canvas tok/s", "lowest–highest", "Answer tok/s", "Non-EOS tok/s"]
    columns = ["Decoder", "Batch", *rates, "Forwards", "Tokens/forward"]
    rows: list[list[Cell]] = []
    for setting, runs in timings.items():
        canvas, ledger = rate(timings, setting), runs[0].ledger
        rows.append(
            [
                *setting,
                f"{canvas.median:.1f}",
                f"{canvas.low:.1f}–{canvas.high:.1f}",
                f"{rate(timings, setting, 'answer').median:.1f}",
                f"{rate(timings, setting, 'non_eos').median:.1f}",
                ledger.forwards,
                f"{ledger.tokens_per_forward:.2f}",
            ]
        )
    note = "Answer: tokens before the first end token. Forwards: of all prompts, each row of a pass counted once."
    return Table("Token ledger", columns, rows, note=note)


def computed_table(timings: Timings) -> Table:
    """Return a table of what every setting's forward passes computed."""
    firsts = [(setting, runs[0], runs[0].ledger) for setting, runs in timings.items()]
    rows: list[list[Cell]] = [
        [
            *(*setting, own.forwards, own.positions, f"{own.full_passes:.1f}"),
            None if first.for_nothing is None else f"{first.for_nothing:.1%}",
        ]
        for setting, first, own in firsts
    ]
    note = (
        "Of all prompts. Positions: prompts' among them. Full passes: to how many passes over whole rows they amount. "
        "For nothing: the share of what passes ran over that is padding, a shape rounded up, or was begun and dropped."
    )
    head = ["Decoder", "Batch", "Forwards", "Positions", "Full passes", "For nothing"]
    return Table("Computed", head, rows, note=note)


def step_table(timings: Timings) -> Table:
    """Step durations at every batch size."""
    rows: list[list[Cell]] = [
        [*setting, *(f"{1e3 * step_percentile(timings, setting, percent):.1f} ms" for percent in (50, 99)),
         f"{step_ratio(timings, setting):.2f}×"]
        for setting in timings
        if setting.decoder != REFERENCE
    ]  # fmt: skip
    return Table("Step durations", ["Decoder", "Batch", "p50", "p99", "p99/p50"], rows)

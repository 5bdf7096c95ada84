"""A run in another tool's format.

    python -m dlmlab.export inspect outputs/RUN     # then: inspect view --log-dir outputs/RUN/inspect

inspect_ai's log format, one file for each task and decoder: prompts, answers, scores by every scoring, and what made
the run. `pip install 'dlmlab[inspect]'`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.record.samples import Sample, read_samples

FOLDER = "inspect"
SCORER = "score"


def to_inspect(folder: Path) -> list[Path]:
    """Write a run's samples as logs of inspect_ai's into its folder.

    Args:
        folder: A run's.

    Returns:
        The files, one for each task and decoder.

    Raises:
        UserError: inspect_ai is missing, or the run has no samples.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        raise UserError("inspect_ai is not installed: pip install 'dlmlab[inspect]'") from error
    recorded, samples = manifest.read(folder), read_samples(folder)
    files = []
    for task, decoder in dict.fromkeys((each.task, each.decoder) for each in samples):
        own = [each for each in samples if (each.task, each.decoder) == (task, decoder)]
        name = re.sub(r"[^\w.=-]+", "_", f"{task}_{decoder}")
        files.append(folder / FOLDER / f"{name}.eval")
        files[-1].parent.mkdir(exist_ok=True)
        write_eval_log(log_of(recorded, own), str(files[-1]))
    return files


def log_of(recorded: Mapping[str, Any], samples: Sequence[Sample]) -> Any:
    """Return the samples of one task and decoder as an inspect_ai EvalLog.

    Args:
        recorded: The run's manifest.
        samples: The samples, in their order.
    """
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec

    first = samples[0]
    data = (recorded.get("data") or {}).get(first.task) or {}
    spec = EvalSpec(
        created=recorded["started"],
        task=first.task,
        task_version=str(data.get("version", "")),
        solver=first.decoder,
        dataset=EvalDataset(name=first.task, samples=len(samples), sample_ids=[each.id for each in samples]),
        model=f"dlmlab/{recorded['config']['model'].get('path', 'model')}",
        config=EvalConfig(),
        packages={name: each for name, each in recorded["packages"].items() if each},
        metadata={"command": recorded["command"], "git": recorded["git"], "config": recorded["config"]},
    )
    results = EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=scores_of(samples))
    return EvalLog(status="success", eval=spec, results=results, samples=[sample_of(each) for each in samples])


def sample_of(sample: Sample) -> Any:
    """Return a sample as inspect_ai's."""
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    values = {} if sample.score is None else {SCORER: sample.score, **sample.variants}
    return EvalSample(
        id=sample.id,
        epoch=1,
        input=sample.prompt,
        target=sample.target or "",
        messages=[ChatMessageUser(content=sample.prompt), ChatMessageAssistant(content=sample.text)],
        output=ModelOutput.from_content("dlmlab", sample.text),
        scores={
            name: Score(value=value, answer=sample.text, explanation=sample.reason) for name, value in values.items()
        },
        metadata={"forwards": sample.forwards, "index": sample.index},
    )


def scores_of(samples: Sequence[Sample]) -> list[Any]:
    """Return the mean of every scoring, as inspect_ai's EvalScores."""
    from inspect_ai.log import EvalMetric, EvalScore

    named = {name: [each.variants[name] for each in samples] for name in samples[0].variants}
    scores = [each.score for each in samples if each.score is not None]
    return [
        EvalScore(name=name, scorer=name, metrics={"mean": EvalMetric(name="mean", value=sum(values) / len(values))})
        for name, values in {**({SCORER: scores} if scores else {}), **named}.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser("python -m dlmlab.export", description="Write a run in another tool's format.")
    parser.add_argument("format", choices=["inspect"], help="inspect_ai's logs")
    parser.add_argument("run", type=Path, help="folder of a run")
    options = parser.parse_args(arguments)
    try:
        files = to_inspect(options.run)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for file in files:
        print(f"written: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train a small model that ships: masked-diffusion SFT on exercises that the project generates.

python run.py experiment=train model=tiny_v2                                     minutes of a GPU
python run.py experiment=train model=tiny training.seconds=60 data.rows=20000    a taste of it
python run.py experiment=train_tiny                                              the same as model=tiny

The recipe of each model is conf/experiment/train/<model>.yaml. The prompt is kept; the answer is padded with end tokens
to the canvas, and its positions are masked as decoding will see them (loss.py). Data, order and masks are seeded; with
`data.emphasis`, measurements on the way say how often a kind is drawn. The learning rate follows the clock where
`training.seconds` is set, so that a run fits a machine lent for minutes; two such runs differ by as much as their
machines do. With several GPUs each takes a part of every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.threshold import Threshold
from dlmlab.errors import UserError
from dlmlab.settings import Fraction, Limits, NonNegativeFloat, PositiveInt, fits, list_of, near, one_of
from dlmlab.task.tiny.kinds import V2_KINDS as EXERCISES
from dlmlab.types import Generation
from experiments.train import sudoku
from experiments.train.data import Draw, Layout, drawing, emphasised
from experiments.train.distributed import rank, say, shared, together, world
from experiments.train.network import Network, check_architecture, parameters, save_checkpoint, start
from experiments.train.optimize import Hooks, Source, fit
from experiments.train.progress import Canvas, held_out_accuracy
from experiments.train.rounds import Rounds
from experiments.train.state import Progress
from experiments.train.tokenizer import TEMPLATES

if TYPE_CHECKING:
    from omegaconf import DictConfig

KINDS: Mapping[str, Any] = {
    "tokenizer.vocab_size": Annotated[int, Limits(262)] | None,  # bytes and special tokens
    "tokenizer.samples": PositiveInt,
    "tokenizer.template": one_of(TEMPLATES),
    "data.rows": PositiveInt,
    "data.passes": PositiveInt | None,
    "data.workers": PositiveInt,
    "data.layouts": list_of(Layout),
    "data.weights": dict[str, NonNegativeFloat],
    "data.emphasis": NonNegativeFloat,
    "data.puzzles": sudoku.Puzzles | None,
    "architecture": dict[str, Any],
    "training.initial": str | None,
    "training.steps": PositiveInt,
    "training.seconds": NonNegativeFloat | None,
    "training.batch_size": PositiveInt,
    "training.checkpoint_every": PositiveInt,
    "training.warmup_steps": PositiveInt,
    "training.constant_share": Annotated[float, Limits(0, 0.99)],
    "training.short_answer": PositiveInt,
    "training.padding_weight": NonNegativeFloat,
    "training.block_lengths": list[PositiveInt],
    "training.block_share": Fraction,
    "training.measure_at": list[Fraction],
    "training.muon.lr": NonNegativeFloat,
    "training.muon.momentum": Fraction,
    "training.muon.weight_decay": NonNegativeFloat,
    "training.adamw.lr": NonNegativeFloat,
    "training.adamw.betas": list_of(Fraction),
    "training.adamw.weight_decay": NonNegativeFloat,
    "progress.per_kind": PositiveInt,
    "progress.batch_size": PositiveInt,
    "progress.gen_length": PositiveInt,
    "progress.final_steps": list[PositiveInt],
}
PARTS = ("tokenizer", "data", "architecture", "training", "progress")

THRESHOLD = 0.9
"""By which what is measured on the way is decoded, as by conf/decoder/threshold.yaml."""


def run(cfg: DictConfig, built: None) -> None:
    """Run the experiment: settings from conf/experiment/train/, the checkpoint into the run's folder.

    Args:
        cfg: The run's config.
        built: None, which `check` returns: nothing is built before the run has begun.
    """
    from omegaconf import OmegaConf

    from dlmlab.model.loader import load, pick_device
    from dlmlab.run.begin import begin
    from dlmlab.tracking import Report, Table

    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    with begin(cfg) as run:
        folder, device = run.folder / "checkpoint", str(pick_device(cfg.device))
        results = together(train, device, out=folder, **{part: settings[part] for part in PARTS}, seed=cfg.seed)
        last = results["accuracy"][-1]
        columns = [
            "kind",
            *(f"step {each['step']}, {decoding(each['decoding_steps'])}" for each in results["accuracy"]),
        ]
        kinds = [[kind, *(each["right"][kind] for each in results["accuracy"])] for kind in last["right"]]
        report = Report(
            title="Training of a small model",
            question="How much of what was held out does it get right?",
            settings={"checkpoint": str(folder), "fingerprint": load(str(folder), device="cpu").fingerprint},
            tables=[Table("", columns, kinds, note="Code is compared with reference answers, not executed.")],
            verdict=f"Right: {mean(last['right']):.1%} over all kinds, decoded {decoding(last['decoding_steps'])}.",
            results=results,
            summary={"parameters": results["parameters"], "steps": results["steps"], "accuracy": mean(last["right"])},
        )
        run.publish(report)


def check(cfg: DictConfig) -> None:
    """Raise UserError for parts that don't go together."""
    from omegaconf import OmegaConf

    from dlmlab.model import place
    from dlmlab.run.kinds import gathered

    if not all(fits(OmegaConf.select(cfg, key), kind) for key, kind in KINDS.items()):
        return  # what is wrong by itself is said already
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    data, progress, training = settings["data"], settings["progress"], settings["training"]
    with gathered() as errors:
        with errors:
            check_rows(data["rows"], training["batch_size"])
        for name in data["weights"]:
            if name not in EXERCISES:
                errors.append(f"data.weights.{name} is no kind of exercise{near(name, EXERCISES)}")
        if not (any(data["weights"].values()) or data["puzzles"]):
            errors.append("data.weights are all 0: give one of them more")
        if data["emphasis"] and data["puzzles"]:
            errors.append(
                f"data.emphasis={data['emphasis']} is for kinds of exercises, and puzzles have none: set it to 0"
            )
        elif data["emphasis"] and not (data["passes"] and training["measure_at"]):
            errors.append(
                f"data.emphasis={data['emphasis']} needs measurements, and rows that are drawn after them: set "
                "training.measure_at and data.passes"
            )
        for steps in progress["final_steps"]:
            with errors:
                Generation(progress["gen_length"], progress["gen_length"], steps)
        with errors:
            vocabulary = settings["tokenizer"]["vocab_size"] or 2**15
            network = check_architecture(settings["architecture"], vocabulary)
            for layout in layouts_of(data):
                if layout.prompt + layout.canvas > network.max_sequence_length:
                    errors.append(
                        f"architecture has a context of {network.max_sequence_length}, less than a row of "
                        f"data.layouts, {layout.prompt} + {layout.canvas} positions: raise it"
                    )
        if len(training["adamw"]["betas"]) != 2:
            errors.append(f"training.adamw.betas={training['adamw']['betas']} are not two")
        if training["initial"] and not place.local(training["initial"]).is_dir():
            errors.append(f"training.initial={training['initial']} is no checkpoint's folder")


def check_rows(rows: int, batch_size: int) -> None:
    """Raise UserError for fewer rows than a batch, or than processes that share one.

    Args:
        rows: The rows of all layouts.
        batch_size: Rows of a batch, of all layouts.
    """
    if rows < batch_size:
        raise UserError(f"data.rows={rows} is less than training.batch_size={batch_size}: raise it")
    if batch_size < world():
        raise UserError(f"training.batch_size={batch_size} is less than the {world()} GPUs that share it: raise it")


def layouts_of(data: Mapping[str, Any]) -> list[Layout]:
    """Return the layouts of a recipe's rows."""
    return [Layout(**each) for each in data["layouts"]]


def rounds_of(network: Network, data: Mapping[str, Any], seed: int, so_far: Progress) -> Rounds:
    """Return what draws a recipe's rows.

    Args:
        network: The network that is trained, for its tokenizer.
        data: The recipe's part of that name.
        seed: The seed of the draw.
        so_far: Where the training stands when a round is begun; what was measured says what `data.emphasis` raises.
    """

    def draw_of(number: int) -> Draw:
        if data["puzzles"]:
            return sudoku.drawing(network.tokenizer, data["puzzles"], seed)
        # A round is begun as soon as the one before it is used: what was measured during that one came too late.
        known = [each["right"] for each in so_far.accuracy if each["round"] <= number - 2]
        weights = emphasised(data["weights"], known[-1] if known else {}, data["emphasis"])
        return drawing(network.tokenizer, weights, layouts_of(data), seed)

    return Rounds(draw_of, data["rows"], data["workers"], ahead=data["passes"] is not None)


def train(
    out: Path,
    *,
    tokenizer: Mapping[str, Any],
    data: Mapping[str, Any],
    architecture: Mapping[str, Any],
    training: Mapping[str, Any],
    progress: Mapping[str, Any],
    seed: int,
    device: str,
    ready: Callable[[], float | None] = lambda: None,
) -> dict[str, Any]:
    """Make tokenizer and data, train, and write the checkpoint. Needs no config system.

    The checkpoint is written whenever the state is, so that a training that ends early leaves one.

    Args:
        out: The checkpoint's folder; the state is kept beside it.
        tokenizer: This and the next four are the parts of a recipe in conf/experiment/train/; this is the tokenizer's.
        data: The rows' part.
        architecture: The network's part; empty is the initial checkpoint's.
        training: The optimisation's part.
        progress: The part of what is measured on the way.
        seed: The seed of weights, data, order and masks.
        device: The device to train on, such as `cuda:0`.
        ready: See `Hooks`.

    Returns:
        What was reached: the number of `parameters`, the `steps`, the `losses`, and each `accuracy` that was measured.

    Raises:
        UserError: There are fewer rows than a batch.
    """
    check_rows(data["rows"], training["batch_size"])
    torch.manual_seed(seed)
    network = start(tokenizer, architecture, training["initial"], seed, data["weights"])
    model = network.model
    model.to(device)  # type: ignore[arg-type]
    model.model.rotary(model.device)
    model.tokenizer = network.tokenizer
    say(f"{parameters(model)} parameters")
    so_far = Progress(sorted(training["measure_at"]))

    def measure(step: int, steps: int | None) -> None:
        model.train(False)
        with torch.compiler.set_stance("force_eager"):  # what is compiled is compiled for a batch of training
            right = accuracy(model, data, progress, steps, seed)
        model.train(True)
        so_far.accuracy.append({"step": step, "round": so_far.round, "decoding_steps": steps, "right": right})
        say(f"step {step}, decoded {decoding(steps)}: {mean(right):.3f} right")

    on_the_way = progress["gen_length"] if data["puzzles"] else None
    hooks = Hooks(lambda step: measure(step, on_the_way), lambda: save_checkpoint(network, out), ready)
    state = out.with_name(f"{out.name}.state.safetensors")
    with closing(rounds_of(network, data, seed, so_far)) as rounds:
        source = Source(layouts_of(data), lambda number: shared(out, lambda: rounds(number)), data["passes"], seed)
        fit(model, source, training, hooks, so_far, state)
    if rank() == 0:
        save_checkpoint(network, out)
    for steps in progress["final_steps"]:
        measure(so_far.step, steps)
    own = {"parameters": parameters(model), "steps": so_far.step}
    return {**own, "losses": so_far.losses, "accuracy": so_far.accuracy}


def accuracy(
    model: Any, data: Mapping[str, Any], progress: Mapping[str, Any], steps: int | None, seed: int
) -> dict[str, float]:
    """Return the share of right answers to what is held out, by kind; of Sudoku by decoder.

    Args:
        model: The model, with its tokenizer.
        data: The recipe's part of that name.
        progress: The recipe's part of that name.
        steps: Decoding steps of a canvas by the baseline; None is `threshold` instead, in fewer passes, of exercises
            that are drawn anew, since rows may be drawn by them. Sudoku takes a step for each cell whatever this says.
        seed: The seed of the draw.
    """
    count, batch_size = progress["per_kind"], progress["batch_size"]
    if data["puzzles"]:
        return sudoku.held_out_accuracy(model, data["puzzles"], count, batch_size, seed)
    kinds = [EXERCISES[name] for name, weight in data["weights"].items() if weight]
    rule, seed = (Baseline(), seed) if steps else (Threshold(THRESHOLD), seed + 1)
    canvas = Canvas(progress["gen_length"], steps or progress["gen_length"], batch_size)
    return held_out_accuracy(model, kinds, count, canvas, rule, seed)


def decoding(steps: int | None) -> str:
    """Return how exercises were decoded, in words; see `accuracy`."""
    return f"in {steps} steps" if steps else f"by threshold={THRESHOLD}"


def mean(right: Mapping[str, float]) -> float:
    """Return the mean over kinds, each of as many exercises."""
    return sum(right.values()) / len(right)

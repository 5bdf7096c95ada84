"""Train the tiny model: masked-diffusion SFT on exercises that the project generates (LLaDA, arXiv:2502.09992, 2.3).

python run.py experiment=train_tiny                                                      ten minutes of a GPU
python run.py experiment=train_tiny training.seconds=60 data.rows=20000 data.workers=2   a taste of it

The prompt is kept; the answer is padded with end tokens to the canvas, and each of its positions is masked with
probability t, drawn for each row; the loss is the cross-entropy at masked positions over t. Data, order and masks are
seeded. The learning rate follows the clock where `training.seconds` is set, so that a run fits a machine lent for
minutes; two such runs differ by as much as their machines do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from dlmlab.errors import UserError
from dlmlab.loop.interrupt import asked, finishing
from dlmlab.model.config import LLaDAConfig
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.settings import Fraction, Limits, NonNegativeFloat, PositiveInt, fits, list_of, near
from experiments.train_tiny.data import KINDS as EXERCISES
from experiments.train_tiny.data import Layout, Rows, make_rows
from experiments.train_tiny.loss import batches, make_loss
from experiments.train_tiny.muon import Muon
from experiments.train_tiny.progress import held_out_accuracy
from experiments.train_tiny.state import Progress
from experiments.train_tiny.state import load as load_state
from experiments.train_tiny.state import save as save_state
from experiments.train_tiny.tokenizer import EOS, MASK, save_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from omegaconf import DictConfig

LOG_EVERY = 200
KINDS: Mapping[str, Any] = {
    "tokenizer.vocab_size": Annotated[int, Limits(262)],  # bytes and special tokens
    "tokenizer.samples": PositiveInt,
    "data.rows": PositiveInt,
    "data.workers": PositiveInt,
    "data.layout.prompt": PositiveInt,
    "data.layout.canvas": PositiveInt,
    "data.layout.short_share": Fraction,
    "data.weights": dict[str, NonNegativeFloat],
    "architecture.d_model": PositiveInt,
    "architecture.n_layers": PositiveInt,
    "architecture.n_heads": PositiveInt,
    "architecture.mlp_hidden_size": PositiveInt,
    "architecture.max_sequence_length": PositiveInt,
    "architecture.rope_theta": NonNegativeFloat,
    "training.initial": str | None,
    "training.steps": PositiveInt,
    "training.seconds": NonNegativeFloat | None,
    "training.batch_size": PositiveInt,
    "training.checkpoint_every": PositiveInt,
    "training.warmup_steps": PositiveInt,
    "training.constant_share": Annotated[float, Limits(0, 0.99)],
    "training.short_answer": PositiveInt,
    "training.padding_weight": NonNegativeFloat,
    "training.measure_at": list[Fraction],
    "training.muon.lr": NonNegativeFloat,
    "training.muon.momentum": Fraction,
    "training.muon.weight_decay": NonNegativeFloat,
    "training.adamw.lr": NonNegativeFloat,
    "training.adamw.betas": list_of(Fraction),
    "training.adamw.weight_decay": NonNegativeFloat,
    "progress.per_kind": PositiveInt,
    "progress.batch_size": PositiveInt,
    "progress.final_steps": list_of(PositiveInt),
}
PARTS = ("tokenizer", "data", "architecture", "training", "progress")
NO_IDS = {"mask_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
"""Ids of a tokenizer that is not there yet."""


def run(cfg: DictConfig, built: None) -> None:
    """The experiment: settings from conf/experiment/train_tiny.yaml, the checkpoint into the run's folder."""
    from omegaconf import OmegaConf

    from dlmlab.model.loader import load, pick_device
    from dlmlab.run.begin import begin
    from dlmlab.tracking import Report, Table

    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    with begin(cfg) as run:
        folder, device = run.folder / "checkpoint", str(pick_device(cfg.device))
        results = train(folder, **{part: settings[part] for part in PARTS}, seed=cfg.seed, device=device)
        last = results["accuracy"][-1]
        columns = ["kind", *(f"{each['decoding_steps']} steps" for each in results["accuracy"])]
        kinds = [[kind, *(each["right"][kind] for each in results["accuracy"])] for kind in last["right"]]
        report = Report(
            title="Training of the tiny model",
            question="How much of what was held out does it get right, decoded by the baseline?",
            settings={"checkpoint": str(folder), "fingerprint": load(str(folder), device="cpu").fingerprint},
            tables=[Table("", columns, kinds, note="Code is compared with reference answers, not executed.")],
            verdict=f"Right: {mean(last['right']):.1%} over all kinds, at {last['decoding_steps']} steps.",
            results=results,
            summary={"parameters": results["parameters"], "steps": results["steps"], "accuracy": mean(last["right"])},
        )
        run.publish(report)


def check(cfg: DictConfig) -> None:
    """Raise UserError for parts that don't go together."""
    from omegaconf import OmegaConf

    from dlmlab.model import place
    from dlmlab.run.kinds import gathered
    from dlmlab.types import Generation

    if not all(fits(OmegaConf.select(cfg, key), kind) for key, kind in KINDS.items()):
        return  # what is wrong by itself is said already
    with gathered() as errors:
        with errors:
            check_rows(cfg.data.rows, cfg.training.batch_size)
        for name in cfg.data.weights:
            if name not in EXERCISES:
                errors.append(f"data.weights.{name} is no kind of exercise{near(name, EXERCISES)}")
        if not any(cfg.data.weights.values()):
            errors.append("data.weights are all 0: give one of them more")
        with errors:
            LLaDAConfig(**OmegaConf.to_container(cfg.architecture), vocab_size=cfg.tokenizer.vocab_size, **NO_IDS)  # type: ignore[arg-type]
        layout = cfg.data.layout
        for steps in cfg.progress.final_steps:
            with errors:
                Generation(layout.canvas, layout.canvas, steps)
        if layout.prompt + layout.canvas > cfg.architecture.max_sequence_length:
            errors.append(
                f"architecture.max_sequence_length={cfg.architecture.max_sequence_length} is less than a row of "
                f"data.layout, {layout.prompt} + {layout.canvas} positions: raise it"
            )
        if len(cfg.training.adamw.betas) != 2:
            errors.append(f"training.adamw.betas={list(cfg.training.adamw.betas)} are not two")
        if cfg.training.initial and not place.local(cfg.training.initial).is_dir():
            errors.append(f"training.initial={cfg.training.initial} is no checkpoint's folder")


def check_rows(rows: int, batch_size: int) -> None:
    """Raise UserError for fewer rows than a batch."""
    if rows < batch_size:
        raise UserError(f"data.rows={rows} is less than training.batch_size={batch_size}: raise it")


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
) -> dict[str, Any]:
    """Tokenizer, data, training, checkpoint. Returns what was reached. Needs no config system.

    The parameters are the parts of conf/experiment/train_tiny.yaml. Raises UserError for fewer rows than a batch.
    """
    check_rows(data["rows"], training["batch_size"])
    torch.manual_seed(seed)
    words, model = start(tokenizer, architecture, training["initial"], seed)
    model.to(device)  # type: ignore[arg-type]
    model.model.rotary(model.device)
    model.tokenizer = words
    layout = Layout(**data["layout"])
    rows = make_rows(words, data["weights"], layout, data["rows"], seed, data["workers"])
    so_far = Progress(sorted(training["measure_at"]))

    def measure(step: int, steps: int) -> None:
        model.train(False)
        right = held_out_accuracy(model, progress["per_kind"], layout.canvas, steps, progress["batch_size"], seed)
        model.train(True)
        so_far.accuracy.append({"step": step, "decoding_steps": steps, "right": right})
        print(f"step {step}, decoded in {steps} steps: {mean(right):.3f} right", flush=True)

    state = out.with_name(f"{out.name}.state.safetensors")
    fit(model, rows, layout, training, seed, lambda step: measure(step, layout.canvas), so_far, state)
    save_checkpoint(model, words, out)
    for steps in progress["final_steps"]:
        measure(so_far.step, steps)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "steps": so_far.step, "losses": so_far.losses, "accuracy": so_far.accuracy}


def start(
    tokenizer: Mapping[str, Any], architecture: Mapping[str, Any], initial: str | None, seed: int
) -> tuple[PreTrainedTokenizerFast, LLaDAModelLM]:
    """Return a tokenizer and a model in float32: fresh ones, or those of a checkpoint to go on from."""
    if initial:
        return (
            PreTrainedTokenizerFast.from_pretrained(initial),
            LLaDAModelLM.from_pretrained(initial, dtype=torch.float32),
        )
    words = train_tokenizer(**tokenizer, seed=seed)
    end, mask = (words.convert_tokens_to_ids(token) for token in (EOS, MASK))
    ids = {"eos_token_id": end, "pad_token_id": end, "mask_token_id": mask}
    config: dict[str, Any] = {**architecture, **ids, "vocab_size": len(words), "embedding_size": len(words)}
    return words, LLaDAModelLM(LLaDAConfig(**config))


def fit(
    model: LLaDAModelLM,
    rows: Rows,
    layout: Layout,
    training: Mapping[str, Any],
    seed: int,
    measure: Callable[[int], None],
    so_far: Progress,
    state: Path,
) -> None:
    """Optimise until the steps or the seconds are used up, from where the file `state` says that it was left.

    measure: called with the step at the shares of the way that `training.measure_at` lists; its time doesn't count.
    so_far: is brought up to date; losses every LOG_EVERY steps. Raises KeyboardInterrupt where the user has asked for
    an end, once the state is kept.
    """
    device, cuda = model.device, model.device.type == "cuda"
    loss_of = make_loss(model, layout, training["short_answer"], training["padding_weight"])
    if cuda:
        torch.set_float32_matmul_precision("high")
        loss_of = torch.compile(loss_of)
    optimizers = make_optimizers(model, training["muon"], training["adamw"])
    columns = [torch.from_numpy(column).to(device) for column in rows]
    generator = torch.Generator(device).manual_seed(seed)
    if kept := load_state(state, model, optimizers):
        vars(so_far).update(vars(kept))
        print(f"going on at step {so_far.step}", flush=True)
    first, behind = so_far.step, so_far.elapsed
    drawn = batches(columns, layout.canvas, training["batch_size"], generator)
    model.train(True)
    with finishing():
        for step, batch in enumerate(islice(drawn, first, None), first):
            if step <= first + 1:
                began = time.perf_counter() - behind  # the first step compiles
            elapsed = time.perf_counter() - began
            so_far.step, so_far.elapsed = step, elapsed
            done = max(step / training["steps"], elapsed / training["seconds"] if training["seconds"] else 0.0)
            if done >= 1:
                break
            due = bool(so_far.ahead) and done >= so_far.ahead[0]
            if asked() or due or (step > first and step % training["checkpoint_every"] == 0):
                save_state(state, model, optimizers, so_far)
            if asked():
                break
            if due:
                so_far.ahead.pop(0)
                measure(step)
                began = time.perf_counter() - elapsed
            set_rate(optimizers, step, done, training["warmup_steps"], training["constant_share"])
            loss = loss_of(*batch)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if step % LOG_EVERY == 0:
                so_far.losses.append(loss.item())
                print(f"step {step}, {elapsed:.0f} s: loss {so_far.losses[-1]:.3f}", flush=True)


def make_optimizers(
    model: LLaDAModelLM, muon: Mapping[str, Any], adamw: Mapping[str, Any]
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embedding, head and norms."""
    named = list(model.named_parameters())
    inside = [parameter for name, parameter in named if ".blocks." in name and parameter.ndim == 2]
    outside = [parameter for name, parameter in named if ".blocks." not in name or parameter.ndim != 2]
    optimizers = [Muon(inside, **muon), torch.optim.AdamW(outside, **adamw, fused=model.device.type == "cuda")]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers


def set_rate(
    optimizers: Sequence[torch.optim.Optimizer], step: int, done: float, warmup_steps: int, constant_share: float
) -> None:
    """Learning rates: a linear warm-up, the full rate for a share of the way, then linearly to zero."""
    rate = min(1.0, (step + 1) / warmup_steps, (1 - done) / (1 - constant_share))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * rate


def save_checkpoint(model: LLaDAModelLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """A folder in LLaDA's layout, weights in bfloat16; config.json states every key that shapes the model."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.bfloat16().contiguous().cpu() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    stated = {key: getattr(model.config, key) for key in LLaDAConfig.__annotations__ if key != "model_type"}
    config = {"architectures": ["LLaDAModelLM"], "model_type": "llada", **stated, "torch_dtype": "bfloat16"}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_tokenizer(tokenizer, out)


def mean(right: Mapping[str, float]) -> float:
    """Over kinds, each of as many exercises."""
    return sum(right.values()) / len(right)

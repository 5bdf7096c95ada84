"""The table of docs/decoders.md, from conf/decoder/ and the classes there. `make docs` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from omegaconf import OmegaConf

from dlmlab.rule import Rule

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "decoders.md"
CONF = ROOT / "conf" / "decoder"
MODEL = {"localleap": {"kappa": 0.9, "tau": 0.75, "radius": 4}}
"""Stands for a model's calibration, so that a rule can be built; the table names no value of it."""
HEAD = ("decoder", "rule", "parameters", "source", "needs", "goes with", "its authors run it with")
BEGIN, END = "<!-- decoders: written by make docs -->\n", "<!-- decoders: end -->\n"


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def renewed(page: str) -> str:
    """The page with the table as it should be."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def table() -> str:
    """A row for each file of conf/decoder/."""
    rows = [HEAD, ["---"] * len(HEAD), *(row(path) for path in sorted(CONF.glob("*.yaml")))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def row(path: Path) -> list[str]:
    """What config and class say of a decoder."""
    config = OmegaConf.create({"decoder": OmegaConf.load(path), "model": MODEL})
    raw: Any = OmegaConf.to_container(config.decoder, resolve=False)
    published = raw.pop("published", {})
    config.decoder.pop("published", None)
    rule = hydra.utils.instantiate(config.decoder)
    told, source = description(path)
    values = {key: value for key, value in raw.items() if key != "_target_"}
    return [
        f"`{path.stem}`",
        told or first_sentence(rule),
        ", ".join(f"`{key}` {shown(value)}" for key, value in values.items()),
        source,
        ", ".join(needs(rule)),
        ", ".join(goes_with(rule)),
        ", ".join(f"`{key}` {value}" for key, value in published.items()),
    ]


def description(path: Path) -> tuple[str, str]:
    """The file's first comment without the brackets at its end, and the paper that is named in them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("# "):
            break
        comment.append(line.removeprefix("# "))
    found = re.fullmatch(r"(.*?)(?: \(([^()]*arXiv:[^()]*|[^()]*dInfer[^()]*)\))?\.?", " ".join(comment))
    assert found is not None
    paper = re.search(r"arXiv:[\d.]+\d", found[2] or "")
    return found[1], paper[0] if paper else ""


def first_sentence(rule: Rule) -> str:
    """Of a rule's docstring."""
    return (type(rule).__doc__ or "").partition(".")[0].replace("\n", " ")


def shown(value: Any) -> str:
    """A parameter's value; what comes from the model's calibration is said to."""
    if isinstance(value, dict):
        return " / ".join(f"{key} {each}" for key, each in value.items())
    if value is None:
        return "null"
    return "the model's" if isinstance(value, str) and value.startswith("${model.") else str(value)


def needs(rule: Rule) -> Iterator[str]:
    """What a rule asks for beside proposed tokens and their confidences."""
    flags = {
        "schedule": rule.scheduled,
        "noise": rule.needs_noise,
        "measure": rule.measures,
        "logits": rule.needs_logits,
        "kept": rule.revokes or rule.edits,
        "shadows": rule.shadows,
        "drafts": bool(rule.drafts),
        "attention": bool(rule.attends),
        "state": bool(rule.initial_state(2, 3, torch.empty(0))),
    }
    return (name for name, needed in flags.items() if needed)


def goes_with(rule: Rule) -> Iterator[str]:
    """What spares a rule forward passes of its own."""
    flags = {"sharing": not (rule.needs_logits or rule.revokes or rule.drafts), "memo": rule.memoisable}
    return (name for name, fits in flags.items() if fits)


if __name__ == "__main__":
    main()

"""The tables of docs/caches.md, from conf/cache/, conf/decoder/ and the classes there. `make docs` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra.utils
from omegaconf import OmegaConf

from dlmlab.errors import UserError
from dlmlab.policy import Policy, check_pair
from dlmlab.rule import Rule
from docs.decoder_table import MODEL, description

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "caches.md"
CONF = ROOT / "conf"
HEAD = ("cache", "what a pass computes", "parameters", "source", "needs of a model", "takes as final", "exact")
BEGIN = "<!-- {}: written by make docs -->\n"
END = "<!-- {}: end -->\n"


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def renewed(page: str) -> str:
    """The page with the tables as they should be."""
    for name, table in (("caches", policies()), ("pairs", pairs())):
        before, rest = page.split(BEGIN.format(name))
        page = before + BEGIN.format(name) + table + END.format(name) + rest.split(END.format(name))[1]
    return page


def policies() -> str:
    """A row for each file of conf/cache/."""
    return lines(HEAD, [row(path) for path in files("cache")])


def row(path: Path) -> list[str]:
    """What config and class say of a cache."""
    policy: Policy = built("cache", path)
    told, source = description(path)
    values = {key: value for key, value in vars(policy).items() if key != "_target_"}
    needs = policy.needs if policy.keeps else ""
    parameters = ", ".join(f"`{key}` {value}" for key, value in values.items())
    return [f"`{path.stem}`", told, parameters, source, needs, policy.frozen.value, policy.exact]


def pairs() -> str:
    """A row for each decoder, a column for each cache: whether they go together."""
    caches: dict[str, Policy] = {path.stem: built("cache", path) for path in files("cache")}
    rows = []
    for path in files("decoder"):
        rule: Rule = built("decoder", path)
        rows.append([f"`{path.stem}`", *("✓" if fits(rule, cache) else "–" for cache in caches.values())])
    return lines(["decoder", *(f"`{name}`" for name in caches)], rows)


def fits(rule: Rule, cache: Policy) -> bool:
    """Whether a decoder and a cache go together, by what both declare."""
    try:
        check_pair(rule, cache)
    except UserError:
        return False
    return True


def files(group: str) -> list[Path]:
    """The files of a group, in order."""
    return sorted((CONF / group).glob("*.yaml"))


def built(group: str, path: Path) -> Any:
    """What a file makes."""
    config = OmegaConf.create({group: OmegaConf.load(path), "model": MODEL})
    config[group].pop("published", None)
    return hydra.utils.instantiate(config[group])


def lines(head: Any, rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    main()

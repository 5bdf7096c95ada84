"""What is typed, made ready for Hydra: `resume=` becomes its folder, a prompt needs no second quotes, and a training
follows the recipe of its model.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dlmlab.errors import UserError
from dlmlab.paths import CONF
from dlmlab.run import resume
from dlmlab.settings import check, one_of

FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
MULTIRUN = {"-m", "--multirun"}
TRAIN = "experiment=train"
QUOTE = "quote a value with , = ' # < or other signs twice"


def prepare(arguments: Sequence[str]) -> list[str]:
    """Return the command line as Hydra takes it.

    Raises:
        UserError: A folder is empty or not there, a value needs quotes, or a multirun's folder holds another one.
    """
    several = bool(MULTIRUN & set(arguments))
    for text in arguments:
        key, _, value = text.partition("=")
        if key in FOLDERS and not value.strip("'\""):
            raise UserError(f"{text} is empty: name a folder")
    if several and "--cfg" in arguments:
        raise UserError("--cfg shows one job's config: leave out -m, and give each setting one value")
    ready = [text if several else quoted(text) for text in with_recipe(arguments)]
    for text in ready:
        if "=" in text and not text.startswith("-"):
            check_readable(text)
    return resume.redirect(ready)


def with_recipe(arguments: Sequence[str]) -> list[str]:
    """Return the command line with conf/experiment/train/<model>.yaml where it says `experiment=train`.

    Raises:
        UserError: The model has no recipe.
    """
    if TRAIN not in arguments:
        return list(arguments)
    [*_, model] = ["tiny", *(text.partition("=")[2] for text in arguments if text.startswith("model="))]
    recipes = sorted(path.stem for path in (CONF / "experiment" / "train").glob("[!_]*.yaml"))
    check("model", model, one_of(recipes))
    return [f"{TRAIN}/{model}" if text == TRAIN else text for text in arguments]


def quoted(text: str) -> str:
    """Return an argument `prompt=…` so that Hydra takes all of it as one text; any other as it is."""
    key, equals, value = text.partition("=")
    if key != "prompt" or not equals or value.startswith("${"):
        return text
    try:
        override = OverridesParser.create().parse_override(text)
        if not override.is_sweep_override() and isinstance(override.value(), str | int | float | None):
            return text
    except HydraException:
        pass
    return f"{key}='{resume.escaped(value)}'"


def check_readable(text: str) -> None:
    """Raise UserError for an argument that Hydra's grammar can't read, with the way to write it."""
    try:
        OverridesParser.create().parse_override(text)
    except HydraException as error:
        if not any(word in str(error) for word in ("Lexer", "token recognition", "mismatched", "extraneous", "viable")):
            return  # Hydra's own words say more
        key, _, value = text.partition("=")
        shown = value if len(value) < 60 else f"{value[:60]}…"
        raise UserError(f"{key}={shown} cannot be read: {QUOTE}, '{key}=\"…\"'") from error

"""Types of settings, written as annotations: `kappa: Fraction`. A value that does not fit is told what does."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from dlmlab.errors import UserError

MOST = 2**31 - 1
"""Largest value of a number without a bound of its own; beyond it tensors and system calls fail in their own ways."""
OPEN = "???"
"""OmegaConf's word for a setting without a value."""


class Limits(NamedTuple):
    """The smallest and the largest allowed value of a number, or length of a list."""

    low: float
    high: float = MOST


Fraction = Annotated[float, Limits(0, 1)]
NonNegativeFloat = Annotated[float, Limits(0)]
NonNegativeInt = Annotated[int, Limits(0)]
PositiveInt = Annotated[int, Limits(1)]
Seed = Annotated[int, Limits(0, 2**63 - 1)]


def one_of(names: Iterable[object]) -> Any:
    """Return an annotation that allows these values alone."""
    return Literal[tuple(names)]


def list_of(kind: Any) -> Any:
    """Return an annotation that allows a list of at least one value, each of which fits `kind`."""
    return Annotated[list[kind], Limits(1)]


def check(key: str, value: object, kind: Any) -> None:
    """Check a setting against an annotation.

    Args:
        key: The setting's name, for the error.
        value: The setting's value.
        kind: An annotation made of this module's types and Python's own.

    Raises:
        UserError: The value does not fit; a line for each fault.
    """
    if found := faults(key, value, kind):
        raise UserError(*found)


def own_number(value: Any) -> Any:
    """Return a number of numpy's or torch's as Python's own, and anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def check_fields(owner: Any, prefix: str = "") -> None:
    """Check the fields of a dataclass against their annotations; a number of numpy's or torch's becomes Python's own.

    Args:
        owner: The dataclass's instance.
        prefix: What comes before a field's name in an error, such as `decoder.`.

    Raises:
        UserError: Some fields do not fit; a line for each.
    """
    own: Any = type(owner)
    for key in kinds_of(own):
        object.__setattr__(owner, key, own_number(getattr(owner, key)))
    if found := [
        line for key, kind in kinds_of(own).items() for line in faults(prefix + key, getattr(owner, key), kind)
    ]:
        raise UserError(*found)


@cache
def kinds_of(target: Any) -> dict[str, Any]:
    """Return the annotations of a function's or class's parameters, or of a dataclass's fields, by name.

    A parameter without an annotation takes anything; `**` stands for all other names where the target takes such.
    """
    if is_dataclass(target):
        hints = get_type_hints(target, include_extras=True)
        return {field.name: hints[field.name] for field in fields(target)}
    function = inspect.getattr_static(target, "__init__") if inspect.isclass(target) else target
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(target).parameters.values()
    return {"**" if each.kind is each.VAR_KEYWORD else each.name: hints.get(each.name, Any) for each in parameters}


def faults(key: str, value: object, kind: Any) -> list[str]:
    """Return what is wrong with a setting, a line for each fault; an empty list where it fits.

    Args:
        key: What an error calls the setting.
        value: What it was given.
        kind: The annotation that says what it may be.
    """
    if fits(value, kind):
        return []
    if isinstance(value, Mapping) and (part := values_of(kind)) is not None:
        return [line for name, each in value.items() for line in faults(f"{key}.{name}", each, part)]
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        return [line for name, each in value.items() for line in _member_faults(key, name, each, kinds_of(kind))]
    element = element_of(kind)
    if element is not None and isinstance(value, Sequence) and is_list(value) and value:
        wrong = [each for each in value if not fits(each, element)]
        return [f"{key} has {each!r}, which is not {words(element)}{_hint(each, element)}" for each in wrong]
    hint = f": write {key}=[{value}]" if element and fits([value], kind) else _hint(value, kind)
    return [f"{key}={value!r} is not {words(kind)}{hint}"]


def _member_faults(key: str, name: str, value: object, kinds: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with one of the settings of a group, but Hydra's own (`_target_`) and open ones (`???`)."""
    if name.startswith("_"):
        return []
    if name not in kinds:
        return [f"{key}.{name} is not a setting of {key}, which has {', '.join(kinds)}{near(name, kinds)}"]
    return [] if value == OPEN else faults(f"{key}.{name}", value, kinds[name])


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value fits an annotation. Annotations that are not known here allow anything.

    Args:
        value: Any value.
        kind: The annotation.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return all(_within(value, part) if isinstance(part, Limits) else fits(value, part) for part in parts)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin in (list, Sequence):
        return is_list(value) and all(fits(each, parts[0]) for each in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(each, parts[1]) for each in value.values())
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = kinds_of(kind)
        return isinstance(value, Mapping) and not any(
            _member_faults("", name, each, kinds) for name, each in value.items()
        )
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool) and _within(value, Limits(-(2**63), 2**63))
    return isinstance(value, kind) if kind in (bool, str, NoneType) else True


def _within(value: Any, limits: Limits) -> bool:
    """Return whether a number, or the length of a list, keeps to limits; NaN never does."""
    size = len(value) if is_list(value) else value
    return isinstance(size, int | float) and limits.low <= size <= limits.high


def is_list(value: object) -> bool:
    """Return whether a value is a list and no text."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def words(kind: Any) -> str:
    """Describe in words what an annotation allows."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _limited(parts[0], parts[1]) if isinstance(parts[1], Limits) else words(parts[1])
    if origin in (Union, UnionType):
        return " or ".join(words(part) for part in parts)
    if origin is Literal:
        return "one of " * (len(parts) > 1) + ", ".join(map(str, parts))
    if origin in (list, Sequence):
        return f"a list, each {words(parts[0])}"
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", NoneType: "null"}
    return names.get(kind, "a group of settings")


def _limited(kind: Any, limits: Limits) -> str:
    """Describe in words what an annotation with limits allows."""
    low, high = limits
    if get_origin(kind) in (list, Sequence):
        return f"a non-empty {words(kind).removeprefix('a ')}"
    if high < MOST:
        return f"{words(kind)} between {low:g} and {high:g}"
    if kind is int and low in (0, 1):
        return "a positive integer" if low else "a whole number, 0 or more"
    return f"{words(kind)} of at least {low:g}"


def element_of(kind: Any) -> Any:
    """Return the annotation of a list's elements; None for what is no list."""
    if get_origin(kind) in (list, Sequence):
        return get_args(kind)[0]
    return next((found for part in get_args(kind) if (found := element_of(part)) is not None), None)


def values_of(kind: Any) -> Any:
    """Return the annotation of a mapping's values; None for what is no mapping."""
    if get_origin(kind) in (dict, Mapping):
        return get_args(kind)[1]
    return next((found for part in get_args(kind) if (found := values_of(part)) is not None), None)


def _hint(value: Any, kind: Any) -> str:
    """Return what to add to an error: the name that was probably meant, or the largest value of any number."""
    most = max((part.high for part in get_args(kind) if isinstance(part, Limits)), default=MOST)
    if isinstance(value, int | float) and value > most >= MOST:
        return f", {most} at most"
    return near(value, names_of(kind))


def names_of(kind: Any) -> list[str]:
    """Return the names among the allowed values."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return [part for part in parts if isinstance(part, str)]
    return [name for part in parts for name in names_of(part)]


def near(value: object, names: Iterable[str]) -> str:
    """Return a suggestion for a misspelt name, to end an error with; empty where no name is near.

    Args:
        value: What was written.
        names: What could have been meant.
    """
    close = difflib.get_close_matches(value, list(names), n=1) if isinstance(value, str) else []
    return f"; did you mean {close[0]}?" if close else ""


def switch(name: str, value: object) -> bool:
    """Read a switch as YAML and the command line spell it; `force` is on too.

    Args:
        name: What an error calls it.
        value: Any value.

    Raises:
        UserError: The value is something else.
    """
    states = {"true": True, "on": True, "force": True, "false": False, "off": False}
    if str(value).lower() not in states:
        raise UserError(f"{name}={value} is neither on nor off, nor force")
    return states[str(value).lower()]

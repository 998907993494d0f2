"""Frozen dataclasses as JSON objects with a `kind`, read strictly: what stands there is meant, or refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

from edgekit.errors import DataError

LARGEST = 1e30
"""float32 goes little further, and a quotient of two such numbers still has to fit."""


class Kind(Protocol):
    """A dataclass whose objects are told apart by `kind`; `side` is the manifest's key that it stands under."""

    kind: ClassVar[str]
    side: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


K = TypeVar("K", bound=Kind)


def write(value: Kind) -> dict[str, Any]:
    """A JSON-ready object: `kind`, then the fields in order; tuples become lists."""
    return {"kind": value.kind, **{field.name: _plain(getattr(value, field.name)) for field in fields(value)}}


def read(cls: type[K], data: object, where: str, *, complete: bool = True) -> K:
    """The dataclass that `write` wrote.

    Args:
        cls: the dataclass; it checks its own fields.
        data: the parsed JSON.
        where: the path to it, for errors.
        complete: refuse missing keys. False lets the dataclass's defaults stand in for them, as in a configuration file
            that a person writes.

    Raises:
        DataError: a key is missing or unknown, or a value is not what it must be; the text names the path.
    """
    if not isinstance(data, Mapping):
        raise DataError(f"got {type(data).__name__}", where=where, rule="expected an object")
    known = {"kind": True, **{f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls)}}
    for key in data:
        if key not in known:
            raise DataError(f"unknown key {key!r}", where=where, rule=f"only {', '.join(known)}")
    for key, needed in known.items():
        if key not in data and (complete or needed):
            raise DataError("missing", where=f"{where}.{key}", rule=f"each of the keys {', '.join(known)}")
    if data["kind"] != cls.kind:
        raise DataError(f"got {data['kind']!r}", where=f"{where}.kind", rule=repr(cls.kind))
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key != "kind"}
    try:
        return cls(**values)
    except DataError as error:
        # A dataclass names its own fields; whoever reads knows where the object stands.
        place = error.where.replace(cls.side, where, 1)
        raise DataError(error.problem, where=place, rule=error.rule, way_out=error.way_out) from error


def refuse(of: Kind, name: str, rule: str) -> NoReturn:
    """Raise the error of a field out of range."""
    value = getattr(of, name)
    raise DataError(f"got {_plain(value)!r}", where=f"{of.side}.{name}", rule=rule)


def check_choice(of: Kind, name: str, choices: Collection[str]) -> None:
    """Refuse a field that is none of the texts."""
    value = getattr(of, name)
    if not isinstance(value, str) or value not in choices:
        refuse(of, name, f"one of {', '.join(choices)}")


def check_flag(of: Kind, name: str) -> None:
    """Refuse a field that is neither true nor false."""
    if not isinstance(getattr(of, name), bool):
        refuse(of, name, "true or false")


def check_whole(of: Kind, name: str, low: int, high: int, *, optional: bool = False) -> None:
    """Refuse a field that is no integer from `low` to `high`; with `optional`, None is allowed."""
    value = getattr(of, name)
    if not (optional and value is None) and not is_whole(value, low, high):
        refuse(of, name, f"{'null or ' if optional else ''}an integer from {low} to {high}")


def check_number(of: Kind, name: str, low: float = -LARGEST, high: float = LARGEST) -> None:
    """Refuse a field that is no number from `low` to `high`."""
    if not is_number(getattr(of, name), low, high):
        refuse(of, name, f"a number from {low:g} to {high:g}")


def check_text(of: Kind, name: str, *, optional: bool = False, empty: bool = False) -> None:
    """Refuse a field that is no text; with `optional`, None is allowed, and with `empty` a text without characters."""
    value = getattr(of, name)
    if not (optional and value is None) and not (isinstance(value, str) and (value or empty)):
        refuse(of, name, "null or a text" if optional else "a text")


def is_whole(value: object, low: int, high: int) -> bool:
    """Whether `value` is an integer from `low` to `high`; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object, low: float = -LARGEST, high: float = LARGEST) -> bool:
    """Whether `value` is a number from `low` to `high`, which NaN is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return {f.name: getattr(value, f.name) for f in fields(value)} if hasattr(value, "__dataclass_fields__") else value

"""Choices in a builder: what an architecture search may decide, declared where the network is made.

    import edgekit

    def network():
        width = edgekit.choice("width", [16, 32, 64])
        return Net(width)

Outside a search `choice` gives its default, so that the builder is an ordinary function. Inside one it gives what the
search has picked, and the search space is what the builder asked for on its way (define-by-run): a choice that is
reached only under a condition belongs to the space of those networks alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

from edgekit.errors import EdgekitError

Option = int | float | str | bool
T = TypeVar("T", int, float, str, bool)
Pick = Callable[["Choice"], int]
"""Decides: gives the index of the option that is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One declared choice.

    Args:
        name: unique in a builder.
        options: what may be taken.
        default: index of the option that is taken outside a search.

    Raises:
        EdgekitError: there are no options, one is there twice, or one is no number, text or bool.
    """

    name: str
    options: tuple[Option, ...]
    default: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise _wrong(f"the name is {self.name!r}", "edgekit.choice", "a text that is not empty")
        if not self.options:
            raise _wrong("no options", self.where, "at least one option")
        for option in self.options:
            whole = isinstance(option, bool | int | str) or (isinstance(option, float) and math.isfinite(option))
            if not whole:
                raise _wrong(f"the option {option!r}", self.where, "finite numbers, texts and bools")
        if len(set(map(_identity, self.options))) < len(self.options):
            raise _wrong(f"the options {list(self.options)}", self.where, "each option once")

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"edgekit.choice({self.name!r})"

    @property
    def is_ordered(self) -> bool:
        """Whether the options are numbers in rising order: then neighbours are likely to be alike."""
        numbers = [each for each in self.options if isinstance(each, int | float) and not isinstance(each, bool)]
        return len(numbers) == len(self.options) and numbers == sorted(numbers)

    def index(self, value: Option) -> int:
        """The place of `value` among the options; True is not 1.

        Raises:
            EdgekitError: it is none of them.
        """
        found = [index for index, option in enumerate(self.options) if _identity(option) == _identity(value)]
        if not found:
            raise _wrong(f"got {value!r}", self.where, f"one of {', '.join(map(repr, self.options))}")
        return found[0]

    def __str__(self) -> str:
        shown = (f"[{option}]" if index == self.default else str(option) for index, option in enumerate(self.options))
        return f"{self.name}: {' | '.join(shown)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The choices that a builder asked for, in the order in which it did.

    >>> with choosing(lambda choice: 0) as made:
    ...     _ = choice("width", [16, 32], default=32), choice("norm", ["batch", "group"])
    >>> print(made.space)
    width: 16 | [32]
    norm: [batch] | group
    """

    choices: tuple[Choice, ...] = ()

    @property
    def size(self) -> int:
        """How many combinations there are; where choices depend on each other, at most so many networks."""
        return math.prod(len(each.options) for each in self.choices)

    def __str__(self) -> str:
        return "\n".join(map(str, self.choices)) or "no choices"

    def joined(self, other: SearchSpace) -> SearchSpace:
        """This space with the choices of `other` that it lacks.

        Raises:
            EdgekitError: both have a choice of one name with other options.
        """
        known = {each.name: each for each in self.choices}
        for each in other.choices:
            _same(known.setdefault(each.name, each), each)
        return SearchSpace(choices=tuple(known.values()))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "choices": [
                {"name": each.name, "options": list(each.options), "default": each.default} for each in self.choices
            ]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        rows = data["choices"]
        return cls(choices=tuple(Choice(**{**row, "options": tuple(row["options"])}) for row in rows))


class Choosing:
    """A builder under way: what it has asked for, and what it was given."""

    def __init__(self, pick: Pick) -> None:
        self._pick = pick
        self._taken: dict[str, tuple[Choice, int]] = {}

    @property
    def space(self) -> SearchSpace:
        """The choices that were asked for."""
        return SearchSpace(choices=tuple(each for each, _ in self._taken.values()))

    @property
    def values(self) -> dict[str, Option]:
        """What was given, by name."""
        return {name: each.options[index] for name, (each, index) in self._taken.items()}

    def take(self, asked: Choice) -> Option:
        """The option for `asked`: a name that was asked for before gets the same again."""
        if asked.name not in self._taken:
            self._taken[asked.name] = (asked, self._pick(asked))
        first, index = self._taken[asked.name]
        _same(first, asked)
        return first.options[index]


_ACTIVE: ContextVar[Choosing | None] = ContextVar("edgekit_choosing", default=None)


def choice(name: str, options: Sequence[T], *, default: T | None = None) -> T:
    """One of `options`: its default, or inside a search what the search has picked.

    Args:
        name: unique in the builder; the same name with the same options is the same choice and gives the same value.
        options: numbers, texts or bools. Numbers in rising order are searched as a scale, others as kinds.
        default: the option outside a search; the first one without it.

    Raises:
        EdgekitError: there are no options, one is of another type or there twice, the default is none of them, or the
            name stands for another choice already.

    >>> choice("width", [16, 32, 64], default=32)
    32
    """
    # A text is a sequence, too: of letters, which nobody means.
    given = (options,) if isinstance(options, str) else tuple(options)
    asked = Choice(name=name, options=given)
    if default is not None:
        asked = Choice(name=name, options=given, default=asked.index(default))
    active = _ACTIVE.get()
    taken = asked.options[asked.default] if active is None else active.take(asked)
    return cast("T", taken)


@contextmanager
def choosing(pick: Pick) -> Iterator[Choosing]:
    """Within this, `choice` gives what `pick` decides; what was asked is in what this yields.

    >>> with choosing(lambda choice: len(choice.options) - 1) as made:
    ...     choice("depth", [1, 2, 3])
    3
    >>> made.values
    {'depth': 3}
    """
    made = Choosing(pick)
    token = _ACTIVE.set(made)
    try:
        yield made
    finally:
        _ACTIVE.reset(token)


def replaying(values: Mapping[str, Option]) -> Pick:
    """A `Pick` that gives `values` again, and the default where a name is not among them."""
    return lambda asked: asked.index(values[asked.name]) if asked.name in values else asked.default


def _identity(option: object) -> tuple[str, object]:
    return type(option).__name__, option


def _same(first: Choice, second: Choice) -> None:
    if first != second:
        raise _wrong(f"{second}, but before {first}", second.where, "one name for one choice")


def _wrong(problem: str, where: str, rule: str) -> EdgekitError:
    return EdgekitError(problem, where=where, rule=rule, way_out="mend the builder")

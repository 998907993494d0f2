"""What each pruning decision would cost and save, those taken marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from edgekit.report.charts.axes import Label, Scale, padded, placed, x_axis, y_axis
from edgekit.report.charts.svg import NARROW, WIDE, Chart, Drawing, Element, circle, key, line, path, square

MOST = 600
"""Points that are drawn; beyond them, those that cost least for what they save."""
LABELLED = 6
LOG_FROM = 15.0
"""Ratio of the largest to the smallest damage from which a logarithmic axis shows more."""


def decisions(choices: Sequence[Mapping[str, Any]], taken: Collection[str]) -> Chart | None:
    """Damage against latency saved of each decision; None where nothing was priced.

    Args:
        choices: `choices` of a run's priced decisions.
        taken: the texts of those that the chosen file holds.
    """
    if not choices:
        return None
    drawn = ranked(choices, taken)[:MOST]
    names = ", ".join(sorted(taken)) or "none"
    return Chart(
        name="decisions",
        title="Damage against latency saved of each pruning decision",
        description=f"{len(choices)} decisions were priced, each alone. Taken: {names}.",
        wide=_draw(drawn, taken, WIDE, 410),
        narrow=_draw(drawn, taken, NARROW, 350),
        keys=[
            key("taken", circle(11, 7, 5, "mark accent")),
            key("not taken", circle(11, 7, 5, "mark hollow")),
            key("removes a block", square(11, 7, 5, "mark hollow")),
            key("narrower and narrower widths of one place", line(0, 7, 22, 7, "link")),
        ],
    )


def ranked(choices: Sequence[Mapping[str, Any]], taken: Collection[str]) -> list[Mapping[str, Any]]:
    """Those taken first, then by damage for each microsecond saved; what saves nothing comes last."""

    def price(choice: Mapping[str, Any]) -> tuple[bool, bool, float]:
        gain = choice["gain_ms"]
        return choice["text"] not in taken, gain <= 0, choice["damage"] / gain if gain > 0 else -gain

    return sorted(choices, key=price)


def _draw(choices: Sequence[Mapping[str, Any]], taken: Collection[str], width: int, height: int) -> Drawing:
    left, right, top, bottom = 48.0, width - 14.0, 34.0, height - 46.0
    gains = [choice["gain_ms"] for choice in choices]
    low, high = padded(gains, zero=True)
    x = Scale(low=low, high=high, start=left, end=right)
    y = _damage([choice["damage"] for choice in choices], bottom, top)
    micro = max(gains) < 1
    found = x_axis(
        x,
        top=top,
        bottom=bottom,
        title=f"latency saved in int8, {'µs' if micro else 'ms'} (more is better)",
        most=4 if width == NARROW else 8,
        factor=1e3 if micro else 1.0,
    )
    scale = ", logarithmic" if y.log else ""
    found += y_axis(y, left=left, right=right, title=f"damage: rise of the loss without recovery{scale}", most=7)
    found += _paths(choices, x, y)
    for choice in reversed(choices):
        found.append(_mark(choice, choice["text"] in taken, x, y))
    labels = [
        Label(
            x=x(choice["gain_ms"]),
            y=y(choice["damage"]),
            words=_short(choice["text"]),
            look="label strong" if choice["text"] in taken else "label",
            rank=index,
        )
        for index, choice in enumerate(choices[: len(taken) + LABELLED])
    ]
    places = [(x(choice["gain_ms"]), y(choice["damage"])) for choice in choices]
    found += placed(labels, room=(left, top, width, bottom), points=places)
    return Drawing(width=width, height=height, elements=found)


def _damage(values: Sequence[float], bottom: float, top: float) -> Scale:
    low, high = min(values), max(values)
    if low > 0 and high / low > LOG_FROM:
        return Scale(low=low / 1.3, high=high * 1.3, start=bottom, end=top, log=True)
    low, high = padded(values, zero=True)
    return Scale(low=low, high=high, start=bottom, end=top)


def _paths(choices: Sequence[Mapping[str, Any]], x: Scale, y: Scale) -> list[Element]:
    by_subject: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for choice in choices:
        by_subject[choice["subject"]].append((x(choice["gain_ms"]), y(choice["damage"])))
    return [path(sorted(places), "link") for places in by_subject.values() if len(places) > 1]


def _mark(choice: Mapping[str, Any], taken: bool, x: Scale, y: Scale) -> Element:  # noqa: FBT001 - a fact of the mark
    tip = (
        f"{choice['text']}{' (taken)' if taken else ''}: damage {choice['damage']:.3f}, "
        f"saves {1e3 * choice['gain_ms']:.1f} µs and {choice.get('gain_bytes', 0) / 1e3:.1f} kB"
    )
    form = square if choice["text"].startswith("remove ") else circle
    return form(
        x(choice["gain_ms"]),
        y(choice["damage"]),
        6 if taken else 4.5,
        f"mark {'accent' if taken else 'hollow'}",
        tip=tip,
    )


def _short(words: str) -> str:
    return words.removeprefix("remove ").replace("->", "→")

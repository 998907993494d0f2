"""Quantities as people write and read them."""

from __future__ import annotations

import re

from edgekit.errors import EdgekitError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration_s(text: str, where: str = "duration") -> float:
    """Seconds in a duration such as `90s`, `15m`, `1h30m` or a bare number of seconds.

    Raises:
        EdgekitError: `text` is not a positive duration.

    >>> parse_duration_s("1h30m")
    5400.0
    """
    cleaned = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", cleaned)
    if re.fullmatch(r"\d+(?:\.\d+)?", cleaned):
        seconds = float(cleaned)
    elif parts and "".join(number + unit for number, unit in parts) == cleaned:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    else:
        seconds = 0.0
    if seconds <= 0:
        raise EdgekitError(f"got {text!r}", where=where, rule="a positive duration", way_out="write 90s, 15m or 1h30m")
    return seconds


def format_duration(seconds: float) -> str:
    """`seconds` for people.

    >>> format_duration(4.21), format_duration(192), format_duration(7260)
    ('4.2 s', '3 min 12 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def format_bytes(size: int) -> str:
    """`size` in the decimal units of the SI, as disks and app stores count.

    >>> format_bytes(999), format_bytes(283_100), format_bytes(1_500_000)
    ('999 B', '283.1 kB', '1.5 MB')
    """
    if size < 1000:
        return f"{size} B"
    if size < 1_000_000:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e6:.1f} MB" if size < 1_000_000_000 else f"{size / 1e9:.2f} GB"


def format_latency(ms: float) -> str:
    """A latency for people.

    >>> format_latency(0.1834), format_latency(12.345)
    ('183.4 µs', '12.35 ms')
    """
    return f"{ms * 1e3:.1f} µs" if ms < 1 else f"{ms:.2f} ms"


def format_count(count: int) -> str:
    """A count for people.

    >>> format_count(532), format_count(272_474), format_count(40_800_000)
    ('532', '272.5 k', '40.8 M')
    """
    if count < 1000:
        return str(count)
    return f"{count / 1e3:.1f} k" if count < 1_000_000 else f"{count / 1e6:.1f} M"

"""One decision about a network, with its price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

A = TypeVar("A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Generic[A]):
    """One decision with its price.

    `subject` names what it decides about (a block, a group): of several choices on one subject a plan takes one.
    `damage` is the rise of the loss without any recovery, `gain_ms` the latency and `gain_bytes` the size that the int8
    file loses, all measured alone.
    """

    action: A
    subject: str
    text: str
    damage: float
    gain_ms: float
    gain_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "subject": self.subject,
            "text": self.text,
            "damage": self.damage,
            "gain_ms": self.gain_ms,
            "gain_bytes": self.gain_bytes,
        }

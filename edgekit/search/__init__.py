"""What is best for several aims at once, and how it is looked for."""

from edgekit.search.front import Point, front

__all__ = ["Point", "front"]

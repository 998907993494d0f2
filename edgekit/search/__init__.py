"""What is best for several aims at once, and how it is looked for.

`search` takes a builder with choices (`edgekit.choice`) to a `Front` of trained, measured networks. Its parts: the
trials lie in a study (`study`), `workers` take them from there, a `trial` goes up rungs of rising cost at a `site`
(what was `asked`, and its networks' `speeds` and `trainings`), and the `finalists` are trained in full and measured.
SCALING.md says how far this goes.
"""

from edgekit.search.front import Point, front
from edgekit.search.kinds import ForKind, for_kinds
from edgekit.search.record import Front, Member
from edgekit.search.search import Explored, explore, search, serve
from edgekit.search.settings import SearchSettings
from edgekit.search.warm import warm_start

__all__ = [
    "Explored",
    "ForKind",
    "Front",
    "Member",
    "Point",
    "SearchSettings",
    "explore",
    "for_kinds",
    "front",
    "search",
    "serve",
    "warm_start",
]

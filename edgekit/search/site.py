"""A search as one process sees it: what was asked, and what is measured and trained for it in the run's folder."""

from __future__ import annotations

from functools import cached_property

from edgekit.search.asked import Asked
from edgekit.search.speeds import Speeds
from edgekit.search.trainings import Trainings


class Site(Asked):
    """What was asked, with the speeds and the trainings of its networks on this host."""

    @cached_property
    def speeds(self) -> Speeds:
        """What its networks take before any training."""
        return Speeds(self)

    @cached_property
    def trainings(self) -> Trainings:
        """Its networks with weights."""
        return Trainings(self)

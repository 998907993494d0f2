"""One training of a search in the processes of torchrun: `torchrun -m edgekit.search.ranks JOB.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgekit.search.settings import SearchSettings
from edgekit.search.site import Site
from edgekit.training.ranks import fabric_for
from edgekit.workload import WorkloadConfig


def train(job: Path) -> None:
    """Do the training that `job` describes; every rank computes its share, and rank 0 writes."""
    what = json.loads(job.read_text())
    fabric_for("fp32")  # joins the group, so that a training that picks its precision by measurement agrees on it
    site = Site(
        WorkloadConfig.from_dict(what["workload"]), SearchSettings.from_dict(what["settings"]), Path(what["root"])
    )
    site.trainings.train(
        what["choices"],
        what["rung"],
        None if what["before"] is None else Path(what["before"]),
        Path(what["folder"]),
        deadline_s=what["deadline_s"],
    )


if __name__ == "__main__":
    train(Path(sys.argv[1]))

"""A bundle at the end of training, in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.compress.budget import Budget
from edgekit.compress.job import compress
from edgekit.compress.settings import Settings
from edgekit.units import parse_duration_s


def BundleCallback(  # noqa: N802 - Lightning's callbacks are classes, and are written like this
    *,
    out: str | Path,
    max_drop: float | None = 0.5,
    time: str = "15m",
    settings: Settings | None = None,
    library: str | None = None,
    **workload: Any,
) -> Any:
    """A callback for a Trainer of `lightning` or `pytorch_lightning`: compresses what was trained and saves a bundle.

    Selection and test data are those of the validation and test loaders. The run with its report lies beside the bundle
    in `NAME.run`; killed, the same training script goes on there.

    Args:
        out: the bundle's folder, such as "net.edgekit"; one that is there is replaced.
        max_drop: most that the metric may lose, in its points.
        time: how long it may take: 90s, 15m.
        settings: everything else that `compress` takes.
        library: `lightning` or `pytorch_lightning`; the one that is imported already unless given.
        workload: for `from_lightning`: test, labels, preprocessing, task, network, name.

    Raises:
        EdgekitError: `time` is no duration.
        WorkloadError: Lightning is not installed.
    """
    from edgekit.workload.handover import at_train_end, from_lightning

    place = Path(out)
    budget = Budget(max_drop=max_drop, time_s=parse_duration_s(time, "time"))

    def finish(module: nn.Module, datamodule: Any) -> None:
        found = from_lightning(module, datamodule, **workload)
        report = compress(found, budget, settings or Settings(), out=place.with_suffix(".run"))
        if place.exists():
            shutil.rmtree(place)
        shutil.copytree(report.bundle, place)

    return at_train_end(finish, library=library)

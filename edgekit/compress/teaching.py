"""How the recoveries of a run compute, and who answers for the original in them: measured once, before the first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgekit.compress.fitting import fit_config, training_data
from edgekit.compress.run import Run
from edgekit.compress.stages import File
from edgekit.distill import DistillConfig
from edgekit.store import write_json
from edgekit.transfer import StandIn, Teaching, fastest_teacher


def teaching(run: Run, files: Sequence[File]) -> Teaching:
    """Measure how a recovery computes fastest, and which of the original and `files` answers fastest.

    Args:
        run: of which this is a stage.
        files: made of the original, the plainest first.
    """
    settings, example = run.settings, run.workload.example(2)
    stand_ins = [
        StandIn(
            name=file.stage,
            path=file.path,
            spec=file.spec,
            target=settings.target if "plan" in file.details else "any",
        )
        for file in files
    ]

    def make(folder: Path) -> None:
        found = fastest_teacher(
            run.model,
            stand_ins,
            student=run.model,
            train=training_data(run.workload, settings),
            task=run.workload.task,
            config=DistillConfig(fit=fit_config(settings)),
            example=example,
        )
        write_json(folder / "teaching.json", found.to_dict())

    key = {
        "files": [file.sha256 for file in files],
        "settings": {name: getattr(settings, name) for name in ("batch_size", "augment", "optimizer")},
    }
    about = json.loads((run.stage("teaching", key, make) / "teaching.json").read_text())
    return Teaching.from_dict(about, run.model, stand_ins, example)

"""What compression changed besides the mean, taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.tasks import Task
from edgekit.validate.behaviour.answers import Kind, read
from edgekit.validate.behaviour.calibration import Calibration, calibration
from edgekit.validate.behaviour.churn import Churn, churn, disagreement
from edgekit.validate.behaviour.classes import ClassChange, class_change
from edgekit.validate.behaviour.gates import Figures
from edgekit.validate.behaviour.pixels import Inputs
from edgekit.validate.behaviour.quantities import OutputChange, output_change
from edgekit.validate.behaviour.robustness import Robustness
from edgekit.validate.behaviour.samples import BrokenSamples, broken_samples
from edgekit.validate.scoring import Score

NOT_ASKED = "not measured: no time was given for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """A compressed file against its original on the same samples.

    Args:
        reference: name of the original.
        candidate: name of the compressed file.
        kind: what the answers are: `classes`, `positions`, `labels` or `quantities`.
        n: samples whose outputs were kept, which all but the robustness is taken from.
        scored: samples that were scored.
        classes: the metric of each class.
        churn: answers that changed.
        calibration: confidence against correctness of all answers.
        outputs: how far the outputs of quantities moved.
        robustness: both under perturbations.
        broken_samples: what broke.
        missing: for each part that is None, why.
        notes: what was assumed.
    """

    reference: str
    candidate: str
    kind: Kind | str
    n: int
    scored: int
    classes: ClassChange | None
    churn: Churn
    calibration: Calibration | None
    outputs: OutputChange | None
    robustness: Robustness | None
    broken_samples: BrokenSamples
    missing: dict[str, str]
    notes: tuple[str, ...]

    @property
    def figures(self) -> Figures:
        """What gates look at."""
        return Figures(
            churn=self.churn.changed,
            worst_class_drop=None if self.classes is None else self.classes.largest_drop,
            ece_rise=None if self.calibration is None else self.calibration.rise,
            robustness_drop=None if self.robustness is None else self.robustness.drop,
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; its shape is in the package's docstring."""
        parts = {name: getattr(self, name) for name in ("classes", "calibration", "outputs", "robustness")}
        return {
            "reference": self.reference,
            "candidate": self.candidate,
            "kind": self.kind,
            "n": self.n,
            "scored": self.scored,
            **{name: None if part is None else part.to_dict() for name, part in parts.items()},
            "churn": self.churn.to_dict(),
            "broken_samples": self.broken_samples.to_dict(),
            "missing": dict(self.missing),
            "notes": list(self.notes),
        }


def compare_behaviour(
    reference: Score,
    candidate: Score,
    task: Task,
    *,
    names: tuple[str, str] = ("original", "compressed"),
    labels: Sequence[str] = (),
    inputs: Inputs | None = None,
    robustness: Robustness | str = NOT_ASKED,
    seed: int = 0,
) -> Behaviour:
    """Say what changed between two scores of the same samples; nothing is run again.

    Args:
        reference: the original's score.
        candidate: the compressed file's.
        task: what both were scored by.
        names: of the two files.
        labels: names of the classes.
        inputs: the data they were scored on, for the pictures of broken samples.
        robustness: what the verb of this name found, or why there is nothing.
        seed: of every resampling.

    Raises:
        DataError: outputs are NaN or infinite, or the scores are not of the same samples.
    """
    pair = read(reference, candidate, task)
    missing = {} if isinstance(robustness, Robustness) else {"robustness": robustness}
    n = min(len(reference.outputs[0]), len(candidate.outputs[0]))
    notes = []
    if n < reference.n:
        notes.append(f"the outputs of the first {n} of {reference.n} samples were kept")
    if isinstance(pair, str):
        missing |= {"classes": pair, "calibration": pair}
        kept = [tuple(output[:n] for output in score.outputs) for score in (candidate, reference)]
        changes = disagreement(np.asarray(task.agreement(kept[0], kept[1])))
        notes.append("churn counts the samples that the task's agreement says are answered otherwise")
    else:
        missing |= {"outputs": f"the task {task.name} answers with {pair.reference.kind}, not with quantities"}
        changes = churn(pair, seed=seed)
        notes += [pair.note] if pair.note else []
    known = None if isinstance(pair, str) else pair
    found = None if known is None else class_change(known, labels, seed=seed)
    if found is not None and (empty := sum(row.n == 0 for row in found.rows)):
        notes.append(f"{empty} of {len(found.rows)} classes have no sample")
    return Behaviour(
        reference=names[0],
        candidate=names[1],
        kind="quantities" if known is None else known.reference.kind,
        n=n,
        scored=reference.n,
        classes=found,
        churn=changes,
        calibration=None if known is None else calibration(known, seed=seed),
        outputs=output_change(reference, candidate) if known is None else None,
        robustness=robustness if isinstance(robustness, Robustness) else None,
        broken_samples=broken_samples(reference, candidate, known, names=labels, inputs=inputs),
        missing=missing,
        notes=tuple(notes),
    )


def figures_of(reference: Score, candidate: Score, task: Task, *, seed: int = 0) -> Figures:
    """The figures that gates look at, robustness aside: what a decision on the selection split needs.

    Raises:
        DataError: as for `compare_behaviour`.
    """
    pair = read(reference, candidate, task)
    if isinstance(pair, str):
        return Figures(churn=disagreement(np.asarray(task.agreement(candidate.outputs, reference.outputs))).changed)
    return Figures(
        churn=churn(pair, seed=seed).changed,
        worst_class_drop=class_change(pair, seed=seed).largest_drop,
        ece_rise=calibration(pair, seed=seed).rise,
    )

"""What a search was asked for, as one process sees it: workload, networks, and the stages that are kept of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.choices import Option, choosing, replaying
from edgekit.errors import EdgekitError, WorkloadError
from edgekit.export import Exported, export
from edgekit.export.flat import name_inputs
from edgekit.progress import Progress, silent
from edgekit.search.settings import SearchSettings
from edgekit.search.warm import warm_start
from edgekit.store import Store, code_digest, key_digest, locking
from edgekit.training import augmentation_for
from edgekit.validate import SelectionJudge
from edgekit.workload import Workload, WorkloadConfig, derive, digest_of, isolated, load_model, load_workload, try_out

Values = Mapping[str, Option]


class Asked:
    """What was asked, on this host.

    Args:
        config: the builder (its `model`), the data and the task, as text.
        settings: the search's.
        root: the run's folder; workers that share it share what they have made.
        baseline_ms: of the baseline's file where the search began; None measures it.
        progress: told all along.

    Raises:
        WorkloadError: a reference is wrong, or what it names does not fit the data.
    """

    def __init__(
        self,
        config: WorkloadConfig,
        settings: SearchSettings,
        root: Path,
        *,
        baseline_ms: float | None = None,
        progress: Progress = silent,
    ) -> None:
        self.config, self.settings, self.root, self.progress = config, settings, root, progress
        self.baseline_ms = baseline_ms
        with isolated(settings.seed):
            self.workload = load_workload(config)
        if self.workload.task.target_is_reference:
            raise WorkloadError(
                f"the task {self.workload.task.name} takes the original model's answers for targets",
                where="task",
                rule="a search trains new networks: there is no original model",
                way_out="give data with labels",
            )
        self.teacher = self._given(settings.teacher)
        if settings.teacher is not None:
            try_out(self._as_model(settings.teacher))
        given = self._given(settings.weights)
        self.weights = None if given is None else given.state_dict()
        self.default = self._default_values()
        self.augment = augmentation_for(
            settings.augment,
            self.workload.splits.train,
            task=self.workload.task,
            model=self.network(self.default),
            seed=settings.seed,
        )
        self._store = Store(root / "stages")
        self._identity = {
            "code": code_digest(),
            "settings": settings.of_a_network(),
            "builder": self._source(config.model),
            "splits": self.workload.splits.digests(),
            "task": self.workload.task.name,
            "teacher": None if self.teacher is None else digest_of(self.teacher),
            "weights": None if given is None else digest_of(given),
        }

    @property
    def identity(self) -> str:
        """A digest of all that decides what a trial comes to."""
        return key_digest({**self._identity, "settings": self.settings.of_a_trial()})

    @property
    def judge(self) -> SelectionJudge:
        """What says of a file whether it is within the limits on drop and behaviour."""
        settings = self.settings
        return SelectionJudge(
            workload=self.workload,
            max_drop=settings.max_drop,
            gates=settings.gates,
            margin=settings.margin,
            threads=settings.threads,
            seed=settings.seed,
            progress=self.progress,
        )

    def network(self, values: Values) -> nn.Module:
        """The untrained network of these choices, the same in every process, with given weights where they fit."""
        with choosing(replaying(values)):
            return self.build()

    def build(self) -> nn.Module:
        """What the builder makes under the choices in force, seeded."""
        with isolated(derive(self.settings.seed, 7)):
            made = self.workload.model()
        return made if self.weights is None else warm_start(made, self.weights).model

    def stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of a stage, made unless it is there."""
        return self._store.build(name, {**self._identity, "stage": name, "inputs": dict(key)}, make)

    def common_stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """As `stage`, for what all workers need: those that share this folder wait for the one that makes it."""
        with locking(self.root / "claims" / f"{name}.lock", wait=True):
            return self.stage(name, key, make)

    def claimed(self, values: Values) -> AbstractContextManager[bool]:
        """Whether no other worker that shares this folder is at work on the network; it is claimed within this."""
        return locking(self.root / "claims" / f"{key_digest(dict(values))[:16]}.lock")

    @functools.cached_property
    def input_names(self) -> list[str]:
        """The inputs of all files are called as the default network calls them, so that all can be fed alike."""
        return list(name_inputs(self.network(self.default), self.workload.example(2)))

    def exported(self, model: nn.Module, path: Path, *, progress: Progress = silent) -> Exported:
        """Write the fp32 ONNX file of a network."""
        return export(
            model,
            self.workload.example(2),
            path,
            dynamic=self.workload.dynamic or "batch",
            input_names=self.input_names,
            progress=progress,
        )

    def _default_values(self) -> dict[str, Option]:
        with choosing(replaying({})) as made:
            self.workload.model()
        if not made.space.choices:
            raise EdgekitError(
                "the builder asks for no choice",
                where=self.config.model,
                rule="edgekit.choice(name, options) wherever the search may decide",
                way_out='write for instance width = edgekit.choice("width", [16, 32, 64])',
            )
        return made.values

    def _as_model(self, reference: str) -> Workload:
        """The workload with another model than the builder's."""
        factory = load_model(self.config.resolved(reference)).factory
        return replace(self.workload, factory=factory, model_reference=reference)

    def _given(self, reference: str | None) -> nn.Module | None:
        return None if reference is None else self._as_model(reference).model()

    def _source(self, reference: str) -> str:
        """What tells one builder from another: the file's bytes, or the name of the module's function."""
        resolved = self.config.resolved(reference)
        path = Path(resolved.rpartition(":")[0])
        return f"{reference} {key_digest({'text': path.read_text()})}" if path.suffix == ".py" else resolved

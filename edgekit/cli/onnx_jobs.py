"""ONNX files in the place of a model: what commands need of one, where no PyTorch model is at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import EdgekitError, did_you_mean
from edgekit.spec import Feeds, IOSpec

if TYPE_CHECKING:  # They need torch, and a file need not wait for it.
    from edgekit.data import Source
    from edgekit.device.processing import Postprocessing, Preprocessing
    from edgekit.workload import Workload

CALIBRATION = 512
"""Samples that set int8 ranges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxJob:
    """ONNX files with data, as the command line names them.

    Args:
        files: the files; the first is the baseline.
        data: a reference, as `edgekit.data.read_source` or `edgekit.workload.load_data` takes it; None without.
        task: name of a task.
        labels: names of the classes.
        preprocessing: how raw input becomes the files' input.
        postprocessing: what becomes of the outputs.
        vocabulary: what these name.
        limit: use so many samples.
        seed: of every draw.
        name: for folders and reports.
    """

    files: tuple[Path, ...]
    data: str | None
    task: str = "classification"
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    postprocessing: Postprocessing | None = None
    vocabulary: Path | None = None
    limit: int | None = None
    seed: int = 0
    name: str = "model"

    @property
    def processing_files(self) -> Mapping[str, Path | bytes]:
        """What pre- and postprocessing name, by its path in a bundle."""
        from edgekit.device.processing import vocabulary_file

        listed = vocabulary_file(self.preprocessing, self.postprocessing)
        return {} if listed is None or self.vocabulary is None else {listed: self.vocabulary}

    def only_file(self) -> Path:
        """The file, where a command takes one.

        Raises:
            EdgekitError: there are several.
        """
        if len(self.files) != 1:
            raise EdgekitError(f"got {len(self.files)} files", where="command line", rule="one fp32 ONNX file")
        return self.files[0]

    def source(self) -> Source:
        """The data, read without torch wherever they lie in files.

        Raises:
            EdgekitError: no data are named, or they are not what they seem.
        """
        from edgekit.data import as_image, as_text, read_source, relabelled
        from edgekit.data.labels import classes_of

        if self.data is None:
            raise EdgekitError(
                "no data",
                where="--data",
                rule="samples as the file takes them",
                way_out="name a folder of images, an .npz, a .csv, shards or a function: --data samples.npz",
            )
        image, text = as_image(self.preprocessing), as_text(self.preprocessing, self.vocabulary)
        found = read_source(self.data, image=image, text=text)
        if found is None:
            from edgekit.workload import load_data

            return load_data(self.data, image=image)  # type: ignore[return-value]  # map-style, so it has a length
        known = self.labels if set(classes_of(found)) <= set(self.labels) else ()
        return relabelled(found, known, "--data") if known else found

    def feeds(self, spec: IOSpec, *, batch: int = 32, limit: int = CALIBRATION) -> Iterator[Feeds]:
        """The data as inputs by name, in batches.

        Raises:
            EdgekitError: no data are named, or they do not fit the file.
        """
        from edgekit.data import feeds_in_batches

        count = limit if self.limit is None else min(limit, self.limit)
        return feeds_in_batches(self.source(), spec, batch=batch, limit=count, seed=self.seed)

    def workload(self, spec: IOSpec) -> Workload:
        """The data and the task as a workload, whose model nobody can ask for.

        Raises:
            EdgekitError: the task is unknown, or no data are named.
        """
        from edgekit.cli.completing import TASKS as NAMES
        from edgekit.data.labels import classes_of
        from edgekit.workload import Splits, Workload, as_dataset
        from edgekit.workload.config import TASKS
        from edgekit.workload.sources import Tensors

        if self.task not in TASKS:
            raise EdgekitError(
                f"task is {self.task!r}",
                where="--task",
                rule=f"one of {', '.join(NAMES)}, where there is no model",
                way_out=did_you_mean(self.task, NAMES),
            )
        task, source = TASKS[self.task](), self.source()
        data: Any = as_dataset(Tensors(source))
        if self.limit is not None and self.limit < len(data):
            import numpy as np
            from torch.utils.data import Subset

            drawn = np.random.default_rng(self.seed).permutation(len(data))[: self.limit]
            data = Subset(data, sorted(map(int, drawn)))
        if task.target_is_reference:
            data = _answered(self.files[0], data, spec)
        return Workload(
            name=self.name,
            model_reference=str(self.files[0]),
            factory=_no_model,
            task=task,
            splits=Splits(train=data, calibration=data, selection=data, test=data, seed=self.seed),
            labels=self.labels or tuple(classes_of(source)),
            preprocessing=self.preprocessing,
        )

    def halved(self, spec: IOSpec) -> Workload:
        """The workload with one half of the data, drawn at random, to calibrate with and the other to decide by.

        Raises:
            EdgekitError: as for `workload`, or there are fewer than two samples.
        """
        import numpy as np
        from torch.utils.data import Subset

        whole = self.workload(spec)
        data: Any = whole.splits.test
        if len(data) < 2:
            raise EdgekitError(f"{len(data)} sample", where="--data", rule="a half to calibrate with, one to decide by")
        drawn = np.random.default_rng(self.seed).permutation(len(data)).tolist()
        first, second = drawn[: len(data) // 2], drawn[len(data) // 2 :]
        splits = replace(
            whole.splits, calibration=Subset(data, sorted(first)[:CALIBRATION]), selection=Subset(data, sorted(second))
        )
        return replace(whole, splits=splits)


def _no_model() -> Any:
    raise EdgekitError(
        "there is no PyTorch model",
        where="command line",
        rule="ONNX files, which are all that this command was given",
        way_out="name the model: net.py:model --train … --test …",
    )


def _answered(file: Path, data: Any, spec: IOSpec) -> Any:
    """The data's inputs with what the file says of them as targets."""
    import numpy as np

    from edgekit.validate import feeds_of, signature_of
    from edgekit.validate.scoring import answers_of
    from edgekit.workload import loader

    answer = answers_of(file, spec=spec)
    batches = loader(data, 64, model=signature_of(spec))
    answers = np.concatenate([answer(feeds_of(batch, spec))[0] for batch in batches])
    inputs = [item[0] if isinstance(item, tuple) else item for item in (data[index] for index in range(len(data)))]
    return list(zip(inputs, map(np.asarray, answers), strict=True))

"""Batches as a pure function of (seed, step): whatever the number of workers, and wherever a run was interrupted."""

from __future__ import annotations

import multiprocessing
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, default_collate

from edgekit.errors import DataError
from edgekit.workload.batch import Batch, Signature, as_batch
from edgekit.workload.randomness import derive, isolated

PREFETCH = 4
"""Batches that each worker keeps ready."""
RAISED = "the dataset's __getitem__ raised"


@dataclass(frozen=True, slots=True)
class _Failure:
    """What went wrong in a worker, carried to the process that asked."""

    problem: str
    where: str
    rule: str
    way_out: str

    def raised(self) -> DataError:
        return DataError(self.problem, where=self.where, rule=self.rule, way_out=self.way_out)


class Stream(Dataset[Any]):
    """The endless sequence of a data set's batches: batch `step` belongs to epoch `step // len(stream)`.

    Every epoch has its own order where `shuffle` is set. A batch is fetched with torch's, numpy's and Python's global
    generators seeded for that batch alone, so augmentations that draw from them repeat exactly.

    Args:
        dataset: map-style: `len(dataset)` and `dataset[i]`; `__getitems__` and a `collate` attribute are used if there.
        model: whose signature decides how a batch is passed, or that `Signature`.
        batch_size: samples in one step, over all ranks together.
        shuffle: a new order every epoch.
        seed: of the order and of the augmentations.
        drop_last: leave out what does not fill a batch; a data set smaller than one batch is one batch.
        limit: use only so many samples, evenly spaced.
        rank: this process.
        world: processes; each gets every `world`-th sample of a batch.

    Raises:
        DataError: the data set is empty or cannot be indexed.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        model: Callable[..., Any] | Signature,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        limit: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        size = size_of(dataset)
        if not size or batch_size < 1:
            raise DataError(
                f"{size} samples in batches of {batch_size}",
                where="the data",
                rule="at least one sample, batches of at least one",
                way_out="check the data set's path and the batch size",
            )
        self.dataset = dataset
        self.signature = model if isinstance(model, Signature) else Signature.of(model)
        count = size if limit is None else min(limit, size)
        self._chosen = np.arange(count) * size // count
        self.batch_size = min(batch_size, count)
        self.shuffle, self.seed, self.rank, self.world = shuffle, seed, rank, world
        self._steps = count // self.batch_size if drop_last else -(-count // self.batch_size)
        self._order = (-1, self._chosen)
        self._collate = collate_of(dataset)

    def __len__(self) -> int:
        """Steps in one epoch."""
        return self._steps

    def indexes(self, step: int) -> list[int]:
        """Which samples this rank gets in step `step`."""
        epoch, position = divmod(step, self._steps)
        if self.shuffle and self._order[0] != epoch:
            generator = torch.Generator().manual_seed(derive(self.seed, epoch))
            self._order = (epoch, self._chosen[torch.randperm(len(self._chosen), generator=generator).numpy()])
        batch = self._order[1][position * self.batch_size : (position + 1) * self.batch_size]
        return cast("list[int]", batch[self.rank :: self.world].tolist())

    def batch(self, step: int) -> Batch:
        """Batch `step`, made in this process.

        Raises:
            DataError: the data set raised, or its items cannot be stacked or passed to the model.
        """
        batch = self[step]
        if isinstance(batch, _Failure):
            raise batch.raised()
        return batch

    def __getitem__(self, step: int) -> Batch | _Failure:
        """Batch `step`; a failure is returned and not raised, so that it crosses from a worker as it is."""
        indexes = self.indexes(step)
        with isolated(derive(self.seed, step, self.rank, 1)):
            try:
                items = _fetch(self.dataset, indexes)
            except Exception as error:  # noqa: BLE001 - whatever the user's code raises
                return _blame(error, self.dataset, RAISED)
            try:
                return as_batch(self._collate(items), self.signature)
            except DataError as error:
                return _Failure(error.problem, error.where, error.rule, error.way_out)
            except Exception as error:  # noqa: BLE001 - torch and the user's collate function raise anything
                return _blame(error, self.dataset, "the samples of a batch cannot be put together")

    def run(self, start: int, stop: int, *, workers: int = 0) -> Generator[Batch]:
        """Batches `start` to `stop` in order; with `workers` > 0 other processes make them ahead of time.

        Raises:
            DataError: as in `batch`, or a worker died.
        """
        if workers == 0:
            for step in range(start, stop):
                yield self.batch(step)
            return
        iterator = _iterate(self, start, stop, workers)
        try:
            while (batch := _next(iterator)) is not None:
                if isinstance(batch, _Failure):
                    raise batch.raised()
                yield batch
        finally:
            # Its end stops the workers: now, and not when somebody lets go of an exception's traceback.
            del iterator


@dataclass(frozen=True, slots=True)
class Loader:
    """One pass over a data set as `Batch`es; every pass gives the same ones."""

    stream: Stream
    workers: int

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Batch]:
        return self.stream.run(0, len(self.stream), workers=self.workers)


def loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    model: Callable[..., Any] | Signature,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    limit: int | None = None,
    drop_last: bool = False,
) -> Loader:
    """The batches of `dataset` for `model`; iterate as often as wanted, the batches are the same every time.

    Args:
        dataset: map-style data set.
        batch_size: samples a batch; the last batch may be smaller unless `drop_last`.
        model: whose `forward` decides how a batch is passed.
        shuffle: in an order drawn from `seed`, else in the data's own.
        seed: of the order and of augmentations that draw from torch's, numpy's or Python's global generator.
        workers: processes that load ahead; the batches do not depend on it.
        limit: use only so many samples, evenly spaced over the data set.
        drop_last: leave out what does not fill a batch.

    Raises:
        DataError: the data set is empty.

    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.arange(5.0)[:, None], torch.arange(5))
    >>> [batch.target.tolist() for batch in loader(data, 2, model=torch.nn.Linear(1, 1))]
    [[0, 1], [2, 3], [4]]
    """
    stream = Stream(dataset, model, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, limit=limit)
    return Loader(stream, workers)


def can_fork() -> bool:
    """Whether worker processes cost nothing to start here: Linux forks, others would pickle the data set."""
    return sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()


def size_of(dataset: Dataset[Any]) -> int:
    """Samples in a map-style data set.

    Raises:
        DataError: it has no length.
    """
    try:
        return len(cast("Any", dataset))
    except Exception as error:
        raise DataError(
            f"len() of the {type(dataset).__name__} fails: {error}",
            where="the dataset",
            rule="a map-style Dataset: __len__ and __getitem__",
            way_out="implement __len__, or return the samples as a list",
        ) from error


def item_of(dataset: Dataset[Any], index: int) -> Any:
    """One item of a map-style data set.

    Raises:
        DataError: the data set raised.
    """
    try:
        return dataset[index]
    except Exception as error:
        raise _blame(error, dataset, RAISED).raised() from error


def collate_of(dataset: Dataset[Any]) -> Callable[[list[Any]], Any]:
    """What stacks items into a batch: the data set's own `collate` (looked for below subsets), or torch's default."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return getattr(dataset, "collate", default_collate)


class _Steps(Sampler[int]):
    def __init__(self, start: int, stop: int) -> None:
        self.steps = range(start, stop)

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def _iterate(stream: Stream, start: int, stop: int, workers: int) -> Iterator[Any]:
    with warnings.catch_warnings():
        # Workers run on the cores there are, and torch advises against more; Python 3.12 warns of threads at a fork.
        warnings.filterwarnings("ignore", message=".*worker processes.*", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        return iter(
            DataLoader(
                stream,
                batch_size=None,
                sampler=_Steps(start, stop),
                num_workers=workers,
                collate_fn=_as_it_is,
                prefetch_factor=PREFETCH,
                multiprocessing_context="fork" if can_fork() else None,
                generator=torch.Generator(),  # Its own, so that the global generator is left alone.
            )
        )


def _next(iterator: Iterator[Any]) -> Any:
    try:
        return next(iterator, None)
    except RuntimeError as error:
        raise DataError(
            f"a process that loads data died: {error}",
            where="data loading",
            rule="workers live until the last batch",
            way_out="memory or /dev/shm is full, or the data set crashed; try workers=0",
        ) from error


def _as_it_is(batch: Any) -> Any:
    return batch


def _fetch(dataset: Dataset[Any], indexes: list[int]) -> list[Any]:
    many = getattr(dataset, "__getitems__", None)
    if many is not None:
        return list(many(indexes))
    return [dataset[index] for index in indexes]


def _blame(error: Exception, dataset: Dataset[Any], what: str) -> _Failure:
    if isinstance(error, DataError):
        return _Failure(error.problem, error.where, error.rule, error.way_out)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    place = f"{own[-1].filename}:{own[-1].lineno} in {own[-1].name}" if own else f"a {type(dataset).__name__}"
    return _Failure(
        f"{what}: {type(error).__name__}: {error}",
        place,
        "every index from 0 to len - 1 gives an item, all of the same structure and shapes",
        "run dataset[i] by itself in Python; for items of different lengths give a DataLoader with a collate_fn",
    )

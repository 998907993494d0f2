"""Those who answer: a network, a function, several of them, and one whose answers are kept on disk."""

from __future__ import annotations

import copy
import hashlib
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset

from edgekit.distill.layers import listening
from edgekit.progress import Progress, Step, silent
from edgekit.store import writing
from edgekit.tasks import outputs_of
from edgekit.tasks.labels import NO_LABEL
from edgekit.training import in_layout
from edgekit.workload import Batch, loader, size_of

Teacher = nn.Module | Callable[[Batch], Any]
"""A network, or a function from a batch to what a network would return for it."""

KEY_BYTES = 16
ASK_BATCH = 128
CACHE_BYTES = 1 << 30


class Frozen:
    """A network as a teacher: a copy in eval mode without gradients that follows batches to their device and layout."""

    def __init__(self, teacher: nn.Module, layers: Sequence[str] = ()) -> None:
        self.layers = layers
        self.model = copy.deepcopy(teacher).eval().requires_grad_(requires_grad=False)
        self._placed: tuple[torch.device, bool] | None = None

    def __call__(self, batch: Batch) -> tuple[Any, dict[str, Tensor]]:
        """The answers, and the outputs of `layers` by name."""
        leaf = batch.leaves()[0]
        images = leaf.ndim == 4 and leaf.is_contiguous(memory_format=torch.channels_last)
        if self._placed != (leaf.device, images):
            self.model = in_layout(self.model.to(leaf.device), channels_last=images)
            self._placed = (leaf.device, images)
        with listening(self.model, self.layers) as heard:
            return batch.call(self.model), heard


class Remembering:
    """A teacher that answers each sample once; what it said is kept in a file and found again by the sample's content.

    It pays where data are fixed (`edgekit.training.is_fixed`): augmented samples never come again. The file grows to
    `limit_bytes` at most; a later training with the same teacher goes on with it. One process at a time writes to it,
    others only read what is there. Answers are kept in float32, in memory too.

    Args:
        teacher: a network, which is left as it is, or a function from a batch to its answers.
        path: the file; one for each teacher.
        limit_bytes: how large it may become.

    Raises:
        StoreError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asked = []
    ...     teacher = Remembering(lambda batch: asked.append(len(batch)) or batch.args[0] * 2, Path(folder) / "answers")
    ...     for rows in ([1.0, 2.0], [2.0, 3.0], [3.0, 1.0]):
    ...         said = teacher(Batch((torch.tensor(rows)[:, None],), {}, None))
    >>> said.tolist(), asked
    ([[6.0], [2.0]], [2, 1])
    """

    def __init__(self, teacher: Teacher, path: Path, *, limit_bytes: int = CACHE_BYTES) -> None:
        if isinstance(teacher, nn.Module):
            frozen = Frozen(teacher)
            self._teacher: Callable[[Batch], Any] = lambda batch: frozen(batch)[0]
        else:
            self._teacher = teacher
        self.path, self.limit_bytes = path, limit_bytes
        self._places: dict[bytes, int] = {}
        self._shapes: list[tuple[int, ...]] = []
        self._spec: pytree.TreeSpec | None = None
        self._values: np.ndarray | None = None
        self._writes = False

    def __call__(self, batch: Batch) -> Any:
        """The answers for a batch, as the teacher gives them; the teacher is asked for samples that are new."""
        leaves = batch.leaves()
        keys = _keys(leaves)
        if self._spec is None:
            return self._first(batch, keys)
        missing = [index for index, key in enumerate(keys) if key not in self._places]
        rows = np.empty((len(keys), self._width), np.float32)
        if missing:
            said = self._rows(self._teacher(_part(batch, missing)))
            rows[missing] = said
            self._keep([keys[index] for index in missing], said)
        known = [index for index in range(len(keys)) if index not in set(missing)]
        if known:
            assert self._values is not None
            rows[known] = self._values[[self._places[keys[index]] for index in known]]
        return self._answer(rows, leaves[0].device)

    def ask(self, data: Dataset[Any], model: Callable[..., Any], *, progress: Progress = silent) -> None:
        """Ask about all samples of `data` now, so that steps of a training take one time from the first on.

        Args:
            data: what will be trained on.
            model: the student, whose signature decides how a batch is passed.
            progress: told after each batch.
        """
        batches = loader(data, ASK_BATCH, model=model)
        for index, batch in enumerate(batches):
            with torch.no_grad():
                self(batch)
            progress(Step("asking the teacher", index + 1, len(batches)))

    def _first(self, batch: Batch, keys: list[bytes]) -> Any:
        answer = self._teacher(batch)
        tensors, self._spec = pytree.tree_flatten(answer)
        self._shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
        self._width = sum(int(np.prod(shape)) for shape in self._shapes)
        self._open()
        new = [index for index, key in enumerate(keys) if key not in self._places]
        self._keep([keys[index] for index in new], self._rows(answer)[new])
        return answer

    def _open(self) -> None:
        """Take over what an earlier training left; a last record that is not whole is dropped."""
        import fcntl

        self._record = KEY_BYTES + 4 * self._width
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, self._file)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._writes = True
        except OSError:  # Another rank or training writes.
            self._writes = False
        count = os.fstat(self._file).st_size // self._record
        if self._writes:
            os.ftruncate(self._file, count * self._record)
        whole = self.path.read_bytes()[: count * self._record]
        kept = np.frombuffer(whole, np.uint8).reshape(count, self._record)
        self._values = np.ascontiguousarray(kept[:, KEY_BYTES:]).view(np.float32)
        self._places = {row[:KEY_BYTES].tobytes(): index for index, row in enumerate(kept)}

    def _keep(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        assert self._values is not None
        first = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._places}
        room = self.limit_bytes // self._record - len(self._places)
        new = list(first.items())[: max(0, room)]
        if not new or not self._writes:
            return
        with writing(self.path):
            os.write(self._file, b"".join(key + row.astype("<f4").tobytes() for key, row in new))
        place = len(self._places)
        if place + len(new) > len(self._values):
            grown = np.empty((max(1024, 2 * (place + len(new))), self._width), np.float32)
            grown[:place] = self._values[:place]
            self._values = grown
        for offset, (key, row) in enumerate(new):
            self._places[key] = place + offset
            self._values[place + offset] = row

    def _rows(self, answer: Any) -> np.ndarray:
        tensors = pytree.tree_leaves(answer)
        flat = [tensor.detach().float().cpu().reshape(len(tensor), -1) for tensor in tensors]
        return torch.cat(flat, 1).numpy()

    def _answer(self, rows: np.ndarray, device: torch.device) -> Any:
        assert self._spec is not None
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        parts = torch.split(torch.from_numpy(rows).to(device), sizes, 1)
        tensors = [part.reshape(len(rows), *shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return pytree.tree_unflatten(tensors, self._spec)


class Unlabelled(Dataset[Any]):
    """Labelled samples, then those of `extra` without their labels: their target is -100, which no loss on labels sees.

    Args:
        labelled: items (inputs, label), the label an integer.
        extra: items (inputs, anything), or inputs alone where `bare`.
        bare: whether items of `extra` carry no target.

    >>> both = Unlabelled([(torch.zeros(2), 3)], [torch.ones(2)], bare=True)
    >>> both[1]
    (tensor([1., 1.]), -100)
    """

    def __init__(self, labelled: Any, extra: Any, *, bare: bool) -> None:
        self.labelled, self.extra, self.bare = labelled, extra, bare
        self.border = size_of(labelled)
        self._tensors = isinstance(labelled[0][1], Tensor)
        if hasattr(labelled, "collate"):
            self.collate = labelled.collate

    def __len__(self) -> int:
        return self.border + size_of(self.extra)

    def __getitem__(self, index: int) -> Any:
        if index < self.border:
            return self.labelled[index]
        item = self.extra[index - self.border]
        # A batch is stacked out of one kind: numbers, or tensors.
        label = torch.tensor(NO_LABEL) if self._tensors else NO_LABEL
        return (item if self.bare else item[0]), label


def _keys(leaves: Sequence[Tensor]) -> list[bytes]:
    """A digest of each sample's bytes."""
    arrays = [leaf.detach().cpu().contiguous().numpy() for leaf in leaves]
    return [
        hashlib.blake2b(b"".join(array[index].tobytes() for array in arrays), digest_size=KEY_BYTES).digest()
        for index in range(len(arrays[0]))
    ]


def _part(batch: Batch, indexes: Sequence[int]) -> Batch:
    chosen = list(indexes)
    args, kwargs = pytree.tree_map(
        lambda value: value[chosen] if isinstance(value, Tensor) else value, (batch.args, batch.kwargs)
    )
    return Batch(args, kwargs, None)


def logits_of(answer: Any) -> Tensor:
    """The first output as a float tensor."""
    return cast("Tensor", outputs_of(answer)[0]).float()

"""The parity gate: the ONNX file computes what the PyTorch model computes, or there is no export."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.errors import ExportError
from edgekit.export.dimensions import BATCH, Names, resized, sizes_of
from edgekit.export.exported import Parity
from edgekit.export.onnx_file import Runner

RTOL = 1e-3
ATOL_OF_MAX = 1e-5
"""Tolerances: |onnx - torch| <= ATOL_OF_MAX * max|torch| + RTOL * |torch|, for every value."""

ROUNDING, MOST_OF_MAX = 4.0, 1e-2
"""A file that differs by more may still be as right as the model: some networks blow rounding errors up. It passes if
it lies within ROUNDING times of the model's own distance from itself in double precision, and within MOST_OF_MAX *
max|torch| of the model. An Inception-v4 with new weights, for one, lies 1.1e-3 * max|torch| from itself in double
precision, its file 1.5e-3, and the two 2.1e-3 from each other."""

BATCHES = (1, 2, 5)
DRAWS = 3
"""Random inputs at each setting of sizes, each setting with others: a branch that depends on values is then missed only
if a dozen inputs go the same way."""


@dataclass(frozen=True, slots=True)
class Case:
    """One input to compare on: `title` says which for people."""

    title: str
    batch: int | None
    seed: int | None
    sizes: dict[str, int]
    tensors: list[Tensor]


def check_parity(model: nn.Module, run: Runner, tensors: Sequence[Tensor], dimensions: Names) -> Parity:
    """Compare `run` with `model` on the example and on random inputs, at several sizes of the open dimensions.

    Random inputs are made from the example: rows drawn with replacement, floating-point ones with normal noise of the
    example's own spread, cut to its range, so that nothing is fed that the model could never see; integers and booleans
    (tokens, masks) are only drawn.

    Args:
        model: the flat fp32 model; the reference.
        run: runs the ONNX file.
        tensors: the example, in the order of the inputs.
        dimensions: the open dimensions.

    Raises:
        ExportError: an output is NaN or infinite, has another shape or type, or differs by more than the tolerance, and
            by more than rounding in this network explains.
    """
    worst, scale = 0.0, 0.0
    done: list[Case] = []
    for number, sizes in enumerate(settings(model, tensors, dimensions)):
        for case in cases(tensors, dimensions, sizes, range(number * DRAWS, (number + 1) * DRAWS)):
            with torch.no_grad():
                expected = [value.numpy() for value in model(*case.tensors)]
            _finite(expected, "the PyTorch model", case)
            try:
                actual = run([tensor.numpy() for tensor in case.tensors])
            except Exception as error:  # ONNX Runtime's exceptions have no class of their own in common.
                raise ExportError(
                    f"ONNX Runtime fails: {(str(error).splitlines() or [type(error).__name__])[0]}",
                    where=f"parity gate, {case.title}",
                ) from error
            try:
                worst = max(worst, _compare(expected, actual, case))
            except ToleranceError:
                if not _is_rounding(model, case, expected, actual):
                    raise
                worst = max(worst, *(_apart(*pair) for pair in zip(expected, actual, strict=True)))
            scale = max([scale, *(float(np.abs(value).max(initial=0)) for value in expected)])
            done.append(case)
    others = sorted({name for case in done for name in case.sizes if name != BATCH})
    return Parity(
        max_abs_diff=worst,
        max_abs_output=scale,
        batches=tuple(sorted({case.batch for case in done if case.batch is not None})),
        seeds=tuple(sorted({case.seed for case in done if case.seed is not None})),
        sizes={name: tuple(sorted({case.sizes[name] for case in done})) for name in others},
        checks=len(done),
    )


def settings(model: nn.Module, tensors: Sequence[Tensor], dimensions: Names) -> list[dict[str, int]]:
    """The sizes to check at: the example's, every batch size, and another size of each other open dimension.

    Raises:
        ExportError: the model itself takes no other size of a dimension that is to stay open.
    """
    here = sizes_of(tensors, dimensions)
    found = [here]
    for name, size in here.items():
        if name == BATCH:
            others: list[tuple[int, ...]] = [(other,) for other in BATCHES if other != size]
        else:  # One of these will do: twice the size keeps it divisible, half of it stays within learned positions.
            others = [tuple(other for other in (2 * size, size // 2, size - 1) if other > 0)]
        for candidates in others:
            taken = [
                other for other in candidates if _takes(model, resized(tensors, dimensions, {**here, name: other}))
            ]
            if not taken:
                raise ExportError(
                    f"the PyTorch model takes {name} {size} and fails at {', '.join(map(str, candidates))}",
                    where="parity gate",
                    rule="a dimension that is to stay open can have other sizes",
                    way_out="mend forward (sizes from x.shape, not constants), or fix the sizes with dynamic='none'",
                )
            found.append({**here, name: taken[0]})
    return found


def cases(tensors: Sequence[Tensor], dimensions: Names, sizes: dict[str, int], seeds: Sequence[int]) -> Iterator[Case]:
    """The inputs to compare on at these sizes; see `check_parity`."""
    about = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "fixed sizes"
    batch = sizes.get(BATCH)
    yield Case(f"the example at {about}", batch, None, sizes, resized(tensors, dimensions, sizes))
    for seed in seeds:
        varied = resized(_varied(tensors, dimensions, seed), dimensions, sizes)
        yield Case(f"random input (seed {seed}) at {about}", batch, seed, sizes, varied)


def _takes(model: nn.Module, tensors: Sequence[Tensor]) -> bool:
    try:
        with torch.no_grad():
            model(*tensors)
    except Exception:  # noqa: BLE001 - whatever forward raises, it does not take this
        return False
    return True


def _varied(tensors: Sequence[Tensor], dimensions: Names, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = {len(tensor) for tensor, axes in zip(tensors, dimensions, strict=True) if axes.get(0) == BATCH}
    rows = torch.randint(max(counts), (max(counts),), generator=generator) if counts else None
    results = []
    for tensor, axes in zip(tensors, dimensions, strict=True):
        drawn = tensor[rows] if rows is not None and axes.get(0) == BATCH else tensor
        if tensor.is_floating_point() and tensor.numel() and np.unique(tensor.numpy()).size > 2:
            noise = torch.randn(drawn.shape, generator=generator, dtype=torch.float32).to(drawn.dtype)
            spread = tensor.std(correction=0)
            drawn = torch.clamp(drawn + spread * noise, tensor.min(), tensor.max())
        elif tensor.is_floating_point() and tensor.numel() and not tensor.any():
            # An example of nothing but zeros is a placeholder: it says nothing about the range.
            drawn = torch.randn(drawn.shape, generator=generator, dtype=torch.float32).to(drawn.dtype)
        results.append(drawn)
    return results


def _finite(values: Sequence[np.ndarray], who: str, case: Case) -> None:
    for index, value in enumerate(values):
        bad = int(np.size(value) - np.isfinite(value).sum())
        if bad:
            raise ExportError(
                f"{bad} of {np.size(value)} values of output {index} of {who} are NaN or infinite",
                where=f"parity gate, {case.title}",
                rule="every output is finite",
                way_out="look for NaN in the weights and in the example, and for overflow, log of 0 or division by 0",
            )


class ToleranceError(ExportError):
    """Values differ by more than the tolerance."""


def _is_rounding(model: nn.Module, case: Case, expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> bool:
    """Whether the file is about as near to the model in double precision as the model in single precision is."""
    with warnings.catch_warnings():
        # Copying the structure of a model's inputs warns of torch's own deprecations.
        warnings.simplefilter("ignore")
        twin = copy.deepcopy(model).double()
    inputs = [tensor.double() if tensor.is_floating_point() else tensor for tensor in case.tensors]
    try:
        with torch.no_grad():
            exact = [value.numpy() for value in twin(*inputs)]
    except Exception:  # noqa: BLE001 - a forward that names a type does not run in another
        return False
    for truth, want, have in zip(exact, expected, actual, strict=True):
        most = MOST_OF_MAX * float(np.abs(want).max(initial=0.0))
        if not (_apart(truth, have) <= ROUNDING * _apart(truth, want) and _apart(want, have) <= most):
            return False
    return True


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0.0))


def _compare(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray], case: Case) -> float:
    if len(expected) != len(actual):
        raise ExportError(
            f"the file has {len(actual)} outputs, the model {len(expected)}", where=f"parity gate, {case.title}"
        )
    worst = 0.0
    for index, (want, have) in enumerate(zip(expected, actual, strict=True)):
        if want.shape != have.shape or want.dtype != have.dtype:
            raise ExportError(
                f"output {index} is {have.dtype} {list(have.shape)}, PyTorch gives {want.dtype} {list(want.shape)}",
                where=f"parity gate, {case.title}",
                rule="same shape and type at every size",
            )
        _finite([have], "the ONNX file", case)
        if not want.size:
            continue
        difference = np.abs(have.astype(np.float64) - want.astype(np.float64))
        atol = ATOL_OF_MAX * float(np.abs(want).max())
        if not np.allclose(have, want, rtol=RTOL, atol=atol):
            raise ToleranceError(
                f"output {index} differs by {difference.max():.3g} (PyTorch's largest is {np.abs(want).max():.3g})",
                where=f"parity gate, {case.title}",
                rule=f"|onnx - torch| <= {ATOL_OF_MAX:g} * max|torch| + {RTOL:g} * |torch|",
            )
        worst = max(worst, float(difference.max()))
    return worst

"""Precision, memory layout, threads and loading processes, by measurement."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgekit.training.config import Choice, FitConfig
from edgekit.workload import Batch, Stream, can_fork

Objective = Callable[[nn.Module, Batch], Tensor]

ROUNDS = 3
"""Timed steps of each candidate; one more goes before them, since the first step plans kernels."""
WORTH = 0.05
"""How much faster a setting must be to be taken instead of a plainer one."""
HOPELESS = 2.0
"""How many times the best step so far a setting's may take before it is not measured any further: steps in bf16 that
a processor has kernels but no instructions for may take many times as long."""
CROWDED = 0.2
"""How much faster half of the threads must be to be taken: a core that is busy now may be free in a minute."""


def choose(
    model: nn.Module,
    stream: Stream,
    objective: Objective,
    config: FitConfig,
    device: torch.device,
    *,
    precision: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Time a few steps of each setting left open, interleaved, on copies of `model`, and take the fastest.

    fp32 and contiguous is the plainest; another setting must run (LSTMs in bf16 do not on every processor), be 5 %
    faster and give a finite loss. bf16 is not tried on a CPU that PyTorch has no kernels in bf16 for, where it
    computes in loops. `precision` fixes what the caller's Fabric carries. On the CPU threads are halved for
    as long as that makes the steps a fifth faster.

    Raises:
        RuntimeError: PyTorch's, if the plainest setting does not run.
    """
    given = None if config.threads == "auto" else config.threads
    with on_threads(given):
        return _measured(model, stream, objective, config, device, threads=given, precision=precision, clock=clock)


def _measured(
    model: nn.Module,
    stream: Stream,
    objective: Objective,
    config: FitConfig,
    device: torch.device,
    *,
    threads: int | None,
    precision: str | None,
    clock: Callable[[], float],
) -> Choice:
    batches, fetch_s = [], []
    for step in range(ROUNDS + 1):
        begin = clock()
        batches.append(stream.batch(step % max(len(stream), 1)))
        fetch_s.append(clock() - begin)
    candidates = _candidates(config, batches[0], device, precision)
    trials = [_Trial(model, objective, device, precision=kind, channels_last=layout) for kind, layout in candidates]
    times = _timed(trials, batches, clock)
    best, best_s = 0, min(times[0][1:])
    for index in range(1, len(trials)):
        fastest = min(times[index][1:], default=math.inf)
        if trials[index].finite and (fastest < best_s * (1 - WORTH) or not trials[best].finite):
            best, best_s = index, fastest
    if threads is None and device.type == "cpu":
        threads, best_s = _threads(trials[best], batches, best_s, clock)
    load_s = min(fetch_s[1:])
    workers = _workers(config, load_s, best_s)
    kind, layout = candidates[best]
    return Choice(
        precision=kind,
        channels_last=layout,
        workers=workers,
        step_s=best_s + (load_s if workers == 0 else 0.0),
        threads=threads,
    )


def _timed(trials: Sequence[_Trial], batches: Sequence[Batch], clock: Callable[[], float]) -> list[list[float]]:
    """Seconds of each trial's steps, interleaved; fewer of one that does not run or is far behind."""
    times: list[list[float]] = [[] for _ in trials]
    left = list(range(len(trials)))
    for batch in batches:
        for index in tuple(left):
            begin = clock()
            try:
                trials[index].step(batch)
            except RuntimeError:
                if index == 0:
                    raise
                trials[index].finite = False
                left.remove(index)
                continue
            times[index].append(clock() - begin)
        known = [min(times[index][1:], default=math.inf) for index in left]
        left = [index for index, s in zip(left, known, strict=True) if index == 0 or not s > HOPELESS * min(known)]
    return times


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """Have PyTorch compute on so many threads; None changes nothing.

    >>> before = torch.get_num_threads()
    >>> with on_threads(1):
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads(trial: _Trial, batches: Sequence[Batch], step_s: float, clock: Callable[[], float]) -> tuple[int, float]:
    """The number of threads, and seconds of a step with it.

    Threads wait for each other after every operator. Where other work holds a core, each wait may last as long as the
    system leaves that work there: small networks have been seen to train a hundred times as slowly on two threads as
    on one.
    """
    best = torch.get_num_threads()
    while best > 1:
        with on_threads(best // 2):
            times: list[float] = []
            for batch in batches:
                begin = clock()
                trial.step(batch)
                times.append(clock() - begin)
                if len(times) == 2 and times[1] > step_s:  # A large network on free cores is not kept from training.
                    break
        if min(times[1:]) > step_s * (1 - CROWDED):
            break
        best, step_s = best // 2, min(times[1:])
    return best, step_s


def has_bf16_kernels(device: torch.device) -> bool:
    """Whether PyTorch computes in bf16 there with more than loops.

    >>> has_bf16_kernels(torch.device("cuda"))
    True
    """
    if device.type != "cpu":
        return True
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # PyTorch has no public name for what it decides its own kernels by.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def _candidates(config: FitConfig, batch: Batch, device: torch.device, precision: str | None) -> list[tuple[str, bool]]:
    images = any(leaf.ndim == 4 for leaf in batch.leaves())
    wanted = precision or config.precision
    every_kind = ("fp32", "bf16") if has_bf16_kernels(device) else ("fp32",)
    kinds = every_kind if wanted == "auto" else (wanted,)
    layouts: Sequence[bool] = (False, True) if config.channels_last == "auto" else (config.channels_last,)
    if not images:
        layouts = (False,)
    every = [(kind, layout) for kind in kinds for layout in layouts]
    # bf16 kernels want channels-last wherever the layout matters: its contiguous form is not worth a measurement.
    return [pair for pair in every if len(every) < 4 or pair != ("bf16", False)]


def _workers(config: FitConfig, load_s: float, step_s: float) -> int:
    if config.workers != "auto":
        return config.workers
    cores = os.cpu_count() or 1
    if not can_fork() or cores < 2 or load_s < WORTH * step_s:
        return 0
    return min(cores, math.ceil(load_s / step_s))


def in_layout(model: nn.Module, *, channels_last: bool) -> nn.Module:
    """`model` itself, its 4-D parameters laid out channels-last or contiguous; values stay the same.

    >>> in_layout(nn.Conv2d(2, 2, 3), channels_last=True).weight.is_contiguous(memory_format=torch.channels_last)
    True
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(memory_format=layout)  # type: ignore[call-overload,no-any-return] # torch's stub lacks this form


def into_training(model: nn.Module) -> nn.Module:
    """`model` itself in training mode, but for modules all of whose parameters are frozen: those are in evaluation.

    >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    >>> _ = model[0].requires_grad_(False)
    >>> [module.training for module in into_training(model)]
    [False, True]
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
    return model


class _Trial:
    def __init__(
        self, model: nn.Module, objective: Objective, device: torch.device, *, precision: str, channels_last: bool
    ) -> None:
        self.model = into_training(in_layout(copy.deepcopy(model).to(device), channels_last=channels_last))
        self.format = torch.channels_last if channels_last else None
        self.precision, self.objective, self.device = precision, objective, device
        self.finite = True

    def step(self, batch: Batch) -> None:
        self.model.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.objective(self.model, batch.to(device=self.device, memory_format=self.format))
        torch.autograd.backward(loss)
        self.finite = self.finite and math.isfinite(loss.item())

"""One training loop: fine-tuning, recovery after pruning, and distillation differ in their objective alone."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekit.errors import TrainingError
from edgekit.progress import Progress, Step, silent
from edgekit.training.checkpoint import identity_of, read_checkpoint, write_checkpoint
from edgekit.training.choice import Objective, choose, in_layout, into_training, on_threads
from edgekit.training.config import Choice, FitConfig, FitResult, Passed
from edgekit.training.crowding import Crowding
from edgekit.training.memory import reused_memory
from edgekit.training.ranks import fabric_for, precision_of
from edgekit.training.schedule import Pace, learning_rate
from edgekit.workload import (
    Batch,
    Stream,
    derive,
    digest_of,
    generator_states,
    isolated,
    restore_generators,
    size_of,
)

TICK_S = 0.25
PACE_EVERY = 16
"""Steps between looks at the clock when there is a deadline."""
PACE_AFTER = 0.04
"""The number of steps is fixed once this share of the deadline has been trained and timed."""
LATE, EARLY = 0.10, 0.05
"""Only when the rest would take this much longer than what is left, or this much less, is the number of steps changed
again."""
STRETCHED_UNTIL = 0.5
"""Later than that, a training that ends too early is left to: the learning rate is on its way down."""
RESERVE = 0.02
"""Share of the deadline kept for what comes after the last step."""

_OF_THE_MACHINE = ("threads", "workers", "checkpoint_every_s")
"""Settings with which a checkpoint may be continued that was written with others."""


def fit(
    model: nn.Module,
    train: Dataset[Any],
    objective: Objective,
    config: FitConfig,
    *,
    checkpoint: Path | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    rates: Mapping[str, float] | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    deadline_s: float | None = None,
    fabric: Fabric | None = None,
    like: Choice | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FitResult:
    """Train a copy of `model` on `train` to lower `objective`.

    Batches, augmentations and dropout depend on the seed and the step alone. A training that was killed goes on from
    its checkpoint when the same call is made again, and ends with the same weights as one that was never interrupted
    (bit for bit in fp32 on the CPU with a number of threads that `config` names).

    Parameters that require no gradient stay as they are, and modules that have no others stay in evaluation: their
    BatchNorm statistics do not move, their dropout is off.

    Started by torchrun it runs on all ranks: each computes its share of every batch, gradients are averaged, rank 0
    alone writes, and all ranks return the same weights.

    Args:
        model: left as it is.
        train: map-style data set with its own augmentations.
        objective: (model, batch) to a scalar loss, the mean over the batch; it calls the model it is given, once.
        config: the settings.
        checkpoint: file to write every epoch and every `config.checkpoint_every_s`, and to go on from.
        evaluate: called after every `config.evaluate_every` epochs with the model in eval mode on the training's
            device; larger is better.
        rates: factors on the learning rate by parameter name; 1 for what is not named.
        about: what else makes this training the one that it is, such as the settings of `objective`, JSON-ready; a
            checkpoint that was written with anything else is refused.
        progress: ticks about four times a second with loss, learning rate and images/s.
        deadline_s: seconds for the whole training, over all processes that work on it. The first steps are timed,
            then the schedule is stretched over as many steps as fit (`config.epochs` is the most).
        fabric: carries device, ranks and precision instead of the one made here.
        like: how an earlier training of such a network on such data computed (`FitResult.choice`): so does this one,
            and nothing is measured first, which takes a good part of a short training.
        clock: seconds; a parameter for tests.

    Raises:
        TrainingError: nothing to train, the loss is NaN or infinite, or the checkpoint is of another training.
        DataError: the data cannot be loaded.

    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.linspace(-1, 1, 64)[:, None], torch.linspace(-2, 2, 64)[:, None])
    >>> result = fit(
    ...     nn.Linear(1, 1),
    ...     data,
    ...     lambda m, b: ((b.call(m) - b.target) ** 2).mean(),
    ...     FitConfig(epochs=40, batch_size=16),
    ... )
    >>> abs(result.model.weight.item() - 2) < 0.1
    True
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TrainingError("no parameter requires a gradient", where="model", rule="something to train")
    if config.patience is not None and evaluate is None:
        raise TrainingError(
            f"patience is {config.patience}", where="FitConfig", rule="only with `evaluate`, which says what is better"
        )
    if deadline_s is not None and not deadline_s > 0:
        raise TrainingError(f"deadline_s is {deadline_s!r}", where="fit", rule="a positive number of seconds")
    with isolated(derive(config.seed, 2)), reused_memory():
        training = _Training(
            model,
            train,
            objective,
            config,
            checkpoint=checkpoint,
            evaluate=evaluate,
            rates=rates or {},
            about=about or {},
            progress=progress,
            deadline_s=deadline_s,
            fabric=fabric,
            like=like,
            clock=clock,
        )
        return training.run()


def setting_for(model: nn.Module, train: Dataset[Any], objective: Objective, config: FitConfig) -> Choice:
    """How `fit` would compute this training, by a few steps of each setting that `config` leaves open.

    Trainings of such networks on such data take it as `like`, and measure nothing any more.

    Raises:
        TrainingError: nothing to train on.
        DataError: the data cannot be loaded.

    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.ones(8, 1), torch.ones(8, 1))
    >>> config = FitConfig(epochs=1, batch_size=4, precision="fp32", threads=1)
    >>> setting_for(nn.Linear(1, 1), data, lambda m, b: (b.call(m) - b.target).abs().mean(), config).precision
    'fp32'
    """
    fabric = fabric_for("fp32")
    with isolated(derive(config.seed, 4)), reused_memory():
        return choose(model, _stream(train, model, config, fabric), objective, config, fabric.device)


def _stream(train: Dataset[Any], model: nn.Module, config: FitConfig, fabric: Fabric) -> Stream:
    return Stream(
        train,
        model,
        batch_size=config.batch_size,
        shuffle=True,
        seed=config.seed,
        drop_last=True,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )


class _Training:
    """The state of one training, which is what a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        train: Dataset[Any],
        objective: Objective,
        config: FitConfig,
        *,
        checkpoint: Path | None,
        evaluate: Callable[[nn.Module], float] | None,
        rates: Mapping[str, float],
        about: Mapping[str, Any],
        progress: Progress,
        deadline_s: float | None,
        fabric: Fabric | None,
        like: Choice | None,
        clock: Callable[[], float],
    ) -> None:
        self.objective, self.config, self.path = objective, config, checkpoint
        self.evaluate, self.progress, self.deadline_s, self.clock = evaluate, progress, deadline_s, clock
        self.rates = rates
        self.begin = clock()
        self.identity = identity_of(
            {
                "config": {k: v for k, v in config.to_dict().items() if k not in _OF_THE_MACHINE},
                "samples": size_of(train),
                "initial": digest_of(model),
                "trained": sorted(name for name, value in model.named_parameters() if value.requires_grad),
                "rates": dict(rates),
                "about": dict(about),
            }
        )
        saved = read_checkpoint(checkpoint, self.identity)
        self.fabric = fabric or fabric_for("fp32")
        self.stream = _stream(train, model, config, self.fabric)
        self.choice = self._chosen(model, saved, like, given=fabric)
        if fabric is None and self.choice.precision != "fp32":
            self.fabric = fabric_for(self.choice.precision)
        self.format = torch.channels_last if self.choice.channels_last else None
        self._prepare(copy.deepcopy(model).float())
        self.step, self.before_s, self.paced = 0, 0.0, False
        self.pace = Pace(steps=max(1, round(config.epochs * len(self.stream))))
        self.most = self.pace.steps
        self.history: list[Passed] = []
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.pending: list[Tensor] = []
        self.losses: list[float] = []
        if saved is not None:
            self._restore(saved)

    def run(self) -> FitResult:
        if self.deadline_s is not None and self.step == 0:
            # A first guess; it is replaced once real steps have been timed.
            self._fit_into(self.choice.step_s)
        if self.step == 0:
            self._save()
        first, loop_begin = self.step, self.clock()
        batches = self.stream.run(self.step, self.most, workers=self.choice.workers)
        crowding = self._crowding()
        with on_threads(self.choice.threads), closing(batches):
            self._loop(batches, crowding, first, loop_begin)
        loop_s = self.clock() - loop_begin
        done = self.step - first
        model = self._finished()
        return FitResult(
            model=model,
            history=tuple(self.history),
            seconds=self._elapsed_s(),
            choice=replace(self.choice, threads=self.choice.threads or torch.get_num_threads()),
            steps=self.step,
            epochs_done=self.step / len(self.stream),
            images_per_s=done * self.stream.batch_size / loop_s if done and loop_s > 0 else 0.0,
        )

    def _loop(self, batches: Generator[Batch], crowding: Crowding | None, first: int, loop_begin: float) -> None:
        ticked = saved = loop_begin
        ticked_step = self.step
        while self.step < self.pace.steps and not self._out_of_patience():
            rate = learning_rate(self.config.schedule, self.config.learning_rate, self.pace.progress(self.step))
            batch = next(batches)
            begin = self.clock()
            self._advance(batch, rate)
            now = self.clock()
            if crowding is not None:
                torch.set_num_threads(crowding.after(now - begin, now))
            if now - ticked >= TICK_S or self.step == self.pace.steps:
                self._collect()
                images = (self.step - ticked_step) * self.stream.batch_size / max(now - ticked, 1e-9)
                figures = {"loss": self.losses[-1], "lr": rate, "images_per_s": images}
                self.progress(Step("training", self.step, self.pace.steps, figures))
                ticked, ticked_step = now, self.step
            if self.deadline_s is not None and self.step % PACE_EVERY == 0:
                self._mind_the_deadline((now - loop_begin) / (self.step - first))
            if self.step % len(self.stream) == 0 or self.step == self.pace.steps:
                self._end_epoch(rate)
                self._save()
                saved = self.clock()
            elif self.path is not None and now - saved >= self.config.checkpoint_every_s:
                self._save()
                saved = self.clock()

    def _crowding(self) -> Crowding | None:
        """What takes threads away and gives them back, where their number is left open and there is more than one."""
        threads, most = self.choice.threads, torch.get_num_threads()
        if self.config.threads != "auto" or threads is None or most < 2:
            return None
        return Crowding(min(threads, most), most=most, step_s=self.choice.step_s, now=self.clock())

    def _advance(self, batch: Batch, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        batch = batch.to(device=self.fabric.device, memory_format=self.format)
        with self.fabric.autocast():
            loss = self.objective(self.model, batch)
        self.fabric.backward(loss)
        if self.config.clip_norm is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.pending.append(loss.detach())

    def _collect(self) -> None:
        """Fetch the losses of the last steps; waiting for each at its own step would stall a GPU."""
        values = torch.stack(self.pending).float().tolist() if self.pending else []
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is {value} at step {self.step - len(values) + offset + 1} of {self.pace.steps}",
                    where="training",
                    rule="the loss stays finite",
                    way_out="lower the learning rate, set clip_norm=1.0 or precision='fp32'; look for NaN in the data",
                )
        self.losses.extend(values)
        self.pending.clear()

    def _mind_the_deadline(self, step_s: float) -> None:
        assert self.deadline_s is not None
        left_s = self.deadline_s * (1 - RESERVE) - self._elapsed_s()
        due = not self.paced and self._elapsed_s() >= PACE_AFTER * self.deadline_s
        rest_s = (self.pace.steps - self.step) * step_s
        late = rest_s > max(left_s, 0.0) * (1 + LATE)
        early = rest_s < left_s * (1 - EARLY) and self.pace.progress(self.step) < STRETCHED_UNTIL
        off = late or (early and self.pace.steps < self.most)
        if self.fabric.broadcast(due or (self.paced and off)):
            self._fit_into(step_s)
            self.paced = True

    def _fit_into(self, step_s: float) -> None:
        assert self.deadline_s is not None
        left_s = self.deadline_s * (1 - RESERVE) - self._elapsed_s()
        steps = min(self.most, self.step + max(int(left_s / max(step_s, 1e-9)), 0 if self.step else 1))
        self.pace = self.pace.until(int(self.fabric.broadcast(steps)), at=self.step)

    def _end_epoch(self, rate: float) -> None:
        self._collect()
        metric = None
        epoch = -(-self.step // len(self.stream))
        if self.evaluate is not None and (epoch % self.config.evaluate_every == 0 or self.step == self.pace.steps):
            bare = self.model.module.eval()
            with isolated(derive(self.config.seed, 3)), torch.no_grad():
                metric = float(self.fabric.broadcast(self.evaluate(bare) if self.fabric.is_global_zero else 0.0))
            into_training(bare)
            if self.best is None or metric > self.best[0]:
                self.best = (metric, _on_cpu(self.model.state_dict()))
        self.history.append(
            Passed(
                epoch=epoch,
                step=self.step,
                loss=sum(self.losses) / max(len(self.losses), 1),
                learning_rate=rate,
                seconds=self._elapsed_s(),
                metric=metric,
            )
        )
        self.losses.clear()

    def _out_of_patience(self) -> bool:
        metrics = [entry.metric for entry in self.history if entry.metric is not None]
        if self.config.patience is None or not metrics:
            return False
        return len(metrics) - 1 - metrics.index(max(metrics)) >= self.config.patience

    def _finished(self) -> nn.Module:
        best = self.config.keep == "best" and self.best is not None
        state = self.best[1] if best and self.best is not None else _on_cpu(self.model.state_dict())
        # Ranks keep BatchNorm statistics of their own shares: all of them return those of rank 0.
        state = self.fabric.broadcast(state)
        finished = self.blank
        finished.load_state_dict(state)
        return finished.eval()

    def _chosen(
        self, model: nn.Module, saved: dict[str, Any] | None, like: Choice | None, *, given: Fabric | None
    ) -> Choice:
        if saved is not None:
            return Choice(**saved["choice"])
        if like is not None:
            return like
        choice: Choice | None = None
        if self.fabric.is_global_zero:
            with isolated(derive(self.config.seed, 4)):
                choice = choose(
                    model,
                    self.stream,
                    self.objective,
                    self.config,
                    self.fabric.device,
                    precision=None if given is None else precision_of(given),
                    clock=self.clock,
                )
        chosen = self.fabric.broadcast(choice)
        assert chosen is not None
        return chosen

    def _prepare(self, model: nn.Module) -> None:
        self.blank = copy.deepcopy(model).cpu()
        model = into_training(in_layout(model, channels_last=self.choice.channels_last).to(self.fabric.device))
        optimizer = _optimizer(model, self.config, self.fabric.device, self.rates)
        self.model, self.optimizer = self.fabric.setup(model, optimizer)

    def _elapsed_s(self) -> float:
        return self.before_s + self.clock() - self.begin

    def _save(self) -> None:
        if self.path is None:
            return
        self._collect()
        if self.fabric.is_global_zero:
            state = {
                "identity": self.identity,
                "choice": {name: getattr(self.choice, name) for name in Choice.__slots__},
                "pace": self.pace.to_dict(),
                "paced": self.paced,
                "step": self.step,
                "seconds": self._elapsed_s(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generators": generator_states(),
                "history": [{name: getattr(entry, name) for name in Passed.__slots__} for entry in self.history],
                "losses": list(self.losses),
                "best": self.best,
            }
            write_checkpoint(self.path, state)

    def _restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.pace, self.paced = Pace(**saved["pace"]), saved["paced"]
        self.step, self.before_s = saved["step"], saved["seconds"]
        self.history = [Passed(**entry) for entry in saved["history"]]
        self.losses, self.best = list(saved["losses"]), saved["best"]
        restore_generators(saved["generators"])


def _optimizer(
    model: nn.Module, config: FitConfig, device: torch.device, rates: Mapping[str, float]
) -> torch.optim.Optimizer:
    together: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # Normalization layers and biases: decay would pull scales to 0 without regularizing anything.
            together.setdefault((parameter.ndim <= 1, rates.get(name, 1.0)), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": 0.0 if bare else config.weight_decay, "factor": factor}
        for (bare, factor), parameters in sorted(together.items(), key=lambda entry: entry[0])
    ]
    fused = device.type in ("cpu", "cuda")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=fused)


def _on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}

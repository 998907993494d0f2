"""Fine-tuning: a trained network learns another task, phase by phase; each phase is a `fit` or a linear probe."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekit.distill import reestimate_batchnorm
from edgekit.errors import DataError, TrainingError
from edgekit.progress import Progress, Step, silent
from edgekit.store import Store, code_digest, write_atomic, write_json
from edgekit.tasks import Task, outputs_of
from edgekit.training import Augmentation, FitConfig, augmentation_for, augmented, fit, is_fixed
from edgekit.transfer.classes import Classes, counts_of, few, targets_of
from edgekit.transfer.config import FinetuneConfig, Finetuned, Phase
from edgekit.transfer.head import Head, find_head, with_head
from edgekit.transfer.probe import FEATURE_BYTES, features_of, probe
from edgekit.transfer.saved import WEIGHTS, save_network
from edgekit.transfer.stages import rates_of, stages_of
from edgekit.transfer.weights import Fitting, fit_weights
from edgekit.validate import score_torch
from edgekit.workload import Batch, Workload, digest_of, loader, size_of
from edgekit.workload.weights import read_weights

EARLY_SHARE = 0.5
"""Of the epochs (and the time) of a gradual unfreezing, this share goes to all phases before the last one."""
LEAST_S = 0.1
"""Left for a phase for which there is no time any more."""
NORM_BATCH, NORM_SAMPLES = 128, 1024
"""For the statistics of BatchNorm."""
PHASE = "phase.json"


def finetune(
    workload: Workload,
    config: FinetuneConfig | None = None,
    *,
    out: str | Path,
    weights: Path | None = None,
    reference: str | None = None,
    time_s: float | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Finetuned:
    """Teach the network of `workload` the classes of its data.

    A new head takes the place of the old one, and BatchNorm of what will be trained gets the statistics of the new data
    (Y. Li et al., *Adaptive Batch Normalization*, 2018). The head begins as the best linear layer for what the body
    gives (a linear probe, on features that are computed once), then the body is trained, its stages at rates that fall
    towards the input. Phases end early where the selection split says so; the best weights by that split are kept,
    those from before a phase too. The test split is scored once, at the end.

    Everything is kept below `out`; the same call goes on where it was interrupted, with the same result.

    Args:
        workload: network, data and task; the network may have been trained on other classes. Load it with
            `load_workload(config, tried=False)`, since its answers do not fit the data yet.
        config: how to go about it.
        out: folder for `weights.safetensors`, `model.py`, `report.json` and `report.md`.
        weights: a .safetensors or .pt file that the network starts from, instead of the weights that it comes with.
        reference: the function that makes the network, for `model.py`; the workload's own without it.
        time_s: seconds for the training phases; schedules are fitted into them.
        progress: told all along.
        clock: seconds; a parameter for tests.

    Raises:
        TrainingError: the head cannot be found or replaced, weights do not fit, or a training diverged.
        DataError: classes or samples are missing; they are named.
        StoreError: `out` cannot be written.
    """
    root = Path(out)
    store = Store(root / "stages")
    with store.locked():
        run = _Run(
            workload,
            config or FinetuneConfig(),
            store,
            weights=weights,
            time_s=time_s,
            progress=progress,
            clock=clock,
        )
        done = run.result()
        save_network(
            root,
            done.model,
            reference=reference or workload.model_reference,
            head=None if run.config.keep_head else done.head,
            outputs=done.outputs,
        )
        write_json(root / "report.json", done.to_dict())
        write_atomic(root / "report.md", done.to_markdown())
    return done


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What a phase trains, from which stage on, and its share of epochs and time."""

    name: str
    first: int
    share: float


class _Run:
    def __init__(
        self,
        workload: Workload,
        config: FinetuneConfig,
        store: Store,
        *,
        weights: Path | None,
        time_s: float | None,
        progress: Progress,
        clock: Callable[[], float],
    ) -> None:
        self.workload, self.config, self.store = workload, config, store
        self.task, self.time_s, self.progress, self.clock = workload.task, time_s, progress, clock
        if self.task.target_is_reference:
            raise TrainingError(
                f"the task is {self.task.name}",
                where="finetune",
                rule="labels to learn from; with this task the network's own answers are the reference",
                way_out="name another task, such as classification",
            )
        start = workload.model()
        self.fitting: Fitting | None = None
        if weights is not None:
            self.fitting = fit_weights(start, read_weights(weights), where=str(weights))
        self.classes, self.train, self.augmented = self._data(start)
        self.example = next(iter(loader(self.train, 2, model=start, seed=config.seed)))
        self.head, self.network = self._headed(start)
        self.stages = stages_of(self.network, self.example, self.head)
        if config.freeze > len(self.stages):
            names = ", ".join(stage.name for stage in self.stages)
            raise TrainingError(
                f"freeze is {config.freeze}",
                where="freeze",
                rule=f"at most {len(self.stages)}, since the stages are {names}",
                way_out="method='probe' trains the head alone",
            )
        self.network = self._settled(self.network)
        self.identity = {
            "code": code_digest(),
            "config": config.to_dict(),
            "splits": workload.splits.digests(),
            "time_s": time_s,
            "start": digest_of(self.network),
        }

    def result(self) -> Finetuned:
        """Go through all phases, or take those that are there."""
        phases: list[Phase] = []
        best: tuple[nn.Module, float] | None = None
        for network, phase in self._phases():
            if best is None or phase.kept:
                best = (network, phase.metric)
            phases.append(phase)
        assert best is not None
        model = best[0].requires_grad_(requires_grad=True).eval()
        common: dict[str, Any] = {"seed": self.config.seed, "progress": self.progress}
        return Finetuned(
            model=model,
            head=self.head,
            outputs=self.classes.outputs,
            counts=counts_of(self.classes.names, self.classes.counts),
            fitting=self.fitting,
            stages=self.stages,
            frozen=len(self.stages) if self.config.method == "probe" else self.config.freeze,
            augmented=self.augmented,
            phases=phases,
            selection=score_torch(model, self.workload.splits.selection, self.task, **common),
            test=score_torch(model, self.workload.splits.test, self.task, **common),
        )

    # What there is before any training

    def _data(self, model: nn.Module) -> tuple[Classes, Dataset[Any], Augmentation]:
        config, splits = self.config, self.workload.splits
        train = splits.train
        classes = Classes.of(train, self.task, model=model, names=self.workload.labels)
        if config.shots is not None:
            classes.need(config.shots)
            train = few(train, config.shots, model=model, seed=config.seed)
            classes = replace(classes, counts=(config.shots,) * len(classes.counts))
        if self.task.name == "classification":
            for name, part in (("selection", splits.selection), ("test", splits.test)):
                _check_known(classes, part, name, model)
        kind = augmentation_for(config.augment, train, task=self.task, model=model, seed=config.seed)
        return classes, augmented(train, kind), kind

    def _headed(self, start: nn.Module) -> tuple[Head, nn.Module]:
        head = find_head(start, self.example, name=self.config.head)
        if not self.config.keep_head:
            return head, with_head(start, head, self.classes.outputs, self.example, seed=self.config.seed)
        if head.outputs != self.classes.outputs:
            raise TrainingError(
                f"the head {head.name!r} has {head.outputs} outputs, the data {self.classes.outputs} classes",
                where="keep_head",
                rule="one output for each class",
                way_out="let a new head take its place: without --keep-head",
            )
        return head, copy.deepcopy(start)

    def _settled(self, network: nn.Module) -> nn.Module:
        """BatchNorm of all that will be trained, with the statistics of the new data.

        Training normalizes by these. A head that was fitted to features under the old ones would be far off at once,
        and its gradients would spoil the body.
        """
        if self.config.method == "probe":
            return network
        frozen = {name.rpartition(".")[0] for stage in self.stages[: self.config.freeze] for name in stage.parameters}
        batches = loader(
            self.train,
            NORM_BATCH,
            model=network,
            shuffle=True,
            seed=self.config.seed,
            limit=NORM_SAMPLES,
            drop_last=True,
        )
        return reestimate_batchnorm(network, batches, chosen=lambda name: name not in frozen).train(network.training)

    # Phases

    def _phases(self) -> Iterator[tuple[nn.Module, Phase]]:
        network, metric = self.network, -math.inf
        begin, spent = self.clock(), 0.0
        if self.config.method != "full":
            whole = _Plan(name="head", first=len(self.stages), share=1.0)
            if self.head.last and self._features_fit():
                network, phase = self._probed(network)
            else:
                network, phase = self._trained(network, whole, metric, self.time_s)
            metric, spent = phase.metric, phase.seconds
            yield network, phase
        plans = self._plans()
        for plan in plans:
            left_s = None
            if self.time_s is not None:
                # What an interrupted call has spent counts as well.
                left_s = max(self.time_s - max(spent, self.clock() - begin), LEAST_S)
                left_s = left_s if plan is plans[-1] else min(left_s, plan.share * self.time_s)
            trained, phase = self._trained(network, plan, metric, left_s)
            spent += phase.seconds
            yield trained, phase
            if phase.kept:
                network, metric = trained, phase.metric

    def _plans(self) -> list[_Plan]:
        last, first = len(self.stages), self.config.freeze
        if self.config.method == "probe" or first == last:
            return []
        whole = _Plan(name="all" if first == 0 else f"from {self.stages[first].name}", first=first, share=1.0)
        if self.config.method != "gradual" or last - first < 2:
            return [whole]
        share = EARLY_SHARE / (last - first - 1)
        early = [
            _Plan(name=f"from {self.stages[index].name}", first=index, share=share)
            for index in range(last - 1, first, -1)
        ]
        return [*early, replace(whole, share=1 - EARLY_SHARE)]

    def _probed(self, network: nn.Module) -> tuple[nn.Module, Phase]:
        def make(folder: Path) -> None:
            begin = self.clock()
            views = self.config.views if not is_fixed(self.train, network, seed=self.config.seed) else 1
            features, targets = features_of(
                network, self.head, self.train, views=views, seed=self.config.seed, progress=self.progress
            )
            held_out = features_of(
                network, self.head, self.workload.splits.selection, seed=self.config.seed, progress=self.progress
            )
            found = probe(features, targets, self.task, outputs=self.classes.outputs, held_out=held_out)
            twin = copy.deepcopy(network)
            layer = twin.get_submodule(self.head.name)
            assert isinstance(layer, nn.Linear)
            with torch.no_grad():
                layer.weight.copy_(found.weight)
                if layer.bias is not None:
                    layer.bias.copy_(found.bias)
            self._keep(
                folder,
                twin,
                Phase(
                    name="probe",
                    trained=found.weight.numel() + found.bias.numel(),
                    metric=found.metric if layer.bias is not None else self._metric(twin),
                    kept=True,
                    seconds=self.clock() - begin,
                    details={"strength": found.strength, "views": views, "features": len(features)},
                ),
            )

        return self._stage("probe", network, {}, make)

    def _trained(
        self, network: nn.Module, plan: _Plan, before: float, deadline_s: float | None
    ) -> tuple[nn.Module, Phase]:
        head = {f"{self.head.name}.{name}" for name, _ in network.get_submodule(self.head.name).named_parameters()}
        chosen = head.union(*(stage.parameters for stage in self.stages[plan.first :]))
        network = copy.deepcopy(network)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in chosen)
        sign = 1.0 if self.task.higher_is_better else -1.0
        settings = self._fitting(plan.share)

        def told(step: Step) -> None:
            self.progress(replace(step, work=f"training {plan.name}"))

        def make(folder: Path) -> None:
            result = fit(
                network,
                self.train,
                self._loss,
                settings,
                checkpoint=folder / "checkpoint.pt",
                evaluate=lambda model: sign * self._metric(model),
                rates=rates_of(self.stages, self.config.decay),
                progress=told,
                deadline_s=deadline_s,
                clock=self.clock,
            )
            metric = max((entry.metric for entry in result.history if entry.metric is not None), default=-math.inf)
            kept = not math.isfinite(before) or metric > sign * before
            self._keep(
                folder,
                result.model,
                Phase(
                    name=plan.name,
                    trained=sum(p.numel() for p in network.parameters() if p.requires_grad),
                    metric=sign * metric,
                    kept=kept,
                    seconds=result.seconds,
                    details=result.to_dict(),
                ),
            )
            (folder / "checkpoint.pt").unlink(missing_ok=True)

        key = {"plan": plan.name, "before": None if math.isinf(before) else before, "fit": settings.to_dict()}
        return self._stage(plan.name.replace(" ", "-"), network, key, make)

    def _fitting(self, share: float) -> FitConfig:
        given, samples = self.config.fit, size_of(self.train)
        steps = samples // min(given.batch_size, samples)
        epochs = share * max(given.epochs, math.ceil(self.config.least_steps / steps))
        every = max(1, round(epochs / self.config.evaluations))
        return replace(given, epochs=epochs, evaluate_every=every, keep="best", seed=self.config.seed)

    def _stage(
        self, name: str, network: nn.Module, key: dict[str, Any], make: Callable[[Path], None]
    ) -> tuple[nn.Module, Phase]:
        from safetensors.torch import load_file

        inputs = {**self.identity, "stage": name, "network": digest_of(network), "inputs": key}
        folder = self.store.build(name, inputs, make)
        twin = copy.deepcopy(network)
        twin.load_state_dict(load_file(folder / WEIGHTS))
        return twin, Phase(**json.loads((folder / PHASE).read_text()))

    def _keep(self, folder: Path, network: nn.Module, phase: Phase) -> None:
        from safetensors.torch import save as to_bytes

        state = {n: v.clone(memory_format=torch.contiguous_format) for n, v in network.state_dict().items()}
        write_atomic(folder / WEIGHTS, to_bytes(state))
        write_json(folder / PHASE, phase.to_dict())

    def _features_fit(self) -> bool:
        samples = self.config.views * size_of(self.train) + size_of(self.workload.splits.selection)
        return 4 * samples * self.head.width <= FEATURE_BYTES

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.task.loss(batch.call(model), batch.target)

    def _metric(self, model: nn.Module) -> float:
        return metric_of(model, self.workload.splits.selection, self.task, seed=self.config.seed)


def metric_of(model: nn.Module, data: Dataset[Any], task: Task, *, seed: int = 0) -> float:
    """The task's metric of a network on its own device, without the interval that `score_torch` takes time for."""
    device = next(model.parameters()).device
    hits, samples = 0.0, 0
    for batch in loader(data, 128, model=model, seed=seed):
        with torch.no_grad():
            outputs = outputs_of(batch.to(device=device).call(model.eval()))
        assert isinstance(batch.target, Tensor)
        values = task.per_sample(tuple(output.float().cpu().numpy() for output in outputs), batch.target.numpy())
        hits, samples = hits + float(values.sum()), samples + len(values)
    return task.scale * hits / samples


def _check_known(classes: Classes, data: Dataset[Any], name: str, model: nn.Module) -> None:
    targets = targets_of(data, model=model)
    unknown = sorted({int(label) for label in targets[targets >= classes.outputs].tolist()})
    if unknown:
        raise DataError(
            f"labels {', '.join(map(str, unknown[:8]))} of which the training data have none",
            where=f"{name} data",
            rule=f"the classes of the training data: 0..{classes.outputs - 1}",
            way_out="number the classes alike in all data",
        )

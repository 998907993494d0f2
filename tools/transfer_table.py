"""What transfer and distillation gain at equal computing time against plain training, and publish the table.

    python tools/transfer_table.py                 # all of it, some 45 minutes of one core
    python tools/transfer_table.py --only few-shot --seeds 0
    python tools/transfer_table.py --table         # train nothing, write the page again

Few-shot: 12 examples of each class for a network that was trained on something else, or is new. Each way has the
learning rate of three with which the selection split came out best in a run of its own, with a seed that the table does
not use.

- cifar10-halves: a ResNet-8, trained on the first five classes of CIFAR-10 (JPEG) at 16x16, learns the other five.
- digits: a network trained on scikit-learn's digits 0 to 4, at 16x16, learns 5 to 9.
- digits-from-cifar10: ResNet-20, trained on CIFAR-10 (JPEG), learns all ten digits at 16x16.

Distillation: a network of three convolutions, which halves the resolution first, learns from 3,000 pictures of CIFAR-10
(JPEG), for a short and for a longer time. They are augmented (mirrored and shifted) where the row says so, and teachers
are asked about each anew then; else they are asked once about each picture. Teachers: the int8 file of the pruned
ResNet-20 in artifacts/, in ONNX Runtime; ShuffleNet V2; and, where layers are compared, ResNet-20 in PyTorch. Asking
the teachers is part of the time.

Every way has the same time, in seconds of the processor (`time.process_time`, one thread) and not of the clock, so that
other work on the machine does not matter. The networks of tools/reference must be trained (EDGEKIT_REFERENCE_WEIGHTS).
Each result is kept and not made again.

Exit codes: 0 done; 2 wrong command line.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from edgekit.demo import digits
from edgekit.distill import DistillConfig, Remembering, Unlabelled, distill
from edgekit.export import spec_of
from edgekit.report import markdown
from edgekit.store import write_atomic, write_json
from edgekit.tasks import classification
from edgekit.training import FitConfig, FitResult, fit
from edgekit.transfer import FinetuneConfig, Finetuned, finetune, onnx_teacher
from edgekit.validate import score_torch
from edgekit.workload import Batch, Splits, Workload, load_callable, size_of

ROOT = Path(__file__).resolve().parents[1]
OUT, RUNS = ROOT / "artifacts" / "transfer", ROOT / "edgekit-runs" / "transfer"
IMAGES = ROOT / "tools/reference/images.py"
ONNX_TEACHER = ROOT / "artifacts/resnet20-cifar10/resnet20.edgekit/models/model/cpu-int8/model.onnx"
SHOTS, FEW_SHOT_S = 12, 5.0
RATES, TUNING_SEED = (1e-3, 2e-3, 5e-3), 100
LABELLED, UNLABELLED, HELD_OUT = 3000, 6000, 2000
STUDENT_S = {"cifar10": 8.0, "cifar10, longer": 60.0}
CALIBRATION_STEPS, STEPS_BEFORE = 40, 4
"""Steps that are timed, and those by which `fit` measures before it begins."""
PLAIN = "plain training"
ALONE: dict[str, Any] = {"precision": "fp32", "channels_last": False, "workers": 0}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("few-shot", "distillation"), help="one of both")
    parser.add_argument("--seeds", default="0,1,2", help="such as 0,1,2 (the default)")
    parser.add_argument("--project", type=Path, default=ROOT.parent / "shared/user-project/project.py")
    parser.add_argument("--out", type=Path, default=OUT, help="where results and page go")
    parser.add_argument("--table", action="store_true", help="train nothing, write the page of the results there are")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = options.out / "results.json"
    done: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    for seed in () if options.table else map(int, options.seeds.split(",")):
        for case, way, run in _all(options.only, options.project, done):
            name = f"{case} / {way} / {seed}"
            if name in done:
                continue
            begin = time.process_time()
            done[name] = run(seed)
            print(f"{name}: {done[name]} after {time.process_time() - begin:.0f} s", flush=True)
            write_json(results, done)
            publish(done, options.out)
    publish(done, options.out)
    return 0


Run = Callable[[int], dict[str, float]]


def _all(only: str | None, project: Path, done: dict[str, Any]) -> list[tuple[str, str, Run]]:
    found: list[tuple[str, str, Run]] = []
    if only != "distillation":
        for case, source, splits in (
            ("cifar10-halves", lambda: five_classes(project), picture_splits(range(5, 10))),
            ("digits-from-cifar10", load_callable(f"{project}:model"), digit_splits(range(10), 3)),
            ("digits", five_digits, digit_splits(range(5, 10), 1)),
        ):
            found += [(case, way, _few_shot(case, way, source, splits, done)) for way in FEW_SHOT]
    if only != "few-shot":
        for case, seconds in STUDENT_S.items():
            found += [(case, name, _distillation(way, project, seconds)) for name, way in STUDENTS.items()]
    return found


# Few-shot

FEW_SHOT: Mapping[str, FinetuneConfig] = {
    PLAIN: FinetuneConfig(method="full", decay=1.0),
    "full": FinetuneConfig(method="full"),
    "lp-ft": FinetuneConfig(method="lp-ft"),
    "gradual": FinetuneConfig(method="gradual"),
}


def _few_shot(case: str, way: str, source: Callable[[], nn.Module], splits: Splits, done: dict[str, Any]) -> Run:
    def once(seed: int, rate: float) -> Finetuned:
        def factory() -> nn.Module:
            torch.manual_seed(seed)
            return _new_weights(source()) if way == PLAIN else source()

        workload = Workload(
            name=case, model_reference=case, factory=factory, task=classification(), splits=replace(splits, seed=seed)
        )
        config = replace(
            FEW_SHOT[way],
            shots=SHOTS,
            seed=seed,
            fit=FitConfig(
                epochs=1000, learning_rate=rate, optimizer="adamw", weight_decay=0.01, batch_size=32, **ALONE
            ),
        )
        with tempfile.TemporaryDirectory() as folder:
            return finetune(workload, config, out=folder, time_s=FEW_SHOT_S, clock=time.process_time)

    def run(seed: int) -> dict[str, float]:
        rates: dict[str, float] = done.setdefault(f"{case} / {way} / rates", {})
        for rate in RATES:
            if str(rate) not in rates:
                rates[str(rate)] = once(TUNING_SEED, rate).selection.metric.value
        best = float(max(rates, key=lambda rate: rates[rate]))
        made = once(seed, best)
        seconds = sum(phase.seconds for phase in made.phases)
        return {"accuracy": made.test.metric.value, "seconds": seconds, "rate": best}

    return run


def digit_splits(classes: Sequence[int], channels: int) -> Splits:
    """Digits of these classes, numbered from 0; all of training is offered, a hundred test samples select."""
    parts = []
    for split in ("train", "test"):
        data = digits.Digits(split)
        labels = np.array(data.labels)
        chosen = np.flatnonzero(np.isin(labels, list(classes)))
        images = F.avg_pool2d(data.images[chosen], 2).expand(-1, channels, -1, -1)
        parts.append(TensorDataset(images.contiguous(), torch.from_numpy(labels[chosen] - min(classes))))
    train, test = parts
    selection, rest = (TensorDataset(*(t[piece] for t in test.tensors)) for piece in (slice(0, 100), slice(100, None)))
    return Splits(train=train, calibration=train, selection=selection, test=rest)


def picture_splits(classes: Sequence[int]) -> Splits:
    """Pictures of CIFAR-10 (JPEG) of these classes at 16x16; 200 of the test pictures select, 1,500 test."""

    def part(split: str) -> tuple[Tensor, Tensor]:
        x, y = _cifar10(split)
        chosen = np.flatnonzero(np.isin(y, list(classes)))
        chosen = np.random.default_rng(0).permutation(chosen)
        images = F.avg_pool2d(_normalized(x[chosen]), 2)
        return images, torch.from_numpy(y[chosen] - min(classes))

    train, test = TensorDataset(*part("train")), part("test")
    selection, rest = (TensorDataset(*(t[piece] for t in test)) for piece in (slice(0, 200), slice(200, 1700)))
    return Splits(train=train, calibration=train, selection=selection, test=rest)


@cache
def five_digits() -> nn.Module:
    """A network for the digits 0 to 4; its training is no part of any time."""
    return _source(
        "five-digits",
        lambda: digits.DigitsResNet(blocks=1, classes=5),
        digit_splits(range(5), 1).train,
        FitConfig(epochs=6, learning_rate=0.1, batch_size=32, **ALONE),
    )


@cache
def five_classes(project: Path) -> nn.Module:
    """A network for the first five classes of CIFAR-10; its training is no part of any time."""
    make = load_callable(f"{project}:CifarResNet")
    return _source(
        "five-classes",
        lambda: make(depth=8, classes=5),
        picture_splits(range(5)).train,
        FitConfig(epochs=2, learning_rate=0.1, batch_size=128, **ALONE),
    )


def _source(name: str, make: Callable[[], nn.Module], train: Dataset[Any], config: FitConfig) -> nn.Module:
    path = RUNS / f"{name}.pt"
    torch.manual_seed(0)
    network = make()
    if not path.is_file():
        trained = fit(network, train, labelled_loss, config, checkpoint=path.with_suffix(".checkpoint"))
        torch.save(trained.model.state_dict(), path)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def _new_weights(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return network


# Distillation


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a student learns.

    Args:
        settings: what `DistillConfig` is to have beside the training.
        teachers: which teachers there are.
        more: whether pictures without labels come beside those with.
        augmented: whether pictures are mirrored and shifted, so that teachers are asked about each anew.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    teachers: Literal["", "file", "two", "layers"] = "file"
    more: bool = False
    augmented: bool = False


_LABELS = {"hard": 1.0, "soft": 0.0}
STUDENTS: Mapping[str, Way] = {
    PLAIN: Way(settings=_LABELS, teachers=""),
    "plain training, augmented": Way(settings=_LABELS, teachers="", augmented=True),
    "KD, int8 file": Way(),
    "DKD, int8 file": Way(settings={"loss": "dkd", "hard": 1.0, "soft": 1.0}),
    "standardized KD, int8 file": Way(settings={"standardize": True, "temperature": 2.0, "hard": 0.1, "soft": 9.0}),
    "KD, two teachers": Way(teachers="two"),
    "KD, int8 file, 6,000 more without labels": Way(more=True),
    "KD, int8 file, augmented": Way(augmented=True),
    "KD, int8 file, 6,000 more without labels, augmented": Way(more=True, augmented=True),
    "KD and features, ResNet-20": Way(settings={"feature": 1.0, "feature_layers": "auto"}, teachers="layers"),
    "KD and attention, ResNet-20": Way(settings={"attention": 1.0, "feature_layers": "auto"}, teachers="layers"),
}


class Student(nn.Module):
    """Three convolutions with BatchNorm at 16x16, 8x8 and 4x4, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, padding=1, stride=1 if before == 3 else 2, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
                for before, after in pairwise(widths)
            )
        )
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, 10] of pictures [n, 3, 32, 32]."""
        logits: Tensor = self.head(self.stages(F.avg_pool2d(x, 2)).mean((2, 3)))
        return logits


def _distillation(way: Way, project: Path, student_s: float) -> Run:
    def run(seed: int) -> dict[str, float]:
        train, more, test = pictures()
        torch.manual_seed(seed)
        settings = DistillConfig(
            fit=FitConfig(epochs=1, learning_rate=0.1, batch_size=128, seed=seed, **ALONE), **way.settings
        )
        data: Dataset[Any] = Augmented(train) if way.augmented else train
        if way.more:
            data = Unlabelled(data, Augmented(more) if way.augmented else more, bare=False)
        task = classification()
        with tempfile.TemporaryDirectory() as folder:
            teachers, weights = _teachers(way, project, Path(folder))
            begin = time.process_time()
            for teacher in teachers:
                if isinstance(teacher, Remembering):
                    teacher.ask(data, Student())
            asked_s = time.process_time() - begin

            def trained(steps: float) -> FitResult:
                epochs = steps / (size_of(data) // settings.fit.batch_size)
                config = replace(settings, fit=replace(settings.fit, epochs=epochs))
                return distill(
                    Student(), teachers, data, task, config, teacher_weights=weights, clock=time.process_time
                )

            # How many steps the time is good for is measured beforehand, outside of it.
            probe = trained(CALIBRATION_STEPS)
            step_s = probe.seconds / (probe.steps + STEPS_BEFORE)
            made = trained((student_s - asked_s) / step_s - STEPS_BEFORE)
        accuracy = score_torch(made.model, test, task).metric.value
        return {"accuracy": accuracy, "seconds": asked_s + made.seconds}

    return run


def _teachers(way: Way, project: Path, folder: Path) -> tuple[list[Any], list[float]]:
    """Teachers, and their weights: their accuracy on the test data of their makers.

    One whose pictures stay what they are answers each of them once.
    """
    if way.teachers == "layers":
        return [load_callable(f"{project}:model")()], []
    file = onnx_teacher(ONNX_TEACHER, spec_of(ir.load(ONNX_TEACHER)))
    if way.augmented or not way.teachers:  # where labels alone count, nobody is asked
        return [file], []
    first = Remembering(file, folder / "file.bin")
    if way.teachers == "file":
        return [first], []
    other = load_callable(f"{IMAGES}:shufflenet")()
    return [first, Remembering(other, folder / "other.bin")], [88.0, 76.0]


class Augmented(Dataset[Any]):
    """Pictures [3, 32, 32] mirrored by chance and cut out of themselves padded by 4 pixels; labels as they are."""

    def __init__(self, pictures: TensorDataset) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, label = self.pictures[index]
        mirror, top, left = torch.randint(0, 18, (3,)).tolist()
        x = F.pad(x.flip(2) if mirror < 9 else x, (4, 4, 4, 4), "replicate")
        return x[:, top // 2 : top // 2 + 32, left // 2 : left // 2 + 32], label


@cache
def pictures() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """CIFAR-10 (JPEG): pictures with labels, more of which the labels are not used, and some for the test."""

    def part(split: str, count: int) -> tuple[Tensor, Tensor]:
        x, y = _cifar10(split)
        chosen = np.random.default_rng(0).permutation(len(y))[:count]
        return _normalized(x[chosen]), torch.from_numpy(y[chosen])

    x, y = part("train", LABELLED + UNLABELLED)
    return (
        TensorDataset(x[:LABELLED], y[:LABELLED]),
        TensorDataset(x[LABELLED:], y[LABELLED:]),
        TensorDataset(*part("test", HELD_OUT)),
    )


@cache
def _cifar10(split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_callable(f"{IMAGES}:pictures")(split)
    return images, labels


def _normalized(images: np.ndarray) -> Tensor:
    normalized: Tensor = load_callable(f"{IMAGES}:normalized")(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    return normalized


def labelled_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss on the labels alone."""
    return classification().loss(batch.call(model), batch.target)


# The page

PREFACE = """# Transfer and distillation, at equal computing time

Written by `python tools/transfer_table.py`, whose help says what each case is. Figures are top-1 accuracy on test data
that nothing was chosen by, mean ± standard deviation over seeds; gains are against plain training with the same seed.
All ways of a case have the same time, in seconds of the processor (one thread) and not of the clock, since other work
ran on the machine; the column has what was used. Asking teachers is part of it.
"""

READING = """## Reading

- A dozen examples gain most where the old task is near: other classes of the same pictures. Where it is far
  (photographs, then digits) or the new one is easy (five other digits), new weights learn as well or better in this
  time; with the five digits a linear probe first keeps up with them.
- In seconds, a student far from fitting the labels needs steps more than advice: of all distillation only plain KD,
  whose teacher answers each picture once, gains. Comparing layers asks a teacher some 50 times as large at every step.
  DKD's usual weights are made for long schedules with a warm-up.
- In a minute, plain training fits 3,000 pictures by heart and gets worse; every kind of distillation gains. Most is in
  more pictures, with a teacher's answers for labels: 6,000 without labels are worth as much as augmentation. Beside
  augmented training, KD gains only with them.
"""


def publish(done: Mapping[str, Mapping[str, float]], out: Path) -> None:
    """Write the page of the results."""
    few_shot = ("cifar10-halves", "digits-from-cifar10", "digits")
    parts = [
        PREFACE,
        f"## Few-shot: {SHOTS} examples of each class, {FEW_SHOT_S:.0f} s each\n",
        f"{markdown((*HEADERS, 'rate'), _rows(done, few_shot, FEW_SHOT))}\n",
    ]
    for case, seconds in STUDENT_S.items():
        parts += [
            f"## Distillation: {LABELLED:,} pictures with labels, {seconds:.0f} s each\n",
            f"{markdown(HEADERS, _rows(done, (case,), STUDENTS))}\n",
        ]
    write_atomic(out / "README.md", "\n".join([*parts, READING]))


HEADERS = ("case", "way", "seeds", "time", "accuracy", "gain (points)")


def _rows(done: Mapping[str, Mapping[str, float]], cases: Sequence[str], ways: Iterable[str]) -> list[tuple[str, ...]]:
    rows = []
    for case in cases:
        plain: dict[str, float] = {}
        for way in ways:
            begin = f"{case} / {way} / "
            runs = {name.removeprefix(begin): run for name, run in done.items() if name.startswith(begin)}
            runs.pop("rates", None)
            if not runs:
                continue
            accuracies = {seed: run["accuracy"] for seed, run in runs.items()}
            plain = accuracies if way == PLAIN else plain
            row = (case, way, str(len(runs)), _seconds(runs.values()), _spread(list(accuracies.values())))
            rates = {f"{run['rate']:g}" for run in runs.values() if "rate" in run}
            rows.append((*row, _gain(accuracies, plain), *sorted(rates)))
    return rows


def _seconds(runs: Iterable[Mapping[str, float]]) -> str:
    return f"{statistics.fmean(run['seconds'] for run in runs):.1f} s"


def _gain(seeds: Mapping[str, float], plain: Mapping[str, float]) -> str:
    both = [value - plain[seed] for seed, value in seeds.items() if seed in plain]
    return _spread(both, sign="+") if both else ""


def _spread(values: Sequence[float], sign: str = "") -> str:
    mean = f"{statistics.fmean(values):{sign}.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    sys.exit(main())

"""Compare `edgekit compress` with the usual ways to make a network smaller, at equal wall-clock, and publish the table.

    python tools/compression_table.py resnet20 --max-drop 0.5 --max-drop 1.5 --time 20m
    python tools/compression_table.py resnet56 --max-drop 0.5 --time 45m --seeds 0,1,2
    python tools/compression_table.py --table            # measure nothing, write the page again

For each network of tools/reference/catalogue.py, each limit and each seed: `edgekit compress` runs for the given time;
then each control trains for as long, or as its line says:

- L1, uniform: every width narrowed by the same share, the channels with the smallest filters first (H. Li et al.,
  *Pruning Filters*, 2017), the share being the one whose int8 file is as fast as that of edgekit, or closest to it;
  distilled as edgekit does.
- no distillation: edgekit's own plan, trained on the labels alone; what the search cost counts here, too, so it trains
  for as long as edgekit recovered.
- from scratch: the network that edgekit's plan leaves, with new weights.

All networks are quantized alike. Their files, the unpruned int8 file and the fp32 file are timed in one interleaved run
and scored once on the test split; ratios refer to the unpruned int8 file. Everything is kept in
edgekit-runs/compression and goes on where it was interrupted. Leave the machine alone while it runs.

Exit codes: 0 done; 2 wrong command line; 4 a network could not be measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from reference.catalogue import REFERENCES, Reference
from torch import nn

from edgekit.compress import Settings
from edgekit.compress.drafts import file_bytes, float_graph
from edgekit.device import isa_target
from edgekit.device.environment import processor_in
from edgekit.distill import DistillConfig, distill, reestimate_batchnorm
from edgekit.export import Exported, export
from edgekit.prune import GraphPruner, PrunePlan, analyse, apply, importance, load_plan, plan
from edgekit.quantize import quantize, sketch
from edgekit.report import markdown
from edgekit.store import write_atomic, write_json
from edgekit.training import FitConfig, fit
from edgekit.units import parse_duration_s
from edgekit.validate import calibration_feeds, first_feeds, latency_table, validate
from edgekit.workload import Workload, config_from, load_workload, loader

ROOT = Path(__file__).resolve().parents[1]
OUT, RUNS = ROOT / "artifacts" / "compression", ROOT / "edgekit-runs" / "compression"
SCRATCH_RATES = {"sgd": 0.1, "adamw": 0.002}
"""Peak learning rates for new weights; those of a recovery would be too low for them."""
SHARES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
MATCHING_S, FINAL_S = 8.0, 20.0
INT8, OURS, L1, LABELS, SCRATCH = "int8 alone", "edgekit", "L1, uniform", "no distillation", "from scratch"
CONTROLS = (L1, LABELS, SCRATCH)
RECOVERIES = ("screening-rung-", "recovering-round-")
"""Stages in which edgekit trains."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(REFERENCES)}")
    parser.add_argument("--max-drop", action="append", type=float, help="points; may be given several times")
    parser.add_argument("--time", default="20m", help="of one compression, and of each control (default 20m)")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2 (default 0)")
    parser.add_argument("--without-controls", action="store_true", help="run edgekit alone")
    parser.add_argument("--options", default="", help="further words for `edgekit compress`")
    parser.add_argument("--out", type=Path, default=OUT, help="where results and page go")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the page of the results there are")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(REFERENCES)
    if unknown or not (options.names or options.table):
        parser.error(f"unknown or no network: {', '.join(sorted(unknown))}; there are {', '.join(REFERENCES)}")
    failed = []
    for name in () if options.table else options.names:
        for limit in options.max_drop or [0.5]:
            for seed in map(int, options.seeds.split(",")):
                case = Case(REFERENCES[name], limit, parse_duration_s(options.time, "--time"), seed, options.out)
                if not case.run(options.options.split(), controls=not options.without_controls):
                    failed.append(case.title)
                publish(options.out)
    publish(options.out)
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 4 if failed else 0


@dataclass(frozen=True, slots=True)
class Case:
    """One network, one limit, one seed."""

    reference: Reference
    max_drop: float
    time_s: float
    seed: int
    out: Path

    @property
    def title(self) -> str:
        """A name for files."""
        return f"{self.reference.name}-{self.max_drop:g}-{self.time_s:.0f}s-seed{self.seed}-{isa_target()}"

    @property
    def folder(self) -> Path:
        """Where runs are kept."""
        return RUNS / self.title

    def run(self, options: Sequence[str], *, controls: bool) -> bool:
        """Compress, train the controls, measure all; False where edgekit itself failed."""
        result = self.out / f"{self.title}.json"
        if result.is_file() and (not controls or CONTROLS[0] in json.loads(result.read_text())["rows"]):
            return True
        words = [self.reference.model, *self.reference.workload, *self.reference.recovery]
        words += ["--max-drop", f"{self.max_drop:g}"]
        words += ["--time", f"{self.time_s:.0f}s", "--seed", str(self.seed), "--out", str(self.folder), *options]
        done = subprocess.run([sys.executable, "-m", "edgekit", "compress", *words], cwd=ROOT, check=False)
        if done.returncode not in (0, 3):
            return False
        report = json.loads((self.folder / "report.json").read_text())
        stages = {row["stage"]: row for row in report["stages"]}
        files = {"fp32": Path(stages["fp32"]["file"]), INT8: Path(stages["int8"]["file"])}
        files[OURS] = Path(stages[report["verdict"]["chosen"]]["file"])
        chosen = _chosen_round(report)
        workload = load_workload(self._config())
        if controls and chosen is not None:
            plan_of_ours = load_plan(Path(chosen["weights"]))
            files |= Controls(self, workload, plan_of_ours, files, report).made()
        spec = Exported.from_dict(stages["fp32"]["details"], files["fp32"].parent).spec
        measured = validate(
            files, workload.splits.test, workload.task, spec=spec, baseline=INT8, threads=1, time_s=FINAL_S
        )
        write_json(
            result,
            {
                "network": self.reference.name,
                "metric": report["metric"],
                "max_drop": self.max_drop,
                "time_s": self.time_s,
                "seed": self.seed,
                "edgekit_seconds": sum(report["seconds"].values()),
                "decisions": [] if chosen is None else chosen["decisions"],
                "environment": report["environment"]["before"],
                "rows": {row.file: row.to_dict() for row in measured.rows},
            },
        )
        return True

    def _config(self) -> Any:
        reference = self.reference
        named = {"model": reference.model, "train": reference.train, "test": reference.test, "task": reference.task}
        return config_from({**named, "seed": self.seed}, folder=ROOT)


class Controls:
    """The networks that edgekit's result is held against, each trained for as long as edgekit took."""

    def __init__(
        self, case: Case, workload: Workload, chosen: PrunePlan, files: Mapping[str, Path], report: Mapping[str, Any]
    ) -> None:
        self.case, self.workload, self.chosen, self.files = case, workload, chosen, files
        self.model, self.settings = workload.model(), _as_settings(report["settings"])
        self.recovered_s = sum(s for stage, s in report["seconds"].items() if stage.startswith(RECOVERIES))

    def made(self) -> dict[str, Path]:
        """The int8 files."""
        makers: dict[str, Callable[[], nn.Module]] = {
            L1: lambda: self._distilled(self._uniform()),
            LABELS: lambda: self._trained(
                self._settled(self.chosen), self.settings.learning_rate, seconds=self.recovered_s
            ),
            SCRATCH: lambda: self._trained(
                _new_weights(apply(self.model, self.chosen)),
                SCRATCH_RATES[self.settings.optimizer],
                seconds=self.case.time_s,
            ),
        }
        return {name: self._file(name, make) for name, make in makers.items()}

    def _file(self, name: str, make: Callable[[], nn.Module]) -> Path:
        folder = self.case.folder / "controls" / name.replace(", ", "-").replace(" ", "-")
        if not (folder / "int8.onnx").is_file():
            print(f"== {self.case.title}: {name}", flush=True)
            dynamic = self.workload.dynamic or "batch"
            exported = export(make(), self.workload.example(2), folder / "fp32.onnx", dynamic=dynamic)
            feeds = list(calibration_feeds(self.workload, exported.spec))
            quantize(exported.path, feeds, folder / "int8.onnx", spec=exported.spec, placement="measured")
        return folder / "int8.onnx"

    def _uniform(self) -> PrunePlan:
        """The uniform plan whose int8 file is as fast as edgekit's, or closest to it."""
        coupling = analyse(self.model, self.workload.example(2))
        ranked = importance(self.model, coupling, method="l1")
        plans = {
            str(share): plan(coupling, ranked, keep=share, scope="uniform", grid=self.settings.channel_grid)
            for share in SHARES
        }
        source = GraphPruner(ir.load(self.files["fp32"]))
        folder = self.case.folder / "controls"
        paths = {OURS: self.files[OURS]}
        for name, each in plans.items():
            paths[name] = folder / f"uniform-{name}.onnx"
            graph = float_graph(self.workload, source, each)
            write_atomic(paths[name], file_bytes(sketch(graph, self.settings.target)))
        spec = Exported.from_dict(json.loads(_exported_beside(self.files["fp32"])), self.files["fp32"].parent).spec
        feeds = first_feeds(self.workload.splits.selection, spec)
        timings = latency_table(paths, feeds, baseline=OURS, time_s=MATCHING_S)
        best = min(plans, key=lambda name: abs(timings[name].ratio.value - 1))
        print(f"   keeps {best}: {timings[best].ratio.value:.2f}x as fast as edgekit's file", flush=True)
        return plans[best]

    def _settled(self, chosen: PrunePlan) -> nn.Module:
        norms = loader(self.workload.splits.calibration, 128, model=self.model, drop_last=True)
        return reestimate_batchnorm(apply(self.model, chosen), norms)

    def _distilled(self, chosen: PrunePlan) -> nn.Module:
        data, task, config = self.workload.splits.train, self.workload.task, DistillConfig(fit=self._fitting(None))
        return distill(self._settled(chosen), self.model, data, task, config, deadline_s=self.case.time_s).model

    def _trained(self, start: nn.Module, rate: float, *, seconds: float) -> nn.Module:
        task = self.workload.task
        return fit(
            start,
            self.workload.splits.train,
            lambda model, batch: task.loss(batch.call(model), batch.target),
            self._fitting(rate),
            deadline_s=seconds,
        ).model

    def _fitting(self, rate: float | None) -> FitConfig:
        """As long as the deadline allows."""
        rate = self.settings.learning_rate if rate is None else rate
        return FitConfig(
            epochs=1000,
            learning_rate=rate,
            optimizer=self.settings.optimizer,
            batch_size=self.settings.batch_size,
            seed=self.case.seed,
        )


def _new_weights(model: nn.Module) -> nn.Module:
    """In place: each module as PyTorch makes it; tables of a module of the user's own as Transformers begin theirs."""
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            module._reset_parameters()  # noqa: SLF001 - PyTorch gives it no other name
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()
        else:
            for parameter in module.parameters(recurse=False):
                if parameter.ndim > 1:
                    nn.init.trunc_normal_(parameter, std=0.02)
    return model


def _as_settings(written: Mapping[str, Any]) -> Settings:
    return Settings(**{name: tuple(value) if isinstance(value, list) else value for name, value in written.items()})


def _exported_beside(file: Path) -> str:
    return (file.parent / "exported.json").read_text()


def _chosen_round(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    stage = report["verdict"]["chosen"]
    return next((each for each in report["rounds"] if stage.startswith(f"pruned-{each['round']}")), None)


def publish(out: Path) -> None:
    """Write the page of the results in `out`."""
    results = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    processors: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        processors.setdefault(processor_in(result["environment"]), []).append(result)
    sections = [f"## {name}\n\n{_table(found)}\n" for name, found in sorted(processors.items(), reverse=True)]
    write_atomic(out / "README.md", "\n".join((PREFACE, *sections)))


def _table(results: Sequence[dict[str, Any]]) -> str:
    cases: dict[tuple[str, float, float], list[dict[str, Any]]] = {}
    for result in results:
        cases.setdefault((result["network"], result["time_s"], result["max_drop"]), []).append(result)
    rows = []
    for (network, time_s, limit), seeds in sorted(cases.items()):
        for name in (INT8, OURS, *CONTROLS):
            found = [each["rows"] for each in seeds if name in each["rows"]]
            if found:
                about = (network, f"{limit:g}", f"{time_s / 60:g} min", name, str(len(found)))
                rows.append((*about, *_figures(found, name)))
    headers = ("network", "limit", "time", "way", "seeds", "drop (points)", "speed vs int8 alone", "vs fp32")
    return markdown(headers, rows)


PREFACE = """# Compression against the usual ways, at equal wall-clock

Written by `python tools/compression_table.py`, whose help says what each way is. Drops are points on the test split,
which was scored once; speed is the ratio of medians of one interleaved run, one thread, batch 1; mean ± standard
deviation over seeds. A negative drop is a gain. `vit_tiny` was trained for four epochs only and `resnet56` for twelve:
both can still learn, and the same plan trained on labels alone ends above the one that is distilled, most likely since
their teachers hold it back. The test split of `transformer` (spoken digits) has 150 samples: one of them is 0.67
points, and no two of its rows differ by more than two. How far a training comes in its time depends on the processor,
and so does what int8 gains: rows of two processors do not compare.
"""


def _figures(found: Sequence[Mapping[str, Any]], name: str) -> tuple[str, str, str]:
    """Drop, and speed against the unpruned int8 file and the fp32 file."""
    drops = [rows["fp32"]["score"]["metric"]["value"] - rows[name]["score"]["metric"]["value"] for rows in found]
    ratios = [rows[name]["ratio"]["value"] for rows in found]
    to_fp32 = [ratio / rows["fp32"]["ratio"]["value"] for ratio, rows in zip(ratios, found, strict=True)]
    return _spread(drops), f"{_spread(ratios)}x", f"{_spread(to_fp32)}x"


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    sys.exit(main())

"""What is done with each network, step by step; each step's outcome is kept at once."""

from __future__ import annotations

import copy
import json
import re
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coverage_study.building import build
from coverage_study.catalogue import Subject
from coverage_study.masking import masked
from coverage_study.small_transformers import WORDS_FROM
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekit.device.session import open_session
from edgekit.errors import EdgekitError, ExportError
from edgekit.export import Exported, export
from edgekit.prune import Coupling, PrunePlan, ResidualBlock, analyse, importance, make_plan, plan, prune
from edgekit.quantize import quantize
from edgekit.store import write_json
from edgekit.tasks import outputs_of
from edgekit.validate import feeds_of
from edgekit.workload import Batch

KEEP = 0.7
SQNR_FLOOR_DB, AGREEMENT_FLOOR = 10.0, 0.7
"""An int8 file is sane if its outputs have so much more signal than noise, or so many samples the same first class."""
SAMPLES = 16
CHECKED, ROUNDING = 1e-3, 4.0
"""How far outputs may be apart, relative to the largest, in the tool's own comparisons in fp32; a file may be as many
times as far from the model as rounding makes the model differ from itself in double precision, if that is more."""


class Unsound(Exception):  # noqa: N818 - the finding that the whole study is there for
    """A wrong result that edgekit's own gates let through."""


class Record:
    """What is known of one network, kept after each step."""

    def __init__(self, path: Path, subject: Subject) -> None:
        self.path = path
        self.data: dict[str, Any] = {
            "key": subject.key,
            "source": subject.source,
            "name": subject.name,
            "stages": {},
            "done": False,
        }

    def stage(self, name: str, work: Callable[[], dict[str, Any]]) -> bool:
        """Do one step; whether it passed."""
        self.data["stages"][name] = {"status": "running"}
        write_json(self.path, self.data)
        begin = time.process_time()
        try:
            found = {"status": "passed", **work()}
        except Exception as error:  # noqa: BLE001 - every failure is a row of the table
            status = "unsound" if isinstance(error, Unsound) else "failed"
            found = {"status": status, "error": type(error).__name__, "reason": said(error), "place": _place(error)}
        self.data["stages"][name] = {**found, "cpu_seconds": round(time.process_time() - begin, 1)}
        write_json(self.path, self.data)
        return found["status"] == "passed"

    def finish(self) -> None:
        """Nothing more comes."""
        self.data["done"] = True
        write_json(self.path, self.data)


def said(error: Exception) -> str:
    """An error in a few lines, without the machine's folders."""
    text = f"{error}" if isinstance(error, EdgekitError) else f"{type(error).__name__}: {error}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"(?<![\w.])/(?:[^\s/'\":]+/)+", "", " | ".join(lines))[:700]


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def study(subject: Subject, path: Path) -> None:
    """Take one network through everything; what is found goes to `path`."""
    record = Record(path, subject)
    made: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edgekit-coverage-") as name:
        folder = Path(name)

        def building() -> dict[str, Any]:
            made["model"], made["example"], about = build(subject)
            record.data |= about
            return {}

        def exporting() -> dict[str, Any]:
            made["fp32"], about = _exported(made["model"], made["example"], folder / "fp32.onnx")
            return about

        def pruning() -> dict[str, Any]:
            coupling = analyse(made["model"], made["example"])
            record.data["analysis"] = _about(made["model"], coupling)
            made["smaller"], about = _pruned(made["model"], made["example"], coupling)
            return about

        def exporting_again() -> dict[str, Any]:
            made["small"], about = _exported(made["smaller"], made["example"], folder / "small.onnx")
            if made["small"].path.stat().st_size >= made["fp32"].path.stat().st_size:
                raise Unsound("the pruned model's file is no smaller")
            return about

        def quantizing() -> dict[str, Any]:
            source = made.get("small") or made["fp32"]
            return {"of": "pruned" if "small" in made else "whole", **_int8(source, made["example"], folder / "q.onnx")}

        if record.stage("build", building):
            has_file = record.stage("export", exporting)
            has_pruned = record.stage("prune", pruning)
            if has_file and has_pruned:
                record.stage("export pruned", exporting_again)
            if has_file:
                record.stage("int8", quantizing)
        record.finish()


def _others(example: Batch, seed: int) -> Batch:
    """Other inputs of the same kind: noise for numbers, other tokens for tokens; special ones and masks stay."""
    draw = torch.Generator().manual_seed(seed)

    def other(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.is_floating_point():
            return torch.randn(value.shape, generator=draw)
        if value.max() < WORDS_FROM:  # A mask.
            return value
        return torch.where(
            value < WORDS_FROM,
            value,
            torch.randint(WORDS_FROM, int(value.max()) + 1, value.shape, generator=draw),
        )

    args, kwargs = pytree.tree_map(other, (example.args, example.kwargs))
    return Batch(args, kwargs, None)


def _exported(model: nn.Module, example: Batch, path: Path) -> tuple[Exported, dict[str, Any]]:
    """A file that takes any number of samples, or, of a network that fixes their number, that number."""
    fixed = ""
    try:
        done = export(model, example, path)
    except ExportError as error:
        fixed = said(error)
        done = export(model, example, path, dynamic="none")
    fresh = _others(example, 77)
    with torch.no_grad():
        wanted = [value.numpy() for value in outputs_of(fresh.call(model))]
    found = open_session(done.path, threads=1).run(None, feeds_of(fresh, done.spec))
    for want, have, own in zip(wanted, found, _rounding(model, fresh, wanted), strict=True):
        _close(want, have, "the exported file differs from the model", max(CHECKED, ROUNDING * own))
    about = {"exporter": done.exporter, "bytes": done.path.stat().st_size, "max_abs_diff": done.parity.max_abs_diff}
    return done, {**about, "batch_fixed": fixed, "refused": list(done.refused)}


def _rounding(model: nn.Module, example: Batch, wanted: list[np.ndarray]) -> list[float]:
    """How far each output is from the same in double precision, relative to the largest; 0 where that does not run."""
    try:
        with torch.no_grad():
            twin = copy.deepcopy(model).double()
            exact = [value.numpy() for value in outputs_of(example.to(dtype=torch.float64).call(twin))]
    except Exception:  # noqa: BLE001 - a forward that names a type does not run in another
        return [0.0] * len(wanted)
    scales = [float(np.abs(value).max(initial=0.0)) or 1.0 for value in wanted]
    return [
        float(np.abs(truth - want).max(initial=0.0)) / scale
        for truth, want, scale in zip(exact, wanted, scales, strict=True)
    ]


def _close(want: np.ndarray, have: np.ndarray, about: str, tolerance: float = CHECKED) -> None:
    if want.shape != have.shape or not np.isfinite(have).all():
        raise Unsound(f"{about}: shape {have.shape} for {want.shape}, or values that are not finite")
    if want.size and np.issubdtype(want.dtype, np.floating):
        scale = float(np.abs(want).max()) or 1.0
        apart = float(np.abs(want.astype(np.float64) - have.astype(np.float64)).max()) / scale
        if not apart <= tolerance:
            raise Unsound(f"{about} by {apart:.1e} of the largest output")


def _pruned(model: nn.Module, example: Batch, coupling: Coupling) -> tuple[nn.Module, dict[str, Any]]:
    if not coupling.groups:
        return _shortened(model, example, coupling)
    order = importance(model, coupling, method="l2")
    # On a grid of one, so that narrow networks are narrowed as well.
    chosen = plan(coupling, order, keep=KEEP, grid=1)
    done = prune(model, example, chosen)
    if not chosen.narrowings:
        raise ValueError("nothing was pruned: no group has channels enough")
    _check_masked(model, done.model, chosen, example)
    kept = sum(value.numel() for value in done.model.parameters())
    difference = done.proof.max_relative_difference
    return done.model, {"parameters": kept, "narrowed": len(chosen.narrowings), "difference": difference}


def _shortened(model: nn.Module, example: Batch, coupling: Coupling) -> tuple[nn.Module, dict[str, Any]]:
    """Without every third of its residual branches, compared with one whose branches end in zeros."""
    gone = [block for block in coupling.blocks if isinstance(block, ResidualBlock)][::3]
    if not gone:
        raise ValueError("nothing can be pruned")
    done = prune(model, example, make_plan(coupling, {}, [block.name for block in gone]))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for block in gone:
            for parameter in twin.get_submodule(block.last).parameters():
                parameter.zero_()
    _check_alike(twin, done.model, example, "the shorter model differs from the one with zeros")
    kept = sum(value.numel() for value in done.model.parameters())
    difference = done.proof.max_relative_difference
    return done.model, {"parameters": kept, "narrowed": 0, "removed": len(gone), "difference": difference}


def _about(model: nn.Module, coupling: Coupling) -> dict[str, Any]:
    """How much of the network can be narrowed, and why the largest of the rest cannot."""
    weights = {name: value for name, value in model.named_parameters() if value.ndim > 1}
    outs = {name: coupling.producers[name] for name in weights if name in coupling.producers}
    total = sum(weights[name].shape[axis] for name, axis in outs.items())
    free: Counter[tuple[str, int]] = Counter()
    for group in coupling.groups:
        for key in group.tensors:
            free[key] += sum(len(channel[key]) for channel in group.channels)
    reached = sum(free[name, axis] for name, axis in outs.items())
    sizes = {name: value.numel() for name, value in model.named_parameters()}

    def size(what: str) -> int:
        tensor = what.partition(" ")[0]
        return max((sizes[name] for name in sizes if f"{name}.".startswith(f"{tensor}.")), default=0)

    largest = sorted(coupling.frozen, key=lambda entry: -size(entry[0]))
    return {
        "groups": len(coupling.groups),
        "blocks": len(coupling.blocks),
        "share": round(reached / total, 4) if total else 0.0,
        "operators": sorted(
            what.removeprefix("operator ") for what, _ in coupling.frozen if what.startswith("operator")
        ),
        "frozen": [list(entry) for entry in largest[:12]],
        "reasons": dict(Counter(_kind(why) for _, why in coupling.frozen).most_common(8)),
    }


def _kind(why: str) -> str:
    return re.sub(r"\b\w+?_\d+\b|\d[\d.e+-]*", "#", why)[:120]


def _check_masked(model: nn.Module, smaller: nn.Module, chosen: PrunePlan, example: Batch) -> None:
    """Compare with a masked model of this tool's own making, on other inputs, with the numbers as they are."""
    twin = masked(model, chosen.slices)
    _check_alike(twin, smaller, example, "the pruned model differs from the masked one")


@torch.no_grad()
def _check_alike(one: nn.Module, other: nn.Module, example: Batch, about: str) -> None:
    """In float64, on other inputs; in float32 if the network itself knows no other numbers."""

    def answers(dtype: torch.dtype) -> list[list[Tensor]]:
        fresh = _others(example, 99).to(dtype=dtype)
        return [outputs_of(fresh.call(copy.deepcopy(each).to(dtype).eval())) for each in (one, other)]

    (wanted, found), tolerance = answers(torch.float64), 1e-7
    if not all(bool(want.isfinite().all()) for want in wanted):
        (wanted, found), tolerance = answers(torch.float32), CHECKED
    for want, have in zip(wanted, found, strict=True):
        _close(want.numpy(), have.numpy(), about, tolerance)


def _int8(source: Exported, example: Batch, path: Path) -> dict[str, Any]:
    count = SAMPLES // len(example)
    batches = [feeds_of(_others(example, 500 + index), source.spec) for index in range(count)]
    done = quantize(source.path, batches[:4], path, spec=source.spec)
    fp32, int8 = (open_session(file, threads=1) for file in (source.path, path))
    wanted: list[list[np.ndarray]] = []
    found: list[list[np.ndarray]] = []
    for feeds in batches[4:]:
        wanted.append(fp32.run(None, feeds))
        found.append(int8.run(None, feeds))
    pairs = list(zip(_joined(wanted), _joined(found), strict=True))
    signal = sum(float(np.square(want, dtype=np.float64).sum()) for want, _ in pairs)
    noise = sum(float(np.square(want.astype(np.float64) - have).sum()) for want, have in pairs)
    if not all(np.isfinite(have).all() for _, have in pairs):
        raise Unsound("the int8 file gives values that are not finite")
    sqnr = min(99.0, 10 * float(np.log10(signal / noise))) if noise else 99.0
    want, have = pairs[0]
    usual = _usual_db(want, have)
    agreement = float((want.argmax(1) == have.argmax(1)).mean()) if want.ndim > 1 else 0.0
    before, after = source.path.stat().st_size, path.stat().st_size
    found_all = {
        "scheme": done.scheme,
        "int8_nodes": done.int8_nodes,
        "float_nodes": done.float_nodes,
        "said_db": round(done.sqnr_db, 1) if np.isfinite(done.sqnr_db) else 99.0,
        "sqnr_db": round(sqnr, 1),
        "usual_db": round(usual, 1),
        "agreement": round(agreement, 3),
        "bytes": after,
        "size_ratio": round(after / before, 3),
    }
    if abs(found_all["said_db"] - found_all["usual_db"]) > 12 and found_all["usual_db"] < 20:
        raise Unsound(f"edgekit says {found_all['said_db']} dB, fresh inputs {found_all['usual_db']} dB")
    if sqnr < SQNR_FLOOR_DB and agreement < AGREEMENT_FLOOR:
        raise ValueError(f"int8 is too coarse: {sqnr:.1f} dB, {agreement:.0%} agree; {json.dumps(found_all)}")
    if after >= before:
        raise ValueError(f"the int8 file is no smaller; {json.dumps(found_all)}")
    return found_all


def _usual_db(want: np.ndarray, have: np.ndarray) -> float:
    """Signal to noise of the sample in the middle.

    A router that sends one of eight samples to another expert makes that one's noise the whole noise; what was said of
    the file holds for the others.
    """
    signal, noise = (
        np.square(each, dtype=np.float64).reshape(len(want), -1).sum(1)
        for each in (want, want.astype(np.float64) - have)
    )
    return float(np.median(np.minimum(99.0, 10 * np.log10(signal / np.maximum(noise, 1e-30)))))


def _joined(runs: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(each) for each in zip(*runs, strict=True)]

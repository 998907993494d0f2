"""`edgekit explain`: whether the compressed network is right for the same reasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli import show
from edgekit.cli.compressing import BUDGET_MISSED
from edgekit.cli.onnx_files import named, running_file, shared_spec
from edgekit.cli.options import HOW, AsJson, Threads
from edgekit.cli.proof import Split, split_of
from edgekit.cli.stages import Pruned
from edgekit.device.verify import is_bundle
from edgekit.errors import EdgekitError
from edgekit.report import interval
from edgekit.units import parse_duration_s

if TYPE_CHECKING:  # They need torch, and --help need not wait for them.
    from edgekit.explain import ConceptScore, Explanation
    from edgekit.workload import WorkloadConfig

CONCEPTS = "Concepts"


def explain(
    config: WorkloadConfig,
    file: Annotated[
        list[Path],
        typer.Option(
            "--file",
            "-f",
            help="An ONNX file or a bundle; may be given several times. The first is the original, in fp32.",
        ),
    ],
    pruned: Pruned = None,
    samples: Annotated[int, typer.Option(min=1, help="Explain at most so many samples, evenly spaced.")] = 64,
    min_explanation_correlation: Annotated[
        float | None,
        typer.Option(
            min=-1.0,
            max=1.0,
            help="A gate: exit with 3 where a file's mean rank correlation with the original's occlusion maps is below "
            "this. The yardstick beside it (the original against itself, occluded in another way) says what is noise.",
        ),
    ] = None,
    split: Split = "test",
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How much is covered at a time: pixels, steps, features or tokens.  \\[default: a sixth of an image's "
            "sides, a 24th of a sequence, one feature or token]",
            rich_help_panel=HOW,
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="How far the window moves.  \\[default: half of the window]", rich_help_panel=HOW),
    ] = None,
    value: Annotated[
        float | None,
        typer.Option(
            help="What a covered part becomes, and the baseline of integrated gradients.  \\[default: the mean of each "
            "channel or feature; token 0]",
            rich_help_panel=HOW,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Module for Grad-CAM and concepts, as in model.named_modules().  \\[default: the last one whose "
            "output has places; for concepts else the last one below the output]",
            rich_help_panel=HOW,
        ),
    ] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=EXAMPLES",
            help="A concept to test (TCAV), and where its examples are: a folder of images, an .npz, or "
            "file.py:function; may be given several times. Counter-examples are drawn from the calibration data.",
            rich_help_panel=CONCEPTS,
        ),
    ] = None,
    repetitions: Annotated[
        int, typer.Option(min=2, help="Sets of random counter-examples for each concept.", rich_help_panel=CONCEPTS)
    ] = 20,
    time: Annotated[
        str | None,
        typer.Option(help="Begin no further sample's occlusion after this long: 30s, 5m.", rich_help_panel=HOW),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=0, help="Samples to draw, those with the largest drift first.", rich_help_panel=HOW)
    ] = 8,
    threads: Threads = 1,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for explain.json and pictures.")] = Path("explained"),
    json: AsJson = False,
) -> None:
    """Say whether compressed files are right for the same reasons: maps of both side by side, and how far they agree.

    Occlusion covers parts of the input and runs the ONNX files themselves, so it sees int8: the rank correlation of
    original and compressed maps, over samples that both get right, is the explanation drift. A yardstick beside it says
    what is noise. Saliency, integrated gradients, Grad-CAM, attention and concepts look into the PyTorch modules: the
    original, and with --pruned the compressed one.

    Example: edgekit explain net.py:model --train net.py:train_data --test net.py:test_data -f model.onnx
    -f model.int8.onnx --min-explanation-correlation 0.8
    """
    from edgekit.explain import concept_data
    from edgekit.explain import explain as look
    from edgekit.prune import replay
    from edgekit.workload import load_workload

    if len(file) < 2:
        raise EdgekitError(
            f"got {len(file)} file", where="--file", rule="the original and at least one compressed file"
        )
    time_s = None if time is None else parse_duration_s(time, "--time")
    with TemporaryDirectory(prefix="edgekit-explain-") as scratch, show.progress(quiet=json) as progress:
        files = {
            name: running_file(path, Path(scratch, f"{number}.onnx")) if is_bundle(path) else path
            for number, (name, path) in enumerate(_named(file).items())
        }
        spec = shared_spec(list(files.values()))
        workload = load_workload(config)
        found = look(
            workload,
            files,
            spec=spec,
            data=split_of(config, workload, split),
            samples=samples,
            window=window,
            stride=stride,
            value=value,
            compressed=None if pruned is None else replay(workload.factory, pruned),
            layer=layer,
            concepts={
                name: concept_data(config.resolved(reference), workload.image)
                for name, reference in map(_concept, concept or ())
            },
            repetitions=repetitions,
            time_s=time_s,
            threads=threads,
            seed=config.seed,
            progress=progress,
        )
        written = found.save(out, workload, pictures=pictures)
    broken = () if min_explanation_correlation is None else found.broken(min_explanation_correlation)
    if json:
        show.data({**found.to_dict(), "broken": list(broken), "pictures": [str(path) for path in written]})
    else:
        _say(found, workload.labels, out, broken)
    if broken:
        raise typer.Exit(BUDGET_MISSED)


def _say(found: Explanation, labels: Sequence[str], out: Path, broken: Sequence[str]) -> None:
    drift = found.drift
    show.table(
        f"explanation drift: occlusion maps against those of {drift.original}",
        ("file", "rank correlation [95 %]", "samples both get right", "largest drift: sample (correlation)"),
        [
            (
                each.file,
                _estimate(each.correlation),
                str(each.both_right),
                ", ".join(f"{worst['sample']} ({worst['correlation']:.2f})" for worst in each.largest[:3]),
            )
            for each in drift.files
        ],
    )
    show.out.print(f"yardstick {_estimate(drift.yardstick)}: {drift.yardstick_by}", markup=False)
    if found.gradients is not None and found.gradients.correlations:
        rows = [(method, _estimate(each)) for method, each in found.gradients.correlations.items()]
        show.table("original and compressed module", ("method", "rank correlation [95 %]"), rows)
    if found.attention is not None and found.attention.rollout_correlation is not None:
        rollout = _estimate(found.attention.rollout_correlation)
        show.out.print(f"attention rollout: rank correlation {rollout}", markup=False)
    if found.concepts:
        show.table(
            "concepts (TCAV)",
            ("concept", "class", "network", "score [95 %]", "random [95 %]", "p", "significant"),
            [_concept_row(each, labels) for each in found.concepts],
        )
    more = () if found.gradients is None else found.gradients.notes
    for note in (*drift.notes, *found.notes, *more):
        show.out.print(f"note: {note}", markup=False)
    show.out.print(f"wrote {out / 'explain.json'} and pictures", markup=False)
    for each in broken:
        show.out.print(f"gate broken: {each}", markup=False)


def _concept_row(each: ConceptScore, labels: Sequence[str]) -> tuple[str, ...]:
    return (
        each.concept,
        labels[each.output] if each.output < len(labels) else str(each.output),
        f"{each.module} ({each.layer})",
        _estimate(each.score),
        _estimate(each.random),
        f"{each.p:.2g}",
        "yes" if each.significant else "no",
    )


def _estimate(estimate: Any) -> str:
    return interval(None if estimate is None else estimate.to_dict(), 2)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Files and bundles under names that tell them apart."""
    bundles = [path for path in paths if is_bundle(path)]
    names = {path: name for name, path in named([path for path in paths if path not in bundles]).items()}
    return {names.get(path, str(path)): path for path in paths}


def _concept(text: str) -> tuple[str, str]:
    name, separator, reference = text.partition("=")
    if not separator or not name or not reference:
        raise EdgekitError(
            f"got {text!r}",
            where="--concept",
            rule="NAME=EXAMPLES, a folder of images, an .npz or file.py:function",
            way_out="write for instance --concept stripes=pictures/stripes",
        )
    return name, reference

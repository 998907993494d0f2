"""A point of a front for further kinds of CPU: which file each gets, by ONNX Runtime and by the bundle on disk."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from edgekit.cli import main
from edgekit.device.variants import rank
from edgekit.device.verify import open_bundle
from edgekit.export import export
from edgekit.quantize import quantize
from edgekit.search import Front, Member, Point
from edgekit.stats import Estimate
from edgekit.store import file_sha256
from edgekit.validate import calibration_feeds
from edgekit.workload import load_callable, load_workload
from tests.answers import right

KINDS = ("x86-vnni", "x86-avx2", "arm64")
NONE = Estimate(value=0.0, low=0.0, high=0.0, n=1)


@pytest.fixture(scope="module")
def run(config_for, tmp_path_factory):
    """The folder of a run whose first point is in int8 for VNNI, its second in fp32; the data beside it."""
    folder, config = tmp_path_factory.mktemp("run"), config_for()
    teacher = load_callable(config.model.replace(":network", ":teacher"))()
    workload = load_workload(config)
    exported = export(teacher, workload.example(2), folder / "fp32.onnx", dynamic="batch")
    feeds = list(calibration_feeds(workload, exported.spec))
    quantize(exported.path, feeds, folder / "int8.onnx", spec=exported.spec, target="x86-vnni")

    def member(name, precision, target):
        path = folder / f"{precision}.onnx"
        size = path.stat().st_size
        return Member(
            point=Point(name=name, latency_ms=1.0, drop=NONE, size_bytes=size),
            file=path.name,
            source="fp32.onnx",
            sha256=file_sha256(path),
            precision=precision,
            target=target,
            choices={},
        )

    members = (member("a", "int8", "x86-vnni"), member("b", "fp32", "any"))
    front = Front(name="net", metric="top-1 accuracy", unit="points", workload=config, members=members)
    front.save(folder)
    return SimpleNamespace(folder=folder, selection=list(workload.splits.selection))


def bundled(capsys, run, out, *words):
    """The exit code, and what was said on stdout."""
    code = main(["bundle", "--run", str(run.folder), "--out", str(out), *words])
    return code, capsys.readouterr()


def test_each_kind_gets_a_file_of_its_own_with_figures_of_the_selection_split(run, tmp_path, capsys):
    out = tmp_path / "net.edgekit"
    code, said = bundled(capsys, run, out, "--point", "1", "--also", ",".join(KINDS), "--json")
    assert code == 0, said.err
    kinds = json.loads(said.out)["kinds"]
    assert sorted(kinds) == ["arm64", "x86-avx2"]
    manifest = open_bundle(out).manifest
    assert manifest.metrics["kinds"] == kinds
    original, files = right(run.folder / "fp32.onnx", run.selection, "any"), {}
    for isa in KINDS:
        variant = rank(manifest.variants, provider=None, available=["CPUExecutionProvider"], isa=isa)[0].variant
        assert (variant.target, variant.precision) == (isa, "int8")
        files[isa] = (out / variant.file).read_bytes()
        if isa in kinds:
            found = right(out / variant.file, run.selection, isa)
            assert kinds[isa]["metric"]["value"] == pytest.approx(found.mean())
            assert kinds[isa]["drop"]["value"] == pytest.approx((original - found).mean())
    assert files["x86-vnni"] == (run.folder / "int8.onnx").read_bytes()
    assert len(set(files.values())) == 3


def test_what_was_made_once_is_not_made_again(run, tmp_path, capsys):
    stamps = []
    for name in ("a", "b"):
        code, said = bundled(capsys, run, tmp_path / name, "--point", "1", "--also", "arm64")
        assert code == 0, said.err
        assert "arm64: top-1 accuracy" in said.out
        made = (run.folder / "stages").glob("kinds-*/arm64.onnx")
        stamps.append(sorted((str(path), path.stat().st_mtime_ns) for path in made))
    assert stamps[0] == stamps[1] != []


def test_the_points_own_kind_needs_no_further_file(run, tmp_path, capsys):
    code, said = bundled(capsys, run, tmp_path / "net", "--point", "1", "--also", "x86-vnni", "--json")
    assert code == 0, said.err
    assert "kinds" not in json.loads(said.out)
    assert [each.name for each in open_bundle(tmp_path / "net").manifest.variants] == ["cpu-int8"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--point", "2", "--also", "arm64"], "point 2 is in fp32, which every processor runs"),
        (["--point", "1", "--also", "arm"], "unknown 'arm'"),
        (["--point", "3", "--also", "arm64"], "1 to 2"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(run, tmp_path, capsys, words, problem):
    code, said = bundled(capsys, run, tmp_path / "net", *words)
    assert code == 4
    assert problem in said.err
    assert not (tmp_path / "net").exists()

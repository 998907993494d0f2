"""Quantizers in processes of their own: what they are given, what is measured of them, and how they fail."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.spec import IOSpec, TensorSpec

TOOLS = Path(__file__).parents[2] / "tools"
RUNNERS = TOOLS / "quantizer_benchmark" / "runners"
MEGABYTE = 10**6

RUNNER = """
import sys
sys.path.insert(0, {runners!r})
from harness import run

def load():
    {imports}
    def make(job):
        {body}
    return make

run(load, "no_such_package", ("numpy", "no-such-distribution"))
"""


@pytest.fixture(scope="module")
def processes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        from quantizer_benchmark import processes

        yield processes
    for name in [name for name in sys.modules if name.startswith("quantizer_benchmark")]:
        del sys.modules[name]


@pytest.fixture
def make(processes, tmp_path):
    """Run a quantizer whose `make(job)` is `body` on three batches, and return what `processes.make` does."""

    def run(body: str, *, imports: str = "pass", python: Path | None = None):
        runner, model = tmp_path / "run_it.py", tmp_path / "model.onnx"
        runner.write_text(RUNNER.format(runners=str(RUNNERS), imports=imports, body=body))
        model.write_bytes(b"fp32")
        spec = IOSpec(inputs=(TensorSpec(name="a/b", dtype="float32", shape=("batch", 2)),), outputs=())
        batches = [{"a/b": np.full((size, 2), size, np.float32)} for size in (3, 3, 1)]
        quantizer = processes.Quantizer(name="it", made_by="it", how="", runner=runner, install="pip install it")
        with processes.job_for(model, spec, iter(batches), "arm64") as job:
            return processes.make(quantizer, job, tmp_path / "made.onnx", python)

    return run


def test_it_gets_the_file_and_the_batches_and_may_read_them_twice(make, tmp_path):
    process = make(
        "sums = [[float(feeds['a/b'].sum()) for feeds in job.calibration] for _ in range(2)]; "
        "job.path.write_bytes(job.model.read_bytes() + b' made int8'); "
        "return f'{sums} {len(job.calibration)} {job.samples} {job.way} {job.target} {job.fixed_batch}'"
    )
    assert process.note == "[[18.0, 18.0, 2.0], [18.0, 18.0, 2.0]] 3 7 it arm64 None"
    assert (tmp_path / "made.onnx").read_bytes() == b"fp32 made int8"
    assert process.versions == {"numpy": np.__version__}


def test_memory_and_time_of_the_import_are_told_apart(make):
    process = make(
        "import numpy as np, time; time.sleep(0.2); np.ones(25_000_000); job.path.write_bytes(b''); return ''",
        imports="import time, numpy as np; time.sleep(0.1); np.ones(12_500_000)",
    )
    assert process.seconds >= 0.2
    assert process.import_seconds >= 0.1
    assert process.process_seconds > process.seconds + process.import_seconds
    # 200 MB of float64 while the file is made, 100 MB while the tool is imported; both were let go.
    assert process.peak_bytes > 200 * MEGABYTE
    assert 100 * MEGABYTE < process.imported_bytes < process.peak_bytes - 80 * MEGABYTE
    assert "note" not in process.to_dict()


def test_what_it_leaves_where_it_runs_goes(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "modules")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "found_there.py").touch()
    make("open('left.txt', 'w').close(); job.path.write_bytes(b''); return ''", imports="import found_there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.onnx", "model.onnx", "modules", "run_it.py"]


def test_what_this_process_holds_is_not_counted(make):
    held = np.ones(50_000_000)
    process = make("job.path.write_bytes(b''); return ''")
    assert process.peak_bytes < held.nbytes


@pytest.mark.parametrize(
    ("body", "imports", "told"),
    [
        ("return ''", "import no_such_package", ("not installed", "pip install it")),
        (
            "return ''",
            "import nor_what_it_needs",
            ("failed", "ModuleNotFoundError: No module named 'nor_what_it_needs'"),
        ),
        ("raise ValueError('bad /home/someone/model.onnx')", "pass", ("failed", "ValueError: bad model.onnx")),
        ("return ''", "pass", ("failed", "it left no file")),
        ("import os; os.kill(os.getpid(), 9)", "pass", ("failed", "its process was killed by SIGKILL")),
        ("raise SystemExit('out of it')", "pass", ("failed", "its process ended with exit code 1: out of it")),
    ],
)
def test_however_it_fails_there_is_a_reason(make, processes, body, imports, told):
    with pytest.raises(processes.NoFile) as caught:
        make(body, imports=imports)
    assert (caught.value.status, caught.value.reason) == told


def test_it_runs_in_the_environment_that_is_named(make, processes, tmp_path):
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    process = make("import sys; job.path.write_bytes(b''); return sys.executable", python=link)
    assert process.note == "python"  # Published, hence without its folder.
    link.unlink()
    with pytest.raises(processes.NoFile, match="its interpreter does not start"):
        make("return ''", python=link)


def test_nncf_is_given_sample_by_sample(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(RUNNERS))
    import harness
    import run_nncf

    batches = [{"x": np.arange(6).reshape(3, 2)}, {"x": np.arange(2).reshape(1, 2)}]
    assert harness.write_batches(batches, tmp_path) == 4
    given = {"model": tmp_path, "path": tmp_path, "way": "", "target": "", "spec": {}}
    job = harness.Job(**given, calibration=harness.Batches(tmp_path), samples=4, fixed_batch=None)
    samples = run_nncf.Samples(job)
    assert len(samples) == 4
    assert [feeds["x"].tolist() for feeds in samples] == [[[0, 1]], [[2, 3]], [[4, 5]], [[0, 1]]]
    for name in ("harness", "run_nncf"):
        del sys.modules[name]

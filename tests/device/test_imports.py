"""A device has numpy and onnxruntime, nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

REPORT = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
UPPER = "import json, sys; print(json.dumps(sorted(name for name in sys.modules if name.startswith('edgekit.'))))"
ALLOWED_EDGEKIT = (
    "edgekit.choices",
    "edgekit.device",
    "edgekit.errors",
    "edgekit.spec",
    "edgekit.stats",
    "edgekit.units",
    "edgekit.progress",
)


def fresh(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_loads_numpy_and_the_standard_library_only():
    before = set(fresh(REPORT))
    loaded = set(fresh(f"import edgekit.device; {REPORT}")) - before
    foreign = {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign == {"edgekit", "numpy"}


def test_importing_loads_nothing_of_the_upper_layers():
    loaded = fresh(f"import edgekit.device; {UPPER}")
    assert [name for name in loaded if not name.startswith(ALLOWED_EDGEKIT)] == []


@pytest.mark.parametrize("verb", ["load('BUNDLE').check()", "doctor()", "inspect('BUNDLE')"])
def test_working_loads_neither_torch_nor_onnx_nor_pillow(bundle, verb):
    loaded = fresh(f"import edgekit.device as d; d.{verb.replace('BUNDLE', str(bundle))}; {REPORT}")
    assert not {"torch", "onnx", "onnx_ir", "PIL", "google"} & set(loaded)


def test_a_device_without_the_rest_installed_works(bundle):
    """Whatever else is imported fails, as where it is not installed."""
    absent = ["torch", "onnx", "onnx_ir", "PIL", "rich", "typer", "sklearn", "google"]
    block = f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n"
    work = f"from edgekit.device import load; print(load({str(bundle)!r}).check().samples)"
    assert fresh(block + work) == 2


def test_every_module_is_imported_where_there_is_nothing_of_unix():
    """Python on Windows lacks these modules."""
    absent = ["fcntl", "grp", "pwd", "resource", "termios"]
    block = f"import pkgutil, sys\nsys.modules.update(dict.fromkeys({absent}))\nimport edgekit.device as device\n"
    found = "names = [each.name for each in pkgutil.walk_packages(device.__path__, 'edgekit.device.')]\n"
    work = "for name in names: __import__(name)\nprint(len(names))"
    assert fresh(block + found + work.replace("\nprint", "\n\nprint")) > 40


def test_the_library_never_prints(bundle):
    code = f"from edgekit.device import *; doctor(); load({str(bundle)!r}).check(); inspect({str(bundle)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def layers():
    spec = importlib.util.spec_from_file_location("check_layers", ROOT / "tools" / "check_layers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_layers"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["check_layers"]


@pytest.fixture
def tree(tmp_path):
    """Write files below a package and return its root."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "edgekit" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_this_checkout_holds(layers):
    assert [str(violation) for violation in layers.check(ROOT)] == []


def test_a_good_tree_holds(layers, tree):
    root = tree(
        {
            "__init__.py": "",
            "errors.py": "import json\nimport numpy as np\n",
            "device/session.py": "from edgekit import errors\n\ndef runtime():\n    import onnxruntime\n",
            "device/processing/image.py": "def load():\n    from PIL import Image\n",
            "device/__main__.py": "print('hello')\n",
            "tasks/task.py": "import torch\nfrom edgekit.errors import EdgekitError\n",
            "workload/batch.py": "from edgekit.tasks import outputs_of\nfrom .batch import Batch\n",
            "export/convert.py": "from edgekit.workload import Batch\nfrom . import naming\n",
            "validate/score.py": "from edgekit.export import Exported\n",
            "cli/__init__.py": "import sys\nfrom edgekit.compress import compress\nprint(1)\nsys.exit(0)\n",
            "__main__.py": "import sys\nfrom edgekit.cli import main\nsys.exit(main())\n",
        }
    )
    assert layers.check(root) == []
    assert layers.main([str(root)]) == 0


@pytest.mark.parametrize(
    "case",
    [
        ("stats.py", "import json\nimport torch\n", 2, "layers 1 and 2 need numpy and the standard library alone"),
        ("device/x.py", "def f():\n    import onnx\n", 2, "layers 1 and 2 need numpy"),
        ("device/x.py", "def f():\n    import onnxruntime\n", 2, "layers 1 and 2 need numpy"),
        ("device/session.py", "import onnxruntime\n", 1, "it is imported where it is needed"),
        ("device/processing/image.py", "from PIL import Image\n", 1, "it is imported where it is needed"),
        ("__init__.py", "import torch\n", 1, "layers 1 and 2"),
        ("errors.py", "from edgekit.device import session\n", 1, "layer 1 (errors) imports nothing of layer 2"),
        ("tasks/x.py", "from edgekit.export import export\n", 1, "layer 3 (tasks) imports nothing of layer 4"),
        (
            "export/x.py",
            "def f():\n    import edgekit.quantize.plan\n",
            2,
            "export and quantize never import each other",
        ),
        ("export/x.py", "from edgekit import prune\n", 1, "export and prune never import each other"),
        ("export/x.py", "from ..quantize import quantize\n", 1, "export and quantize never import each other"),
        ("export/x.py", "from .. import cli\n", 1, "layer 4 (export) imports nothing of layer 7"),
        ("distill/x.py", "if TYPE_CHECKING:\n    from edgekit.validate import Score\n", 2, "nothing of layer 5"),
        ("report/x.py", "from edgekit.compress import run\n", 1, "layer 5 (report) imports nothing of layer 6"),
        ("helpers/x.py", "", 1, "every room has its place"),
        ("export/x.py", "from edgekit.helpers import f\n", 1, "'helpers' is in no layer"),
        ("export/x.py", "def f():\n    print(1)\n", 2, "only the CLI prints and exits"),
        ("compress/x.py", "import sys\nsys.exit(3)\n", 2, "only the CLI prints and exits"),
        ("compress/x.py", "raise SystemExit(3)\n", 1, "only the CLI prints and exits"),
        ("compress/x.py", "raise SystemExit\n", 1, "only the CLI prints and exits"),
    ],
)
def test_each_violation_is_found_with_its_place(layers, tree, capsys, case):
    name, text, line, said = case
    root = tree({"__init__.py": "", name: text})
    (violation,) = layers.check(root)
    assert (violation.path.as_posix(), violation.line) == (f"edgekit/{name}", line)
    assert said in violation.why
    assert layers.main([str(root)]) == 1
    assert capsys.readouterr().out.startswith(f"edgekit/{name}:{line}: ")


def test_an_empty_folder_does_not_pass(layers, tmp_path):
    assert layers.main([str(tmp_path)]) == 1

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["edgekit", "edgekit.device", "edgekit.store", "edgekit.stats"])
def test_light_modules_load_neither_torch_nor_onnx(module):
    heavy = "{'torch', 'onnx', 'onnx_ir', 'onnxruntime', 'rich', 'typer', 'sklearn', 'PIL'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

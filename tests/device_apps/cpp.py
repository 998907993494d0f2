"""The C++ loader's programs for tests: built with cmake, run where a variable names the library of ONNX Runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import onnxruntime

from tests.required import absent

SOURCE = Path(__file__).parents[2] / "tools/device_apps/cpp"
CAPI = Path(onnxruntime.__file__).parent / "capi"


def build(folder, *targets, **options):
    """Configure and build with cmake; returns where the programs are."""
    missing = [name for name in ("cmake", "c++") if shutil.which(name) is None]
    if missing:
        absent("CPP", f"no {' and no '.join(missing)} here: the C++ loader is not built")
    flags = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(["cmake", "-S", SOURCE, "-B", folder, "-DEDGEKIT_BUILD_TESTS=ON", *flags], check=True)
    subprocess.run(["cmake", "--build", folder, "-j", "2", "--target", *targets], check=True)
    return folder


class Programs:
    """The built programs, run in an environment that names the library."""

    def __init__(self, folder, library, prefix=(), **environment):
        self.folder, self.prefix = folder, prefix
        self.environment = {**os.environ, "EDGEKIT_ONNXRUNTIME": str(library), "ORT_DISABLE_TELEMETRY": "1"}
        self.environment |= environment

    def run(self, program, *arguments, code=0, **environment):
        done = subprocess.run(
            [*self.prefix, self.folder / program, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**self.environment, **environment},
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def probe(self, *arguments):
        return self.run("probe", *arguments).stdout

    def classify(self, *arguments, **environment):
        return json.loads(self.run("classify", "--json", *arguments, **environment).stdout)

    def refused(self, *arguments):
        return json.loads(self.run("classify", "--json", *arguments, code=4).stdout)["error"]

    def answer(self, bundle, file):
        return self.classify(bundle, file)["answers"][0]["answer"]

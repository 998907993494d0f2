"""The loaders in other languages, installed or built, and a signed bundle for them."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest

from tests.required import absent

HERE = Path(__file__).parent
node = runpy.run_path(str(HERE / "node.py"))
cpp = runpy.run_path(str(HERE / "cpp.py"))
made = runpy.run_path(str(HERE / "bundles.py"))
signatures = runpy.run_path(str(HERE / "signatures.py"))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package's folder, its modules beside it, and the tests' scripts in it."""
    place = node["workspace"](tmp_path_factory.mktemp("node"), "js") / "js"
    for script in (HERE / "js").glob("*.mjs"):
        shutil.copy(script, place)
    return place


@pytest.fixture(scope="module")
def drive(package, tmp_path_factory):
    """What `drive.mjs` answers to requests."""

    def run(requests):
        path = tmp_path_factory.mktemp("request") / "request.json"
        path.write_text(json.dumps(requests))
        return node["run"](package / "drive.mjs", path, where=package)

    return run


@pytest.fixture(scope="session")
def library():
    found = sorted([*cpp["CAPI"].glob("libonnxruntime.so.*"), *cpp["CAPI"].glob("libonnxruntime.*.dylib")])
    if not found:
        absent("CPP", f"no library of ONNX Runtime in {cpp['CAPI']}")
    return found[0]


@pytest.fixture(scope="session")
def programs(tmp_path_factory, library):
    # No optimization: compiling takes longer than all that is run.
    folder = cpp["build"](tmp_path_factory.mktemp("build"), "classify", "probe", CMAKE_BUILD_TYPE="Plain")
    return cpp["Programs"](folder, library)


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory, library):
    folder = cpp["build"](
        tmp_path_factory.mktemp("sanitized"), "classify", "probe", EDGEKIT_SANITIZE="ON", CMAKE_BUILD_TYPE="Plain"
    )
    return cpp["Programs"](
        folder,
        library,
        ASAN_OPTIONS="detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
        UBSAN_OPTIONS="print_stacktrace=1",
    )


@pytest.fixture(scope="session")
def keys():
    """A private key on each curve."""
    return signatures["new_keys"]()


@pytest.fixture(scope="session")
def signed(tmp_path_factory, keys):
    """A bundle as a folder and as a zip, and its signatures by curve; the last one lies beside it."""
    from edgekit.bundle import sign_bundle

    pytest.importorskip("model_signing", reason="pip install 'edgekit[signing]'")
    folder = tmp_path_factory.mktemp("signed")
    bundle, _ = made["echo"](folder)
    zipped, texts = made["pack"](bundle), {}
    for name, private in keys.items():
        (folder / "private.pem").write_bytes(signatures["private_pem"](private))
        path = sign_bundle(bundle, folder / "private.pem")
        texts[name] = path.read_text()
    assert path == bundle.with_name(f"{bundle.name}.sig")
    return bundle, zipped, texts

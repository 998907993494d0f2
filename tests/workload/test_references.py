from __future__ import annotations

import sys

import pytest

from edgekit.errors import WorkloadError
from edgekit.workload import load_callable


@pytest.fixture
def project(tmp_path):
    (tmp_path / "sibling_of_net.py").write_text("WIDTH = 7\n")
    (tmp_path / "lazy_sibling.py").write_text("DEPTH = 3\n")
    (tmp_path / "net.py").write_text(
        "from sibling_of_net import WIDTH\n"
        "class Thing:\n    pass\n"
        "def width():\n    return WIDTH\n"
        "def depth():\n    from lazy_sibling import DEPTH\n    return DEPTH\n"
        "def fails():\n    return {}['nothing']\n"
        "constant = 5\n"
    )
    yield tmp_path
    for name in ("sibling_of_net", "lazy_sibling"):
        sys.modules.pop(name, None)


def test_siblings_import_and_the_path_is_left_clean(project):
    before = list(sys.path)
    assert load_callable(f"{project / 'net.py'}:width")() == 7
    assert load_callable(f"{project / 'net.py'}:depth")() == 3
    assert sys.path == before


def test_classes_can_be_pickled_by_the_modules_stable_name(project):
    thing = load_callable(f"{project / 'net.py'}:Thing")
    again = load_callable(f"{project / 'net.py'}:Thing")
    assert type(thing()) is type(again())
    assert sys.modules[type(thing()).__module__].Thing is type(thing())


def test_an_edited_file_is_loaded_anew(project):
    (project / "net.py").write_text("def width():\n    return 9\n")
    assert load_callable(f"{project / 'net.py'}:width")() == 9


def test_a_module_of_a_package():
    assert load_callable("os.path:basename")("a/b") == "b"


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("net.py", "got 'net.py'"),
        ("absent.py:model", "no file"),
        ("no_such_package.module:model", "no module 'no_such_package.module'"),
        ("math:no_such", "'no_such' is missing"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(reference, text):
    with pytest.raises(WorkloadError) as caught:
        load_callable(reference)
    assert text in str(caught.value)
    assert "path/to/file.py:function or package.module:function" in str(caught.value)


def test_what_is_no_function_lists_those_there_are(project):
    with pytest.raises(WorkloadError) as caught:
        load_callable(f"{project / 'net.py'}:constant")
    assert "it has: Thing, depth, fails, width" in str(caught.value)


def test_a_function_that_raises_shows_the_users_exception_and_line(project):
    with pytest.raises(WorkloadError) as caught:
        load_callable(f"{project / 'net.py'}:fails")()
    assert "KeyError: key 'nothing'" in str(caught.value)
    assert f"{project / 'net.py'}:10 in fails" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "text"), [("import no_such_thing\n", "No module named"), ("x = (\n", "SyntaxError"), ("1 / 0\n", "Zero")]
)
def test_a_file_that_cannot_be_imported_says_why(tmp_path, source, text):
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(WorkloadError) as caught:
        load_callable(f"{tmp_path / 'broken.py'}:model")
    assert text in str(caught.value)
    assert "broken.py:1" in str(caught.value)

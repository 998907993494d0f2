"""What lies in artifacts/ is whole, indexed, small, and says what the README says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "artifacts").glob("*/report.json"))


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def folder(request):
    return request.param


def test_there_are_artifacts():
    assert FOLDERS


def test_the_index_names_each(folder):
    assert f"`{folder.name}`" in (ROOT / "artifacts" / "README.md").read_text()


def test_the_bundle_is_whole_and_reproduces_its_golden_vectors(folder):
    from edgekit.device import inspect, isa_target, load

    (bundle,) = folder.glob("*.edgekit")
    # Whole on any machine; answers are promised on those that it was made for.
    made_for = {each["target"] for each in inspect(bundle)["variants"] if each["provider"] == "cpu"}
    if not made_for & {isa_target(), "any"}:
        pytest.skip(f"made for {', '.join(sorted(made_for))}, this processor is {isa_target()}")
    model = load(bundle)
    assert model.check().samples >= 1


def test_the_report_fits_its_bundle_and_its_own_rows(folder):
    from edgekit.device import inspect

    report = json.loads((folder / "report.json").read_text())
    (bundle,) = folder.glob("*.edgekit")
    rows = {row["stage"]: row for row in report["stages"]}
    chosen = rows[report["verdict"]["chosen"]]
    assert inspect(bundle)["provenance"]["file_sha256"] == chosen["sha256"]
    limit = report["budget"]["max_drop_points"]
    assert report["verdict"]["holds"] == (chosen["drop"]["value"] <= limit)
    # The drop is the difference of the metrics, whichever way each was computed.
    assert chosen["drop"]["value"] == pytest.approx(rows["fp32"]["metric"]["value"] - chosen["metric"]["value"])
    assert report["splits"]["test"]["n"] == chosen["metric"]["n"]


def strings(value):
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def test_no_folder_of_the_machine_that_made_it_is_in_it(folder):
    for path in folder.rglob("*.json"):
        found = [text for text in strings(json.loads(path.read_text())) if Path(text).is_absolute()]
        assert not found, path


def test_all_together_stay_small():
    assert sum(path.stat().st_size for path in (ROOT / "artifacts").rglob("*") if path.is_file()) < 10_000_000


def test_the_table_in_the_readme_is_that_of_the_report():
    report = ROOT / "artifacts" / "resnet20-cifar10" / "report.json"
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "readme_table.py", report, "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_page_about_quantizers_is_that_of_its_reports():
    if not (ROOT / "artifacts" / "quantizers").is_dir():
        pytest.skip("the comparison with other quantizers is not published here: run tools/quantizer_table.py")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "quantizer_table.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (ROOT / "artifacts" / "quantizers").glob("*.json"):
        assert not [text for text in strings(json.loads(path.read_text())) if Path(text).is_absolute()], path

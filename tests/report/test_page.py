"""The page of a run, as a browser shows it."""

import base64
import csv
import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgekit.report import compare, read_run
from edgekit.report.page import comparison_page, page, write_page

ARTIFACTS = sorted((Path(__file__).parents[2] / "artifacts").glob("*/report.json"))
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CELLS = """[...document.querySelectorAll('#stages tbody tr')].map(row =>
    [...row.children].map(cell => [cell.querySelector('data')?.value ?? null, cell.innerText.trim()]))"""


def shown(browser, kind):
    wanted = f"""[...document.querySelectorAll('.chart svg.{kind}')]
        .map(svg => [
            svg.closest('figure').id, svg.getBoundingClientRect().width, svg.querySelector('title').textContent])"""
    return browser.value(wanted)


def numbers(text):
    return [float(each) for each in re.findall(r"-?\d+\.\d+", text.replace("−", "-"))]


def test_it_opens_alone_and_says_nothing(browser, saved_page):
    browser.open(saved_page)
    assert browser.said() == []
    assert browser.requests() == [saved_page.resolve().as_uri()]
    assert browser.value("document.scripts.length") == 0
    assert browser.value("[...document.querySelectorAll('[src], link, iframe, object')].length") == 0
    # A policy that holds: what is not ours does not run, and nothing is fetched.
    browser.value(
        "document.body.insertAdjacentHTML('beforeend', '<img src=https://example.org/x onerror=window.ran=1>')"
    )
    browser.value("new Promise(done => setTimeout(done, 200))")
    assert browser.value("window.ran === undefined")
    assert any("violates" in json.dumps(each) for each in browser.said())


def test_every_chart_is_there_with_words(browser, saved_page):
    browser.open(saved_page)
    charts = shown(browser, "wide")
    assert [name for name, _, _ in charts] == ["tradeoff", "latencies", "decisions"]
    assert all(width > 500 and title for _, width, title in charts)
    assert all(width == 0 for _, width, _ in shown(browser, "narrow"))
    # Limits and what is chosen are written, not only coloured.
    assert "limit of the budget: 0.5 points" in browser.value("document.querySelector('#tradeoff .wide').textContent")
    assert "pruned-1-int8 (chosen)" in browser.value("document.querySelector('#latencies .wide').textContent")


def test_figures_are_those_of_the_report(browser, saved_page, report):
    browser.open(saved_page)
    rows = browser.value(CELLS)
    assert len(rows) == len(report["stages"])
    for cells, row in zip(rows, report["stages"], strict=True):
        assert cells[0][1].split()[0] == row["stage"]
        assert ("chosen" in cells[0][1]) == (row["stage"] == "pruned-1-int8")
        for at, key in ((1, "metric"), (2, "drop"), (3, "latency"), (4, "ratio_to_fp32")):
            assert float(cells[at][0]) == row[key]["value"]
            if key != "latency":
                expected = [round(row[key][part], 2) for part in ("value", "low", "high")]
                assert numbers(cells[at][1]) == pytest.approx(expected, abs=0.0051)
        assert int(cells[6][0]) == row["size_bytes"]
    tiles = browser.value("[...document.querySelectorAll('.tile .figure data')].map(each => Number(each.value))")
    assert tiles == [3.0, 0.375, 250_000, 97.25]
    marks = browser.value("document.querySelectorAll('#tradeoff .wide .mark').length")
    assert marks == len(report["candidates"])
    assert browser.value("document.querySelectorAll('#decisions .wide .mark.accent').length") == 1
    assert browser.value("document.querySelectorAll('#decisions .wide .mark.hollow').length") == 3
    total = browser.value("Number(document.querySelector('#seconds tr.sum data').value)")
    assert total == sum(report["seconds"].values())


def test_marks_stand_where_their_figures_are(browser, saved_page, report):
    browser.open(saved_page)
    found = browser.value(
        """[...document.querySelectorAll('#tradeoff .wide .mark')].map(mark => {
            const box = mark.getBBox(); return [box.x + box.width / 2, mark.querySelector('title').textContent]})"""
    )
    places = {title.split(":")[0]: x for x, title in found}
    by_ms = sorted(report["candidates"], key=lambda each: each["selection_latency_ms"])
    assert sorted(places, key=places.get) == [each["file"] for each in by_ms]
    # The axis is linear here: pixels are an affine function of milliseconds.
    ms = [each["selection_latency_ms"] for each in by_ms]
    x = [places[each["file"]] for each in by_ms]
    slope = (x[2] - x[0]) / (ms[2] - ms[0])
    assert x[1] == pytest.approx(x[0] + slope * (ms[1] - ms[0]), abs=0.3)


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways(browser, saved_page, dark):
    browser.open(saved_page, width=390, height=844, mobile=True, dark=dark)
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    assert all(300 < width <= 390 for _, width, _ in shown(browser, "narrow"))
    size = browser.value("Number.parseFloat(getComputedStyle(document.querySelector('.narrow text')).fontSize)")
    assert size * 354 / 350 > 11.5


def background(browser):
    return browser.value("getComputedStyle(document.body).backgroundColor")


def test_dark_follows_the_system_and_the_switch(browser, saved_page):
    light = background(browser.open(saved_page))
    dark = background(browser.open(saved_page, dark=True))
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(16, 20, 25)")
    fill = "getComputedStyle(document.querySelector('svg text.label')).fill"
    in_dark = browser.value(fill)
    browser.value("document.querySelector('#theme-light').click()")
    assert background(browser) == light
    assert browser.value(fill) != in_dark
    browser.open(saved_page)
    browser.value("document.querySelector('#theme-dark').click()")
    assert background(browser) == dark
    # Paper is white whatever is chosen.
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert background(browser) == light
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.send("Emulation.setEmulatedMedia", media="")


def test_it_prints(browser, saved_page):
    assert browser.open(saved_page).pdf().startswith(b"%PDF-")


def test_downloads_are_the_figures(browser, saved_page, report, make):
    browser.open(saved_page)
    name, data = browser.save("a[download='report.json']")
    assert (name, json.loads(data)) == ("report.json", report)
    name, data = browser.save("a[download='stages.csv']")
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert [row["stage"] for row in rows] == [row["stage"] for row in report["stages"]]
    assert float(rows[2]["ratio_to_fp32"]) == report["stages"][2]["ratio_to_fp32"]["value"]
    name, data = browser.save("a[download='latency.csv']")
    times = make.raw(report)["int8"]["samples_ms"]
    row = next(row for row in csv.DictReader(io.StringIO(data.decode())) if row["file"] == "int8")
    assert float(row["p90_ms"]) == pytest.approx(np.quantile(times, 0.9))


def test_names_are_text(browser, report, tmp_path, make):
    evil = "<script>window.ran=1</script><img src=x onerror=window.ran=1>\"'"
    report |= {"name": evil, "metric": evil, "unit": evil, "notes": [evil], "next_commands": [evil]}
    report["stages"][2]["stage"] = report["verdict"]["chosen"] = report["candidates"][2]["file"] = evil
    report["choices"][0]["choices"][0]["text"] = report["choices"][0]["rungs"][0]["choices"][0] = f"remove {evil}"
    report["environment"]["before"]["cpu"]["model"] = evil
    report["splits"][evil] = {"n": 1, "sha256": evil, "source": evil}
    report["settings"][evil] = report["providers"][0]["provider"] = evil
    report["behaviour"] = behaviour(make, evil)
    report["explanations"] = {"notes": [evil], "panels": [{"png_base64": evil, "caption": evil, "class": evil}]}
    run = read_run(make.save(tmp_path / "run", report))
    browser.open(write_page(run))
    assert browser.value("window.ran === undefined && document.scripts.length === 0")
    assert browser.value("[...document.images].every(each => each.src.startsWith('data:image/png;base64,iVBORw'))")
    assert browser.said() == []
    assert evil in browser.value("document.querySelector('h1').textContent")
    path = tmp_path / "comparison.html"
    path.write_text(comparison_page(compare(report, make.report())))
    browser.open(path)
    assert browser.value("window.ran === undefined && document.scripts.length === 0")
    assert browser.said() == []


def behaviour(make, name):
    row = {
        "index": 0,
        "name": name,
        "n": 9,
        "reference": make.estimate(80),
        "candidate": None,
        "drop": make.estimate(1.5),
    }
    bins = [{"confidence": 0.6, "accuracy": 0.5, "n": 10}, {"confidence": 0.9, "accuracy": 0.9, "n": 30}]
    side = {"ece": make.estimate(2.0), "ece_equal_width": 2.1, "confidence": 90.0, "accuracy": 88.0, "bins": bins}
    slices = [{"perturbation": name, "severity": 2, "setting": name, "added": None}]
    slices[0] |= {key: make.estimate(3.0) for key in ("reference", "candidate", "drop")}
    answer = {"prediction": 1, "name": name, "confidence": 0.5, "value": 0.0}
    return {
        "reference": "fp32",
        "candidate": name,
        "n": 400,
        "classes": {
            "metric": name,
            "rows": [row, {**row, "index": 1, "name": "other", "drop": make.estimate(-0.5)}],
            "worst": {
                "index": 0,
                "name": name,
                "drop": make.estimate(1.5),
                "compared": 2,
                "chance": 1.0,
                "p_value": 0.2,
            },
        },
        "churn": {"of": "samples", "changed": make.estimate(4.0), "counts": {"changed": 16}, "needed": None},
        "calibration": {"reference": side, "candidate": side, "rise": make.estimate(0.5)},
        "outputs": None,
        "robustness": {
            "n": 9,
            "unit": "points",
            "clean": None,
            "slices": slices,
            "drop": make.estimate(1.0),
            "worst": None,
        },
        "broken_samples": {
            "n": 1,
            "order": name,
            "shown": [{"index": 7, "label_name": name, "reference": answer, "candidate": answer, "picture": PIXEL}],
        },
        "missing": {"outputs": name},
        "notes": [name],
        "gates": [{"gate": "max_churn", "limit": 3.0, "figure": make.estimate(4.0), "holds": False}],
    }


def test_behaviour_explanations_and_operators_have_their_sections(browser, report, tmp_path, make):
    browser.open(write_page(read_run(make.save(tmp_path / "without", report))))
    absent = "[...document.querySelectorAll('#behaviour, #explanations, #operators-time')].length"
    assert browser.value(absent) == 0
    report["behaviour"] = behaviour(make, "cat")
    report["explanations"] = {
        "original": "fp32",
        "samples": {"explained": 60},
        "yardstick": {"what": "the original again", "correlation": make.estimate(0.95, 0.01)},
        "files": [{"file": "int8", "both_right": 59, "correlation": make.estimate(0.75, 0.01)}],
        "panels": [{"class": "cat", "caption": "sample 17", "png_base64": PIXEL}],
        "notes": ["a remark"],
    }
    kernels = [{"name": "/conv1", "operator": "Conv", "provider": "cpu", "us": 30.0}]
    kernels += [{"name": "/conv2", "operator": "Conv", "provider": "cpu", "us": 12.5}]
    report["operators"] = {"fp32": {"rows": kernels}, "pruned-1-int8": {"rows": kernels[1:]}}
    browser.open(write_page(read_run(make.save(tmp_path / "with", report))))
    assert browser.said() == []
    assert browser.value(absent) == 3
    names = [name for name, width, _ in shown(browser, "wide") if width]
    assert {"classes", "reliability", "operators"} < set(names)
    bars = "[...document.querySelectorAll('#operators .wide rect title')].map(each => each.textContent)"
    assert browser.value(bars) == ["Conv, fp32: 42.5 µs", "Conv, pruned-1-int8: 12.5 µs"]
    assert browser.value("Number(document.querySelector('#churn data').value)") == 4.0
    assert browser.value("Number(document.querySelector('#drift data').value)") == 0.75
    assert browser.value("[...document.images].every(each => each.naturalWidth === 1)")
    assert browser.value("document.images.length") == 2
    assert "✕ churn: 4.00 %" in browser.value("document.querySelector('.gates').textContent")


@pytest.mark.parametrize("path", ARTIFACTS, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("older", [False, True], ids=["as it is", "without what is new"])
def test_reports_of_older_versions_have_a_page(browser, path, older, tmp_path):
    run = read_run(path)
    if older:
        run.report.pop("front", None)
        assert "front" not in run.report
    browser.open(write_page(run, tmp_path / "old.html"))
    assert browser.said() == []
    assert browser.value("document.querySelectorAll('#stages tbody tr').length") == len(run.report["stages"])


def test_a_comparison_is_a_page_of_the_same_kind(browser, report, tmp_path, make):
    other = make.report()
    other["stages"][2]["drop"] = make.estimate(2.0, 0.1)
    other["settings"]["threads"] = 4
    path = tmp_path / "comparison.html"
    path.write_text(comparison_page(compare(report, other)))
    browser.open(path, width=390, height=844, mobile=True)
    assert browser.said() == []
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    assert browser.value("document.querySelector('#drops .narrow') !== null")
    assert "threads" in browser.value("document.querySelector('#settings').textContent")
    assert "1 and 4 threads" in browser.value("document.querySelector('.notes').textContent")


def test_a_large_run_stays_small(report, tmp_path, make):
    rng = np.random.default_rng(0)
    report["choices"][0]["choices"] = [
        {"subject": f"layer{n // 4}", "text": f"layer{n // 4}: 512 -> {n}", "damage": float(rng.exponential())}
        | {"gain_ms": float(rng.exponential()), "gain_bytes": 1000}
        for n in range(5000)
    ]
    report["stages"][1]["details"] = {"plan": [[f"value{n}", float(rng.random())] for n in range(60_000)]}
    run = read_run(make.save(tmp_path / "run", report))
    run.latencies["fp32"]["samples_ms"] = rng.lognormal(0, 0.2, 300_000).tolist()
    text = page(run)
    assert len(text.encode()) < 3_000_000
    packed = re.search(r'download="report.json.gz" href="data:application/gzip;base64,([^"]+)"', text)
    assert json.loads(gzip.decompress(base64.b64decode(packed[1]))) == report


def test_equal_runs_have_equal_pages(run):
    assert page(run) == page(run)

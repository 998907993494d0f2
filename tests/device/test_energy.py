from __future__ import annotations

import pytest

from edgekit.device.energy import rapl


def zone(root, name, energy, limit):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    return folder


@pytest.fixture
def two_packages(tmp_path):
    """As Linux shows a machine of two sockets: packages, sub-zones, and the same package once more over MMIO."""
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl-mmio:0"):
        zone(tmp_path, name, 1_000, 10_000)
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def test_packages_are_added_and_what_is_in_them_is_not(two_packages):
    counters = rapl(two_packages)
    assert sorted(counters.zones) == ["intel-rapl:0", "intel-rapl:1"]
    before = counters.read()
    for name, energy in (("intel-rapl:0", 4_000), ("intel-rapl:1", 1_500), ("intel-rapl:0:0", 9_000)):
        (two_packages / name / "energy_uj").write_text(str(energy))
    assert counters.joules(before, counters.read()) == pytest.approx(0.0035)


def test_a_counter_that_began_anew_is_counted_on(two_packages):
    counters = rapl(two_packages)
    before = counters.read()
    (two_packages / "intel-rapl:0" / "energy_uj").write_text("200")
    assert counters.joules(before, counters.read()) == pytest.approx((10_000 - 1_000 + 200) / 1e6)


def test_a_counter_that_can_no_longer_be_read_gives_no_number(two_packages):
    counters = rapl(two_packages)
    before = counters.read()
    (two_packages / "intel-rapl:1" / "energy_uj").unlink()
    assert counters.joules(before, counters.read()) is None


def test_no_counters_no_energy(tmp_path):
    assert rapl(tmp_path / "absent") is None
    (zone(tmp_path, "intel-rapl:0", 5, 10) / "energy_uj").write_text("")
    assert rapl(tmp_path) is None

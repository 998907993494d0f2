from __future__ import annotations

import json
import platform

import onnxruntime
import pytest

from edgekit.device import environment
from edgekit.device.environment import ARM_FLAGS, X86_FLAGS, describe, isa_flags, isa_target

VNNI = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni\ncpu MHz\t\t: 2596.1\n"
AVX2 = "processor\t: 0\nmodel name\t: Old CPU\nflags\t\t: fpu avx2 fma\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nModel\t\t: Board 5\n"


def test_describes_this_machine_in_json():
    about = describe()
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    assert about["versions"]["onnxruntime"] == onnxruntime.__version__
    assert about["providers"] == onnxruntime.get_available_providers()
    assert about["cpu"]["architecture"] == platform.machine()
    assert about["cpu"]["cores"] >= 1
    assert set(about["cpu"]["flags"]) <= {*X86_FLAGS, *ARM_FLAGS}


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "target"),
    [
        ("x86_64", VNNI, "x86-vnni"),
        ("x86_64", AVX2.replace("fma", "avx_vnni"), "x86-vnni"),
        ("AMD64", AVX2, "x86-avx2"),
        ("x86_64", AVX2.replace("avx2", ""), "x86"),
        ("aarch64", ARM, "arm64"),
        ("riscv64", "", "riscv64"),
    ],
)
def test_target(monkeypatch, machine, cpuinfo, target):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(environment, "_read", lambda path: cpuinfo if path == "/proc/cpuinfo" else None)
    assert isa_target() == target


def test_cpuinfo_of_both_worlds(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(environment, "_read", lambda path: ARM if path == "/proc/cpuinfo" else None)
    assert isa_flags() == {"asimd", "asimddp", "i8mm"}
    assert environment.cpu_model() == "Board 5"
    monkeypatch.setattr(environment, "_read", lambda path: VNNI if path == "/proc/cpuinfo" else None)
    assert isa_flags() == {"avx2", "avx512f", "avx512_vnni"}
    assert environment.cpu_model() == "Some CPU"
    assert describe()["cpu"]["frequency_mhz"] == 2596.1


def test_macos(monkeypatch):
    answers = {"hw.optional.AdvSIMD": "1\n", "hw.optional.arm.FEAT_DotProd": "1\n", "machdep.cpu.brand_string": "M9\n"}
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(environment, "_output", lambda *words: answers.get(words[-1], ""))
    about = describe()
    assert about["isa_target"] == "arm64"
    assert about["cpu"]["flags"] == ["asimd", "asimddp"]
    assert about["cpu"]["model"] == "M9"


def test_a_system_that_tells_nothing_is_no_error(monkeypatch):
    monkeypatch.setattr("sys.platform", "plan9")
    monkeypatch.setattr(environment, "_read", lambda _: None)
    monkeypatch.setattr(environment, "_output", lambda *_: "")
    for name in ("getloadavg", "sysconf", "sched_getaffinity"):
        monkeypatch.delattr(f"os.{name}", raising=False)
    about = describe()
    assert about["cpu"]["flags"] == []
    assert about["cpu"]["load_average"] is None
    assert about["memory_bytes"] is None
    assert about["gpus"] == []


def test_governor_and_temperature(monkeypatch, tmp_path):
    files = {
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000",
    }
    monkeypatch.setattr(environment, "_read", files.get)
    about = describe()["cpu"]
    assert (about["governor"], about["frequency_mhz"]) == ("powersave", 1800.0)
    assert environment._temperature_c() is None
    assert tmp_path.exists()


def test_programs_that_are_missing_or_fail_say_nothing():
    assert environment._output("no-such-program-here") == ""
    assert environment._output("false") == ""
    assert environment._read("/no/such/file") is None

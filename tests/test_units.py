import pytest

from edgekit.errors import EdgekitError
from edgekit.units import parse_duration_s


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("20", 20), ("1.5m", 90), (" 2H ", 7200)]
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3m", "soon", "5x", "m5", "1h-3m", "nan", "inf"])
def test_what_is_no_duration_is_refused_with_the_way_out(text):
    with pytest.raises(EdgekitError, match=r"write 90s, 15m or 1h30m") as caught:
        parse_duration_s(text, "--time")
    assert caught.value.where == "--time"
    assert repr(text) in caught.value.problem

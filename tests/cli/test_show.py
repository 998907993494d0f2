"""How results and progress look where a terminal is narrow, dumb, or none."""

import io

import pytest
from rich.console import Console

from edgekit.cli import show
from edgekit.progress import Step

HEADERS = ("file", "accuracy", "latency", "verdict")
ROWS = [("mobilenet-v2.int8.onnx", "88.14 [87.24, 89.04]", "338.2 µs", "faster"), ("b", "", "1 ms", "slower")]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    """Print a table on a console of some width; gives its lines."""

    def at(width):
        file = io.StringIO()
        monkeypatch.setattr(show, "out", Console(file=file, width=width, highlight=False, soft_wrap=True))
        show.table("results", HEADERS, ROWS)
        return file.getvalue().splitlines()

    return at


def test_a_table_that_fits_is_a_table(screen):
    lines = screen(80)
    assert lines[0].strip() == "results"
    assert max(map(len, lines)) <= 80
    assert any("mobilenet-v2.int8.onnx" in line and "338.2 µs" in line for line in lines)


def test_a_table_that_barely_fits_breaks_its_cells_and_cuts_none(screen):
    lines = screen(50)
    assert max(map(len, lines)) <= 50
    assert "…" not in "".join(lines)
    assert any("338.2 µs" in line for line in lines)


@pytest.mark.parametrize("width", [30, 12])
def test_where_a_table_does_not_fit_nothing_is_cut(screen, width):
    text = "".join("".join(screen(width)).split())
    for cell in (cell for row in ROWS for cell in row):
        assert "".join(cell.split()) in text
    assert "…" not in text


def test_a_row_becomes_a_paragraph_without_its_empty_cells(screen):
    assert screen(20)[1:] == [
        "mobilenet-v2.int8.onnx",
        "  accuracy  88.14 [87.24, 89.04]",
        "  latency   338.2 µs",
        "  verdict   faster",
        "b",
        "  latency  1 ms",
        "  verdict  slower",
    ]


def written(monkeypatch, file, **environment):
    """What progress leaves in a file that stands for stderr."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", file)
    monkeypatch.setattr(show, "err", Console(stderr=True, highlight=False, width=100))
    with show.progress() as progress:
        for done in range(5):
            progress(Step("training", done, 4, {"loss": 0.5}))
    return file.getvalue()


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_log_has_a_few_plain_lines_and_no_control_characters(monkeypatch, environment):
    text = written(monkeypatch, io.StringIO(), **environment)
    assert text == "training: 0/4  loss 0.5\ntraining: 4/4  loss 0.5\n"


def test_a_dumb_terminal_gets_lines(monkeypatch):
    assert "\x1b" not in written(monkeypatch, Terminal(), TERM="dumb")


def test_a_terminal_gets_a_bar(monkeypatch):
    text = written(monkeypatch, Terminal(), TERM="xterm")
    assert "\x1b[" in text
    assert "4/4" in text


def test_no_color_leaves_no_colours_on_a_terminal(monkeypatch):
    assert "\x1b[3" not in written(monkeypatch, Terminal(), TERM="xterm-256color", NO_COLOR="1").replace("\x1b[3m", "")


def test_long_work_says_how_much_is_left(monkeypatch):
    clock = iter([100.0, 104.0, 120.0])
    monkeypatch.setattr(show.time, "monotonic", lambda: next(clock))
    file = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=file, highlight=False))
    writer = show._LineWriter()
    for done in (0, 2, 4):
        writer(Step("training", done, 16))
    # Four of sixteen took 20 seconds; the second step came too soon for a line.
    assert file.getvalue() == "training: 0/16  \ntraining: 4/16  about 1 min 0 s left  \n"


def test_work_that_is_told_of_at_its_end_alone_is_no_fault(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=file))
    show._LineWriter()(Step("loading", 3, 3))
    assert "loading: 3/3" in file.getvalue()


def test_ticks_are_a_bar_on_a_terminal_and_nothing_in_a_log(monkeypatch):
    for file, said in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stderr", file)
        monkeypatch.setattr(show, "err", Console(stderr=True, highlight=False, width=100))
        with show.ticking("pruning", 2, quiet=False) as tick:
            for _ in range(4):
                tick()
        assert ("2/2" in file.getvalue()) == said
        assert bool(file.getvalue()) == said

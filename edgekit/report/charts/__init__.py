"""Charts of a report: drawn as data here, written as SVG by a template, coloured by the page's style sheet."""

from edgekit.report.charts.decisions import decisions, ranked
from edgekit.report.charts.intervals import Interval, intervals
from edgekit.report.charts.latencies import latencies
from edgekit.report.charts.pairs import Pair, pairs
from edgekit.report.charts.reliability import reliability
from edgekit.report.charts.svg import Chart, Drawing, Element, Key
from edgekit.report.charts.tradeoff import tradeoff

__all__ = [
    "Chart",
    "Drawing",
    "Element",
    "Interval",
    "Key",
    "Pair",
    "decisions",
    "intervals",
    "latencies",
    "pairs",
    "ranked",
    "reliability",
    "tradeoff",
]

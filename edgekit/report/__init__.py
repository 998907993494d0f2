"""What a run found: as data, as tables people read, as a page, a comment, a model card."""

from edgekit.report.card import CardFacts, card, facts_of
from edgekit.report.comment import comment
from edgekit.report.comparison import Comparison, compare
from edgekit.report.figures import figures, to_csv
from edgekit.report.report import ProviderRow, Report, StageRow, Verdict
from edgekit.report.saved import SavedRun, read_run
from edgekit.report.scatter import Mark, picture, scatter
from edgekit.report.table import interval, markdown, other_table, stage_table
from edgekit.report.travelling import without_pictures
from edgekit.report.usage import readme

__all__ = [
    "CardFacts",
    "Comparison",
    "Mark",
    "ProviderRow",
    "Report",
    "SavedRun",
    "StageRow",
    "Verdict",
    "card",
    "comment",
    "compare",
    "facts_of",
    "figures",
    "interval",
    "markdown",
    "other_table",
    "picture",
    "read_run",
    "readme",
    "scatter",
    "stage_table",
    "to_csv",
    "without_pictures",
]

"""What a run found, as data, and as tables people read."""

from edgekit.report.report import ProviderRow, Report, StageRow, Verdict
from edgekit.report.scatter import Mark, picture, scatter
from edgekit.report.table import interval, markdown, stage_table

__all__ = [
    "Mark",
    "ProviderRow",
    "Report",
    "StageRow",
    "Verdict",
    "interval",
    "markdown",
    "picture",
    "scatter",
    "stage_table",
]

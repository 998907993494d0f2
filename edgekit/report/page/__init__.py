"""The report as one HTML file."""

from edgekit.report.page.comparison import comparison_page
from edgekit.report.page.page import PAGE, page, write_page

__all__ = ["PAGE", "comparison_page", "page", "write_page"]

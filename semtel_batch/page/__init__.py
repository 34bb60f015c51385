"""A report as one page of HTML: no script, nothing loaded from anywhere, readable without its pictures."""

from semtel_batch.page.comparison_page import comparison_sheet
from semtel_batch.page.layout import rendered, write_sheet
from semtel_batch.page.report_page import Story, page_of, write_page

__all__ = ["Story", "comparison_sheet", "page_of", "rendered", "write_page", "write_sheet"]

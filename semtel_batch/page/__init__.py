"""A report as one page of HTML: no script, nothing loaded from anywhere, readable without its pictures."""

from semtel_batch.page.report_page import Story, page_of, write_page

__all__ = ["Story", "page_of", "write_page"]

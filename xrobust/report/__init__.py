"""What people look at: tables on the terminal, figures, and a page for each run."""

from xrobust.report.page import write_report
from xrobust.report.run import Run, read_run
from xrobust.report.terminal import print_summary

__all__ = ["Run", "print_summary", "read_run", "write_report"]

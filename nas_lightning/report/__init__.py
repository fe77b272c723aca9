"""The report of a study: claims, the paper's tables and figures, a page. No torch."""

from nas_lightning.report.claims import Claim, examine_claims
from nas_lightning.report.figures import ReportFigure, report_figures
from nas_lightning.report.page import write_report
from nas_lightning.report.table_files import ReportTable
from nas_lightning.report.tables import report_tables

__all__ = [
    "Claim",
    "ReportFigure",
    "ReportTable",
    "examine_claims",
    "report_figures",
    "report_tables",
    "write_report",
]

"""The report of a study: claims, the paper's tables and figures, a page. No torch."""

from nas_lightning.report.blocks import ReportPicture, ReportTable
from nas_lightning.report.claims import Claim, examine_claims
from nas_lightning.report.page import write_report
from nas_lightning.report.pictures import report_pictures
from nas_lightning.report.tables import report_tables

__all__ = [
    "Claim",
    "ReportPicture",
    "ReportTable",
    "examine_claims",
    "report_pictures",
    "report_tables",
    "write_report",
]

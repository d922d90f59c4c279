"""The report of an export or a verification: one page that needs nothing else."""

from pspike_deploy.report.html.data import LayerSpikes, ReportData
from pspike_deploy.report.html.page import render, write_report

__all__ = ["LayerSpikes", "ReportData", "render", "write_report"]

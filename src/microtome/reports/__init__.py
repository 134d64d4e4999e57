"""Reports: a record to one HTML file with verdicts, figures and tables. Reads only records; loads no torch."""

from microtome.reports.render import export_figures, render
from microtome.reports.views import View, parse_view

__all__ = ["View", "export_figures", "parse_view", "render"]

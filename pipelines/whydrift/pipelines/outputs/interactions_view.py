"""The pairs of features whose joint effect moved, as a page beside the report. It has no part in the verdict."""

from __future__ import annotations

from whydrift.monitors.interactions import Interactions
from whydrift.monitors.verdict import Verdict
from whydrift.pipelines.outputs import charts
from whydrift.pipelines.outputs.report import environment


def render(found: Interactions, verdict: Verdict, *, report_link: str) -> str:
    """The page as HTML; equal arguments give equal bytes.

    Args:
        found: interaction values of the window's rows compared with those of the baseline's golden rows.
        verdict: of the window.
        report_link: address of the report.
    """
    template = environment().get_template("interactions.html.j2")
    return template.render(found=found, v=verdict, report_link=report_link, palette=charts.PALETTE)

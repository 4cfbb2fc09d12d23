"""The search for slices around its arithmetic: what the baseline fixes, and the newest windows' cells."""

from __future__ import annotations

from collections.abc import Sequence

from whydrift.monitors.attribution import moments
from whydrift.monitors.cell_sums import fit_usual, read_cells, read_usual, summarise_cells
from whydrift.monitors.slices import SearchRules, promote, search_columns
from whydrift.monitors.summary import Layout, WindowSummary, merge
from whydrift.pipelines.config import Config
from whydrift.pipelines.rows import Summariser
from whydrift.pipelines.sources.records import Records
from whydrift.pipelines.window import Window


def search_rules(config: Config) -> SearchRules:
    """The configuration as the monitors take it."""
    asked = config.slice_search
    return SearchRules(asked.min_rows, asked.min_effect, asked.false_discoveries)


def find_slices(
    config: Config,
    summariser: Summariser,
    summaries: Sequence[WindowSummary],
    cohorts: Sequence[tuple[Window, Records]],
) -> tuple[Layout, WindowSummary]:
    """The layout with the columns to search and the slices to watch, and the cells of the reference period.

    Nothing is searched of several classes, without labels or without a column that has two values.
    """
    asked, layout, whole = config.slice_search, summariser.layout, merge(summaries).frame()
    together = moments(whole, layout)
    if config.labels is not None and together is not None and not layout.classes:
        layout = search_columns(whole, layout, together.share, asked.columns, asked.max_columns)
    if not layout.searched:
        return layout, WindowSummary.zero()
    windows = [
        read_cells(summarise_cells(batch, layout), layout)
        for cohort, records in cohorts
        if (batch := summariser.matured(cohort, records)) is not None
    ]
    cells = fit_usual(windows, layout)
    return promote(read_usual(cells, layout), layout, search_rules(config), asked.promote), cells

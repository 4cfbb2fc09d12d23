"""The window as Evidently shows it, for teams that know its pages. It has no part in the verdict.

Evidently writes names and values into a script of its page unescaped, and the values of small samples one by one.
So `<` is replaced in all texts, and each column is shuffled by itself: values can be read off the page, rows cannot.
"""

from __future__ import annotations

import os
import warnings
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.errors import ConfigError, DataError

_HARMLESS = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"  # stands for `<`
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "font-src data:; img-src data: blob:"
)


def render(reference: pd.DataFrame, current: pd.DataFrame, *, report_link: str) -> str:
    """Evidently's data drift page, with a line above it that leads back to the report.

    Args:
        reference: a sample of the baseline, a column per feature and `shap__<feature>` per attribution.
        current: a sample of the window with the same columns.
        report_link: address of the report.

    Raises:
        ConfigError: if Evidently is not installed or cannot be imported.
        DataError: if no column has values on both sides.
    """
    preset, report, dataset, definition = _import()
    columns = [c for c in reference.columns if c in current.columns]
    filled = [c for c in columns if reference[c].notna().any() and current[c].notna().any()]
    if not filled:
        raise DataError("no column has values both in the baseline's sample and in the window's: nothing to show")
    rng = np.random.default_rng(0)
    before, after = (_prepare(side[filled], rng) for side in (reference, current))
    numeric = [c for c in before.columns if before[c].dtype != object and after[c].dtype != object]
    schema = definition(
        numerical_columns=numeric, categorical_columns=[c for c in before.columns if c not in set(numeric)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Evidently and what it calls: none says anything about our data
        snapshot = report([preset()]).run(dataset.from_pandas(after, schema), dataset.from_pandas(before, schema))
        page: str = snapshot.get_html_str(as_iframe=False)
    return _frame(page, report_link, empty=[c for c in columns if c not in filled])


def _import() -> tuple[Any, Any, Any, Any]:
    os.environ["DO_NOT_TRACK"] = "1"  # Evidently reports its use over the network otherwise
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from evidently import DataDefinition, Dataset, Report
            from evidently.presets import DataDriftPreset
    except ImportError as error:
        raise ConfigError(
            f"the Evidently view cannot be made: {error}. Install it with: pip install 'whydrift[evidently]'"
            " (it needs pandas before 3.1)"
        ) from error
    return DataDriftPreset, Report, Dataset, DataDefinition


def _prepare(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Numbers as float64 and all else as harmless text, each column in an order of its own."""
    prepared = {}
    for name, column in frame.items():
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            values = np.array([None if pd.isna(v) else _defuse(str(v)) for v in column], dtype=object)
        prepared[_defuse(str(name))] = rng.permutation(values)
    return pd.DataFrame(prepared).astype({n: object for n, v in prepared.items() if v.dtype == object})


def _defuse(text: str) -> str:
    return text.replace("<", _HARMLESS)


def _frame(page: str, report_link: str, empty: list[str]) -> str:
    """The page with a policy against loading anything, and the way back."""
    left_out = f" Without values, so not shown: {escape(', '.join(map(str, empty)))}." if empty else ""
    bar = (
        '<div style="font:14px/1.5 system-ui,sans-serif;padding:10px 24px;border-bottom:1px solid #d9dee5">'
        f'<a href="{escape(report_link)}">Back to the WhyDrift report</a>. Below are distributions and tests as'
        f" Evidently sees them; its thresholds have no part in the verdict.{left_out}</div>"
    )
    page = page.replace("<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{_POLICY}">', 1)
    return page.replace("<body>", f"<body>{bar}", 1)

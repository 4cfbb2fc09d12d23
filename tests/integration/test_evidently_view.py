"""The Evidently view, made by the real Evidently."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from whydrift.pipelines.errors import ConfigError, DataError
from whydrift.pipelines.outputs.evidently_view import render

HOSTILE = "</script><img src=x onerror=alert(1)>"


def _sample(rows: int, shift: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "temp": rng.normal(shift, 1, rows),
            "hour": rng.integers(0, 24, rows),
            "origin": rng.choice(["EWR", "JFK", HOSTILE], rows),
            "holiday": rng.random(rows) < 0.1,
            "precip": np.zeros(rows),
            "gust": np.full(rows, np.nan),
            "shap__temp": rng.normal(0, 0.1 + shift, rows),
            f"shap__{HOSTILE}": rng.normal(0, 0.1, rows),
        }
    )
    frame.loc[::3, "temp"] = np.nan
    frame.loc[::5, "origin"] = None
    return frame


@pytest.fixture(scope="module")
def page() -> str:
    return render(_sample(1200, 0.0, 1), _sample(120, 1.0, 2), report_link='report.html?a=1&b="2"')


def _data(page: str) -> dict:
    start = re.search(r"var metric_\w+ = ", page)
    assert start
    return json.JSONDecoder().raw_decode(page, start.end())[0]


def _widgets(widget: dict) -> list[dict]:
    return [widget, *(inner for part in widget.get("widgets", []) for inner in _widgets(part))]


@pytest.mark.slow
def test_the_page_shows_every_column_that_has_values_and_names_the_others(page):
    shown = json.dumps(_data(page))
    for column in ("temp", "hour", "origin", "holiday", "precip", "shap__temp"):
        assert f'"{column}"' in shown
    assert "Without values, so not shown: gust." in page


@pytest.mark.slow
def test_evidently_finds_the_drift_that_was_put_in(page):
    tables = [w for w in _widgets(_data(page)) if w.get("type") == "big_table"]
    drifted = {row["column_name"]: row["data_drift"] for row in tables[0]["params"]["data"]}
    assert drifted["temp"] == drifted["shap__temp"] == "Detected"
    assert drifted["precip"] == drifted["hour"] == "Not Detected"
    assert HOSTILE.replace("<", "‹") in {name.removeprefix("shap__") for name in drifted}


@pytest.mark.slow
def test_the_page_leads_back_and_loads_nothing(page):
    assert '<a href="report.html?a=1&amp;b=&quot;2&quot;">' in page
    assert '<head><meta http-equiv="Content-Security-Policy" content="default-src \'none\';' in page
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=[\"']https?:", page)


@pytest.mark.slow
def test_names_and_values_cannot_leave_the_script(page):
    assert HOSTILE not in page


@pytest.mark.slow
def test_rows_cannot_be_put_together_again():
    rows = 100  # so few that Evidently's page carries single values
    frame = pd.DataFrame({"a": np.arange(rows) + 0.25, "b": np.arange(rows) + 0.5})
    page = render(frame, frame, report_link="report.html")
    graphs = re.search(r"var additional_graphs_metric_\w+ = ", page)
    assert graphs
    series = [
        trace["y"]
        for graph in json.JSONDecoder().raw_decode(page, graphs.end())[0].values()
        for trace in graph["params"]["data"]
        if trace.get("name") == "current (mean)"
    ]
    a, b = (np.array([v for v in y if v is not None]) for y in series)
    assert sorted(a) == list(frame["a"])
    assert (b - a == 0.25).mean() < 0.1


def test_columns_without_any_value_are_an_error_that_says_so():
    empty = pd.DataFrame({"temp": [np.nan, np.nan]})
    with pytest.raises(DataError, match="no column has values"):
        render(empty, empty, report_link="report.html")


def test_without_evidently_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "evidently", None)
    frame = pd.DataFrame({"temp": [1.0]})
    with pytest.raises(ConfigError, match=re.escape("pip install 'whydrift[evidently]'")):
        render(frame, frame, report_link="report.html")

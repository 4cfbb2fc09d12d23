"""The calibrated page threshold: simulated once, when the baseline is made, and kept in its manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from whydrift.monitors.evidence import MIN_BASELINE_WINDOWS
from whydrift.monitors.reference import BaselineWindow, calibrate_page, refer
from whydrift.monitors.summary import Layout
from whydrift.monitors.threshold import Calibrated
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import BaselineError
from whydrift.pipelines.settings import settings

logger = logging.getLogger(__name__)

_CALIBRATED = TypeAdapter(Calibrated)


def calibrate(
    config: Config, windows: Sequence[BaselineWindow], layout: Layout, digests: dict[str, str]
) -> dict[str, Any] | None:
    """What the manifest keeps: the allowance and what came of it; None unless `budget.threshold` asks for it.

    The seed is the model's digest, so that the same baseline gives the same threshold.
    """
    if config.budget.threshold == "guaranteed":
        return None
    if len(windows) < MIN_BASELINE_WINDOWS:
        return {**_allowance(config), "result": None}
    logger.info("simulating false pages for the calibrated threshold")
    reference = refer(windows, layout, settings(config), digests)
    found = calibrate_page(reference, np.random.default_rng(int(digests["model"], 16)))
    low, high = found.interval
    logger.info(
        "page threshold %.1f instead of %.1f: %.2f false pages a period in %d simulated ones (95 %%: %.2f to %.2f)",
        found.threshold,
        reference.settings.thresholds.page,
        found.false_pages,
        found.runs,
        low,
        high,
    )
    return {**_allowance(config), "result": asdict(found)}


def read_calibrated(config: Config, kept: Mapping[str, Any] | None) -> Calibrated | None:
    """The calibrated threshold that a manifest kept; None if the configuration does not ask for one.

    Raises:
        BaselineError: it asks for one, and the baseline was made without, or for another allowance.
    """
    if config.budget.threshold == "guaranteed":
        return None
    if kept is None or {name: kept[name] for name in _allowance(config)} != _allowance(config):
        then = "without one" if kept is None else f"for {kept['false_alarms']:g} in {kept['seconds'] / 86400:g} days"
        raise BaselineError(
            f"budget.threshold is calibrated, and the baseline was made {then}; make a new one with `whydrift"
            " baseline`, or set budget.threshold to guaranteed"
        )
    return None if kept["result"] is None else _CALIBRATED.validate_python(kept["result"])


def _allowance(config: Config) -> dict[str, float]:
    page = config.budget.page
    return {"false_alarms": page.false_alarms, "seconds": page.per.total_seconds()}

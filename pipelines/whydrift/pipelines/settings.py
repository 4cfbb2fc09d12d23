"""The configuration as the monitors take it."""

from __future__ import annotations

from whydrift.monitors.evidence import Thresholds
from whydrift.monitors.policy import RetrainingPolicy
from whydrift.monitors.reference import Settings
from whydrift.monitors.threshold import Calibrated
from whydrift.monitors.verdict import Mute
from whydrift.pipelines.config import Config
from whydrift.pipelines.searching import search_rules


def settings(config: Config, calibrated: Calibrated | None = None) -> Settings:
    """What the owner says about the model; `calibrated` is what the baseline keeps, if that is asked for."""
    budget, retraining = config.budget, config.retraining
    guaranteed = config.windows_in(budget.page)
    return Settings(
        width=config.window.every,
        min_rows=config.window.min_rows,
        labels=config.labels is not None,
        lag=config.label_lag,
        thresholds=Thresholds(
            page=calibrated.threshold if calibrated is not None else guaranteed, ticket=config.windows_in(budget.ticket)
        ),
        false_pages=budget.page.false_alarms,
        period=budget.page.per,
        groups=config.groups,
        policy=RetrainingPolicy(
            causes=frozenset(retraining.causes),
            min_labelled_rows=retraining.min_labelled_rows,
            cooldown=retraining.cooldown,
        ),
        search=search_rules(config),
        tolerances={kind: value for kind, value in config.tolerances.model_dump().items() if value > 0},
        holidays=frozenset(config.calendar.holidays),
        mutes=tuple(Mute(**mute.model_dump()) for mute in config.mutes),
        calibrated=calibrated,
    )

"""A page as it is written for the flights model."""

from __future__ import annotations

from datetime import UTC, datetime

from whydrift.monitors.verdict import (
    Budget,
    CalibrationResult,
    Cause,
    CauseKind,
    Channel,
    Detectable,
    FeatureAttribution,
    Finding,
    ReliabilityBin,
    Retraining,
    RowCounts,
    ScoreShift,
    SliceResult,
    Status,
    Verdict,
    WindowKey,
)


def _day(day: int) -> datetime:
    return datetime(2013, 5, day, tzinfo=UTC)


FINDINGS = (
    Finding(
        channel=Channel.CHECK,
        stream="missing_rate",
        status=Status.PAGE,
        message="temp is missing in 36.1 % of the rows; the baseline allows 2.0 %",
        feature="temp",
        value=0.361,
        baseline=0.0,
        threshold=0.02,
        onset=_day(12),
    ),
    Finding(
        channel=Channel.EVIDENCE,
        stream="share",
        status=Status.PAGE,
        message="the share of temp fell",
        feature="temp",
        value=0.082,
        baseline=0.122,
        effect=-4.2,
        interval=(0.074, 0.091),
        evidence=130.0,
        threshold=90.0,
        onset=_day(12),
        confirmed=True,
    ),
)

VERDICT = Verdict(
    key=WindowKey(model="flights", model_version="1", baseline_id="ab12" * 16, start=_day(14), end=_day(15)),
    status=Status.PAGE,
    headline="Data broken since 2013-05-12: weather is missing in 36 % of the rows, all of them origin=EWR.",
    since=_day(12),
    findings=FINDINGS,
    cause=Cause(
        kind=CauseKind.DATA_BROKEN,
        sentence="weather is missing in 36 % of the rows, all of them origin=EWR",
        onset=_day(12),
        features=("temp", "dewp"),
        group="weather",
        slice="origin=EWR",
        grounds=("temp: 36.1 % missing, baseline 0.0 %, limit 2.0 %",),
        next_step="Look at the job that fills weather.",
    ),
    retraining=Retraining(requested=True, reason="data_broken, 1,204 mature labels since the onset"),
    budget=Budget(
        false_pages=1.0,
        period_days=90.0,
        page_threshold=90.0,
        ticket_threshold=7.0,
        evidence=213.0,
        windows=44,
        pages=1,
        expected_false_pages=44 / 90,
        learning=False,
        armed=False,
    ),
    detectable=(Detectable(windows=7, effect_sd=1.8, example_feature="hour", example_share_ratio=1.2),),
    attribution=(
        FeatureAttribution(
            feature="temp",
            share=0.082,
            baseline_share=0.122,
            level=0.01,
            baseline_level=0.05,
            shift=-0.04,
            composition=-0.05,
            response=0.01,
            missing_rate=0.361,
            baseline_missing_rate=0.0,
        ),
        FeatureAttribution(
            feature="hour",
            share=0.2,
            baseline_share=0.18,
            level=-0.02,
            baseline_level=-0.03,
            shift=0.01,
            composition=0.01,
            response=0.0,
            missing_rate=0.0,
            baseline_missing_rate=0.0,
        ),
    ),
    score=ScoreShift(mean=-1.31, baseline_mean=-1.28, shift=-0.03, base_shift=0.0),
    calibration=CalibrationResult(
        cohort_start=_day(12),
        cohort_end=_day(13),
        rows=903,
        positives=118,
        intercept=-0.21,
        slope=0.8,
        smece=0.041,
        brier=0.11,
        baseline_intercept=0.02,
        baseline_slope=0.98,
        baseline_smece=0.05,
        baseline_brier=0.16,
        diagram=(
            ReliabilityBin(predicted=0.1, observed=0.08, lower=0.07, upper=0.13, rows=450.0),
            ReliabilityBin(predicted=0.4, observed=0.3, lower=0.33, upper=0.47, rows=453.0),
        ),
    ),
    slices=(
        SliceResult(
            slice="origin=EWR",
            rows=330,
            labelled=320,
            share=0.36,
            baseline_share=0.36,
            loss=0.12,
            baseline_loss=0.17,
        ),
        SliceResult(
            slice="carrier=OO", rows=1, labelled=0, share=0.001, baseline_share=0.001, loss=None, baseline_loss=0.2
        ),
    ),
    rows=RowCounts(seen=920, explained=917, labelled=903, set_aside={"infinite:temp": 2, "duplicate": 1}),
    missing_windows=0,
    digests={"model": "aa" * 32, "explainer": "bb" * 32, "config": "cc" * 32},
)

"""What every monitor returns: a status, findings, a cause, and what stands behind them.

A `Verdict` is plain data. The report, the metrics, the gate and the audit log are views of it; its JSON
schema is committed as `configs/verdict.schema.json`. Times are UTC; shares and rates are in [0, 1];
attributions are in the units of the model's margin (log-odds for a binary classifier).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from whydrift.monitors.verdict_classes import MulticlassResult
from whydrift.monitors.verdict_labels import LabelView
from whydrift.monitors.verdict_loss import LossAttribution
from whydrift.monitors.verdict_sample import RowSample
from whydrift.monitors.verdict_slices import FairnessGap, SliceSearch
from whydrift.monitors.verdict_validation import ExpectationResult, RegressionCalibration

SCHEMA_VERSION = 1


class Status(StrEnum):
    """What a window's evaluation came to. A check that did not run is never `OK`."""

    OK = "ok"
    TICKET = "ticket"
    PAGE = "page"
    INSUFFICIENT_DATA = "insufficient_data"
    NOT_EVALUATED = "not_evaluated"


class Channel(StrEnum):
    """Where a finding comes from: budgeted statistics, or a deterministic check."""

    EVIDENCE = "evidence"
    CHECK = "check"


class CauseKind(StrEnum):
    """What moved."""

    DATA_BROKEN = "data_broken"
    MODEL_CHANGED = "model_changed"
    EXPLAINER_CHANGED = "explainer_changed"
    INPUTS_MOVED = "inputs_moved"
    JOINT_MOVED = "joint_moved"
    CONCEPT_CHANGED = "concept_changed"
    LABEL_BROKEN = "label_broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowKey:
    """What a window's results are filed under; every output's name derives from it."""

    model: str
    model_version: str
    baseline_id: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One stream or check that spoke.

    `effect` is (value - baseline) in between-window standard deviations for evidence, and in units of
    the value for a check. `evidence` is the stream's weighted part of the model-level e-detector, to be
    read against `threshold`; for a check `threshold` is the limit on `value`. `interval` is the 95 % interval of
    `value`, in its unit.
    """

    channel: Channel
    stream: str
    status: Status
    message: str
    feature: str | None = None
    slice: str | None = None
    group: str | None = None
    class_name: str | None = None
    value: float | None = None
    baseline: float | None = None
    effect: float | None = None
    interval: tuple[float, float] | None = None
    evidence: float | None = None
    threshold: float | None = None
    onset: datetime | None = None
    confirmed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why, in one sentence, with the numbers it rests on."""

    kind: CauseKind
    sentence: str
    onset: datetime
    features: tuple[str, ...] = ()
    group: str | None = None
    slice: str | None = None
    class_name: str | None = None
    grounds: tuple[str, ...] = ()
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The stated false-alarm budget and what was spent.

    `evidence` is the model-level e-detector now; a page needs `page_threshold`. Where the `threshold` is guaranteed,
    at most `windows / page_threshold` false pages are expected in `windows` watched windows, by the budget lemma.
    Where it is calibrated, `simulated_false_pages` a period, with a 95 % interval, is what the baseline's own noise
    came to in simulation, and `expected_false_pages` follows from it.
    """

    false_pages: float
    period_days: float
    page_threshold: float
    ticket_threshold: float
    evidence: float
    windows: int
    pages: int
    expected_false_pages: float
    learning: bool
    armed: bool
    threshold: Literal["guaranteed", "calibrated"] = "guaranteed"
    simulated_false_pages: float | None = None
    simulated_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """Streams that somebody chose not to hear of for a while: those that are all that it names.

    It holds for windows that start in [since, until), whatever the day on which they are assessed. A muted stream
    has no evidence and learns nothing: when the mute ends it is judged by what was normal before.
    """

    since: datetime
    until: datetime
    reason: str
    kind: str | None = None
    feature: str | None = None
    slice: str | None = None
    group: str | None = None
    class_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectable:
    """The smallest shift that would have been found within `windows` windows.

    `effect_sd` is in between-window standard deviations; `example_share_ratio` says it for the most
    important feature: the share would have had to change by this factor.
    """

    windows: int
    effect_sd: float
    example_feature: str | None = None
    example_share_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureAttribution:
    """A feature's part in the window and in the baseline.

    `shift` is its part of the score shift; `composition` and `response` sum to it (Kitagawa's split:
    the feature's own inputs moved, or the same inputs are answered differently). Shares sum to 1, or are all 0
    where the answers depend on nothing. Of a multiclass model as a whole the numbers are sums over its classes.
    """

    feature: str
    share: float
    baseline_share: float
    level: float
    baseline_level: float
    shift: float
    composition: float
    response: float
    missing_rate: float
    baseline_missing_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreShift:
    """The mean output now and then. `shift` equals the sum of the features' shifts plus `base_shift`.

    `unit` is that of the outputs and attributions: log-odds, probability, or value of the prediction.
    """

    mean: float
    baseline_mean: float
    shift: float
    base_shift: float
    unit: str = "log-odds"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """One point of the reliability diagram with its 90 % consistency band."""

    predicted: float
    observed: float
    lower: float
    upper: float
    rows: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationResult:
    """Calibration of the newest mature cohort, beside the baseline's mean over its windows.

    `intercept` is calibration in the large (the slope held at 1), `slope` is Cox's.
    """

    cohort_start: datetime
    cohort_end: datetime
    rows: int
    positives: int
    intercept: float
    slope: float
    smece: float
    brier: float
    baseline_intercept: float | None
    baseline_slope: float | None
    baseline_smece: float | None
    baseline_brier: float | None
    diagram: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """A class of a multiclass model against the rest; `calibration` is None where labels are too few."""

    class_name: str
    attribution: tuple[FeatureAttribution, ...]
    score: ScoreShift | None
    calibration: CalibrationResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceResult:
    """One configured slice. Losses are means over mature labels, None where there are too few."""

    slice: str
    rows: int
    labelled: int
    share: float
    baseline_share: float
    loss: float | None
    baseline_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """Row accounting: seen = explained + set aside, and those that were not drawn, see `RowSample`."""

    seen: int
    explained: int
    labelled: int
    set_aside: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """Whether this window raises a retraining request, and why or why not."""

    requested: bool
    reason: str
    labelled_since_onset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSoundness:
    """How far a feature's attributions can be trusted; each number is a part of its mean absolute attribution.

    `error` is the sampling error of one row's attribution in this window, None where it is computed and not sampled.
    `background` is the deviation between backgrounds, None where the explainer has none. `sensitivity` is the
    largest change under noise.
    """

    feature: str
    error: float | None = None
    background: float | None = None
    sensitivity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodAgreement:
    """Another method on the same rows: shares of the `top` features that agree, and the correlation of all ranks."""

    method: str
    rows: int
    top: int
    features: float
    signs: float
    ranks: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Soundness:
    """Whether the explanations themselves hold; measured on golden rows when the baseline was made.

    Of the window itself are `not_additive`, the share of rows whose attributions miss the output, and the features'
    `error`. `noise` is in standard deviations of the inputs; `sensitivity` is a part of a row's attributions,
    `lipschitz` in units of the output per standard deviation; None without a numeric feature.
    """

    explainer: str
    rows: int
    backgrounds: int
    noise: float
    sensitivity: float | None
    lipschitz: float | None
    agreement: MethodAgreement | None
    features: tuple[FeatureSoundness, ...]
    not_additive: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatistic:
    """A number that another tool would show, with the threshold that it comes with; it has no part in the verdict.

    `of` is `attribution`, `input`, or `model` for all features together; `alerts` is None without a threshold.
    """

    statistic: str
    of: str
    feature: str | None = None
    value: float | None = None
    threshold: float | None = None
    alerts: bool | None = None
    tool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that is known of one window."""

    key: WindowKey
    status: Status
    headline: str
    since: datetime | None
    findings: tuple[Finding, ...]
    cause: Cause | None
    retraining: Retraining
    budget: Budget
    detectable: tuple[Detectable, ...]
    attribution: tuple[FeatureAttribution, ...]
    score: ScoreShift | None
    calibration: CalibrationResult | None
    slices: tuple[SliceResult, ...]
    rows: RowCounts
    missing_windows: int
    digests: dict[str, str]
    schema_version: int = SCHEMA_VERSION
    soundness: Soundness | None = None
    peers: tuple[PeerStatistic, ...] = ()
    search: SliceSearch | None = None
    labels: LabelView | None = None
    fairness: tuple[FairnessGap, ...] = ()
    expectations: tuple[ExpectationResult, ...] = ()
    regression: RegressionCalibration | None = None
    classes: tuple[ClassResult, ...] = ()
    multiclass: MulticlassResult | None = None
    sample: RowSample | None = None
    muted: tuple[Mute, ...] = ()
    loss_attribution: LossAttribution | None = None

"""The report: what it says, what it leaves out, and that nothing in a verdict can harm its reader."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta, timezone
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from whydrift.monitors.verdict import (
    Channel,
    FeatureAttribution,
    Finding,
    RowCounts,
    ScoreShift,
    Status,
    Verdict,
)
from whydrift.pipelines.outputs import charts
from whydrift.pipelines.outputs.report import SHAPES, TIMELINE_WINDOWS, render
from whydrift.pipelines.outputs.wording import MEANING

HOSTILE = (
    "<script>alert(1)</script>",
    "$x^2$",
    "a\"b'c&d",
    "--></style><img src=x onerror=alert(1)>",
    "{{ 7*7 }}",
    "気温",
)


class _Page(HTMLParser):
    """The page as a browser takes it apart: tags, attributes and texts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.heads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        if data.strip() and self.tags[-1] != "style":
            self.texts.append(" ".join(data.split()))
            if self.tags[-1] == "h2":
                self.heads.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts).replace("\N{NO-BREAK SPACE}", " ")


def _earlier(verdict: Verdict, count: int, **changes) -> list[Verdict]:
    """`count` quiet windows before a verdict, oldest first."""
    width = verdict.key.end - verdict.key.start
    return [
        replace(
            verdict,
            key=replace(verdict.key, start=verdict.key.start - n * width, end=verdict.key.end - n * width),
            **{"status": Status.OK, "since": None, "budget": replace(verdict.budget, evidence=1.5), **changes},
        )
        for n in range(count, 0, -1)
    ]


def _many_features(names) -> tuple[FeatureAttribution, ...]:
    return tuple(
        FeatureAttribution(
            feature=name,
            share=1 / len(names),
            baseline_share=1 / len(names),
            level=0.0,
            baseline_level=0.0,
            shift=0.01 * (i + 1),
            composition=0.015 * (i + 1),
            response=-0.005 * (i + 1),
            missing_rate=0.0,
            baseline_missing_rate=0.0,
        )
        for i, name in enumerate(names)
    )


def _svgs(html: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def test_the_first_screen_says_what_happened_since_when_and_what_to_do(make_verdict):
    verdict = make_verdict()
    text = _Page(render(verdict)).text
    parts = [
        "page act now",
        verdict.headline,
        "flights, version 1",
        "2013-05-14 00:00 to 2013-05-15 00:00",
        "2013-05-12 00:00 3 windows, this one included",
        "Data broken weather, origin=EWR",
        "Requested data_broken, 1,204 mature labels since the onset",
        "Next: Look at the job that fills weather.",
        "temp: 36.1 % missing, baseline 0.0 %, limit 2.0 %",
        "Evidence over time",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_every_block_of_a_full_verdict_is_there_in_order(make_verdict):
    page = _Page(render(make_verdict()))
    assert page.heads == [
        "Evidence over time",
        "What the model relies on",
        "What moved the score",
        "Calibration",
        "Which feature makes the model wrong",
        "Labels",
        "Slices",
        "Slice search",
        "Gaps between groups",
        "Findings",
        "Rows",
        "Budget",
        "Soundness of the explanations",
        "What other tools would say",
        "Identity",
    ]
    roles = [t for t in page.texts if t in ("Diagnosis.", "Validation.", "Knowledge.")]
    assert len(roles) == len(page.heads), "each block says which question it answers"
    assert page.tags.count("svg") == 5


def test_numbers_are_rounded_for_people(make_verdict):
    check, evidence = make_verdict().findings
    check = replace(check, effect=0.361, confirmed=True)
    evidence = replace(evidence, value=0.082, baseline=0.122, interval=(0.074, 0.091))
    text = _Page(render(make_verdict(findings=(check, evidence)))).text
    for shown in (
        "12.2 → 8.2%",
        "share (evidence) temp all rows 8.2 % [7.4 %, 9.1 %] 12.2 % −4.20 sd 130 90 2013-05-12 00:00 yes",
        "missing rate (check) temp all rows 36.1 % 0 % 36.1 % – 2.0 % 2013-05-12 00:00 yes",
        "Intercept 0.020 −0.210",
        "Slope 0.980 0.800",
        "smECE 0.050 0.041",
        "Brier score 0.160 0.110",
        "origin=EWR 330 36.0 % 36.0 % 320 0.170 0.120",
        "carrier=OO 1 0.1 % 0.1 % 0 0.200 too few labels",
        "Seen 920 Explained 917 Labelled (mature cohort) 903 Set aside: duplicate 1 Set aside: infinite:temp 2",
        "temp 0 % 36.1 %",
        "Accepted: 1 false page in 90 days, over all features and slices together.",
        "Opened by evidence: 1 page in 44 watched windows.",
        "Expected by now without any change: at most 0.489 pages.",
        "Evidence is 213; a ticket needs 7, a page 90.",
        "Within 7 windows (7 days): a shift of 1.8 times what a stream varies by itself between windows",
        "for hour, a share that is multiplied or divided by 1.2.",
        "aa" * 32,
    ):
        assert shown in text


def test_the_page_runs_no_script_and_fetches_nothing(make_verdict):
    html = render(make_verdict(), _earlier(make_verdict(), 43), views={"evidently": "evidently.html"})
    page = _Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    targets = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert [t for t in targets if not t.startswith("#")] == ["evidently.html"]
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert set(re.findall(r"url\(([^)]*)\)", html)) <= {f"#{i}" for i in re.findall(r'id="([^"]*)"', html)}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_ids_are_unique_on_the_page(make_verdict):
    ids = [value for name, value in _Page(render(make_verdict())).attributes if name == "id"]
    assert ids
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_or_text_of_a_verdict_becomes_markup(make_verdict, name):
    plain = make_verdict(attribution=_many_features(["temp", "hour"]))
    cause = replace(
        plain.cause, sentence=name, features=(name,), group=name, slice=name, grounds=(name,), next_step=name
    )
    verdict = replace(
        plain,
        key=replace(plain.key, model=name, model_version=name, baseline_id=name),
        headline=name,
        cause=cause,
        retraining=replace(plain.retraining, reason=name),
        findings=tuple(replace(f, stream=name, message=name, feature=name, slice=name) for f in plain.findings),
        attribution=_many_features([name, "hour"]),
        detectable=tuple(replace(d, example_feature=name) for d in plain.detectable),
        slices=tuple(replace(s, slice=name) for s in plain.slices),
        rows=RowCounts(seen=3, explained=2, labelled=0, set_aside={name: 1}),
        loss_attribution=replace(
            plain.loss_attribution,
            loss=name,
            features=tuple(replace(f, feature=name) for f in plain.loss_attribution.features),
        ),
        digests={name: name},
    )
    html = render(verdict, views={"evidently": name})
    hostile, harmless = _Page(html), _Page(render(plain, views={"evidently": "x"}))
    assert set(hostile.tags) == set(harmless.tags)
    assert {n for n, _ in hostile.attributes} == {n for n, _ in harmless.attributes}
    figures = _svgs(html)
    texts = ["".join(e.itertext()) for figure in figures for e in figure.iter("text")]
    assert sum(name[:20] in text for text in texts) >= 2, "shown as it is, in both figures"


def test_equal_verdicts_give_equal_bytes_and_a_small_page(make_verdict):
    verdict = make_verdict(attribution=_many_features([f"feature_{i}" for i in range(40)]))
    history = _earlier(verdict, 43)
    html = render(verdict, history)
    assert html == render(replace(verdict), list(reversed(history)))
    assert len(html.encode()) < 200_000


def test_matplotlib_is_left_as_it_was(make_verdict):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    render(make_verdict())
    assert dict(mpl.rcParams) == before


def test_only_earlier_windows_of_the_same_baseline_are_on_the_time_line(make_verdict):
    verdict = make_verdict()
    history = _earlier(verdict, 5)
    others = [
        replace(history[0], key=replace(history[0].key, baseline_id="ff" * 32, start=verdict.key.start - timedelta(9))),
        replace(history[0], key=replace(history[0].key, model_version="2", start=verdict.key.start - timedelta(9))),
        replace(history[0], key=replace(verdict.key, start=verdict.key.end, end=verdict.key.end + timedelta(1))),
        replace(verdict, status=Status.OK),
    ]
    html = render(verdict, history)
    assert html == render(verdict, [*others, *history])
    assert html != render(verdict, history[1:])
    long = _earlier(verdict, 2 * TIMELINE_WINDOWS)
    assert render(verdict, long) == render(verdict, long[-TIMELINE_WINDOWS + 1 :])


def test_times_are_utc_whatever_zone_they_come_in(make_verdict):
    verdict = make_verdict()
    moved = replace(verdict, since=verdict.since.astimezone(timezone(timedelta(hours=9))))
    assert render(moved) == render(verdict)


def test_the_parts_of_the_score_shift_are_shown_to_add_up(make_verdict):
    text = _Page(render(make_verdict())).text
    assert "Features −0.030 (composition −0.040, response +0.010) and base 0 sum to the score shift −0.030" in text
    assert "unexplained rest" not in text
    assert "explanations do not add up" not in text


def test_a_shift_that_explanations_do_not_account_for_is_said(make_verdict):
    text = _Page(render(make_verdict(score=ScoreShift(mean=-1.0, baseline_mean=-1.3, shift=0.3, base_shift=0.0)))).text
    assert "an unexplained rest of +0.330" in text
    assert "the explanations do not add up" in text


def test_features_without_a_line_of_their_own_are_counted_together(make_verdict):
    attribution = _many_features([f"f{i:02}" for i in range(18)])
    total = math.fsum(a.shift for a in attribution)
    html = render(
        make_verdict(attribution=attribution, score=ScoreShift(mean=0.5, baseline_mean=0, shift=total, base_shift=0))
    )
    shares, shift = (["".join(e.itertext()) for e in figure.iter("text")] for figure in _svgs(html)[1:3])
    assert sum(t.startswith("f") for t in shares) == sum(t.startswith("f") for t in shift) == 15
    assert "3 others" in shift
    assert "+0.06" in shift, "0.01 + 0.02 + 0.03"
    assert "the 15 largest of 18 features" in _Page(html).text


@pytest.mark.parametrize("status", [Status.INSUFFICIENT_DATA, Status.NOT_EVALUATED])
def test_what_was_not_computed_is_said_and_not_drawn(make_verdict, status):
    verdict = make_verdict(
        status=status,
        headline="Cannot tell: 37 rows in the window, at least 200 are needed.",
        since=None,
        findings=(),
        cause=None,
        detectable=(),
        attribution=(),
        score=None,
        calibration=None,
        slices=(),
        rows=RowCounts(seen=37, explained=0, labelled=0, set_aside={}),
        loss_attribution=None,
    )
    page = _Page(render(verdict))
    assert page.tags.count("svg") == 1, "only the time line"
    for missing in (
        "No attributions",
        "No score shift",
        "No calibration",
        "No findings, but that says little",
        "No missing rates",
        "Not stated",
    ):
        assert f"{missing}: " in page.text
    reason = "0 of 37 rows could be explained" if status is Status.INSUFFICIENT_DATA else "was not evaluated"
    assert page.text.count(reason) >= 5
    assert "No slices: " in page.text
    assert "every check passed" not in page.text


@pytest.mark.parametrize(
    ("labelled", "reason"),
    [(0, "no mature labels reached this window"), (12, "12 labelled rows are too few for it")],
)
def test_absent_calibration_is_explained(make_verdict, labelled, reason):
    rows = RowCounts(seen=920, explained=917, labelled=labelled, set_aside={})
    assert f"No calibration: {reason}" in _Page(render(make_verdict(calibration=None, rows=rows))).text


def test_a_quiet_window_says_so(make_verdict):
    verdict = make_verdict(status=Status.OK, headline="No change.", since=None, findings=(), cause=None)
    text = _Page(render(verdict)).text
    assert text.index("ok nothing to do No change.") < text.index("None: every check passed")
    assert "Next:" not in text
    assert "Since (UTC)" not in text


@pytest.mark.parametrize(
    ("learning", "armed", "said"),
    [
        (True, False, "Learning: the baseline has too few windows"),
        (False, True, "Armed: the next time"),
        (False, False, "Not armed: a page is open"),
    ],
)
def test_the_state_of_the_budget_is_in_plain_words(make_verdict, learning, armed, said):
    verdict = make_verdict()
    text = _Page(render(replace(verdict, budget=replace(verdict.budget, learning=learning, armed=armed)))).text
    assert Counter(state in text for state in ("Learning:", "Armed:", "Not armed:"))[True] == 1
    assert said in text


def test_many_findings_are_folded_away_and_none_is_lost(make_verdict):
    finding = Finding(channel=Channel.EVIDENCE, stream="share", status=Status.TICKET, message="", value=-1.0)
    html = render(make_verdict(findings=tuple(replace(finding, message=f"finding {i}.") for i in range(53))))
    page = _Page(html)
    assert all(f"finding {i}." in page.texts for i in range(53))
    assert "33 more" in page.text
    assert page.text.index("finding 19.") < page.text.index("33 more") < page.text.index("finding 20.")


def test_every_status_has_a_word_a_colour_and_shapes():
    assert set(MEANING) == set(SHAPES) == set(charts.MARKERS) == set(Status)
    assert {s.value for s in Status} <= set(charts.PALETTE)
    assert len(set(SHAPES.values())) == len(set(charts.MARKERS.values())) == len(Status)


def test_every_colour_has_a_dark_counterpart_and_texts_have_contrast(make_verdict):
    html = render(make_verdict())
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in (html.split("@media screen")[0], html.split("prefers-color-scheme: dark")[1].split(".badge")[0])
    )
    assert light.keys() == dark.keys() >= charts.PALETTE.keys()
    for colours in (light, dark):
        for name in ("ink", "muted", "now", "moved", *(s.value for s in Status)):
            assert _contrast(colours[name], colours["paper"]) >= 4.5, name


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)

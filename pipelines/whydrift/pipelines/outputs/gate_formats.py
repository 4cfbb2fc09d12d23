"""A gate's result for people, machines, JUnit readers and GitHub's annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Protocol
from xml.etree import ElementTree as ET

from whydrift.monitors.comparison import Comparison, GateCheck

_WORDS = {True: "passed", False: "failed", None: "not evaluated"}
_MOST_ANNOTATIONS = 10  # GitHub shows no more of a kind in one step


class Result(Protocol):
    """What is rendered; the `gate` stage's result."""

    @property
    def model(self) -> str: ...
    @property
    def champion(self) -> str: ...
    @property
    def candidate(self) -> str: ...
    @property
    def start(self) -> str: ...
    @property
    def end(self) -> str: ...
    @property
    def comparison(self) -> Comparison: ...


def as_text(result: Result) -> str:
    """A line a check, failed ones first."""
    checks = sorted(result.comparison.checks, key=lambda c: (c.passed is True, c.name))
    lines = [
        f"gate {_WORDS[result.comparison.passed]}: {result.model} v{result.candidate} against v{result.champion}",
        f"  rows of {result.start} to {result.end}",
        *(f"  {_WORDS[c.passed]:<14} {c.message}" for c in checks),
    ]
    if result.comparison.too_small:
        lines.append(f"  too few rows to judge: {', '.join(result.comparison.too_small)}")
    return "\n".join(lines)


def as_json(result: Result) -> str:
    """The result with its checks; `passed` is null where the gate could not be evaluated."""
    content = {
        "schema_version": 1,
        "model": result.model,
        "champion": result.champion,
        "candidate": result.candidate,
        "start": result.start,
        "end": result.end,
        "passed": result.comparison.passed,
        "checks": [asdict(c) for c in result.comparison.checks],
        "too_small": list(result.comparison.too_small),
    }
    return json.dumps(content, indent=1)


def as_junit(result: Result) -> str:
    """One test suite: a failed check is a failure, one that could not run is an error."""
    checks = result.comparison.checks
    suite = ET.Element(
        "testsuite",
        name=f"whydrift gate {result.model} v{result.candidate}",
        tests=str(len(checks) + len(result.comparison.too_small)),
        failures=str(sum(c.passed is False for c in checks)),
        errors=str(sum(c.passed is None for c in checks)),
        skipped=str(len(result.comparison.too_small)),
    )
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname=f"whydrift.gate.{result.model}", name=check.name)
        if check.passed is not True:
            ET.SubElement(case, "failure" if check.passed is False else "error", message=check.message)
    for name in result.comparison.too_small:
        case = ET.SubElement(suite, "testcase", classname=f"whydrift.gate.{result.model}", name=f"loss_ratio:{name}")
        ET.SubElement(case, "skipped", message="too few rows to judge")
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def as_github(result: Result) -> str:
    """Workflow commands: an error for each check that did not pass, a notice if all did."""
    bad = [c for c in result.comparison.checks if c.passed is not True]
    if not bad:
        return f"::notice title=whydrift gate::{_escape(as_text(result).splitlines()[0])}"
    lines = [_annotation(c) for c in bad[:_MOST_ANNOTATIONS]]
    if len(bad) > _MOST_ANNOTATIONS:
        lines[-1] = f"::error title=whydrift gate::{len(bad) - _MOST_ANNOTATIONS + 1} more checks did not pass"
    return "\n".join(lines)


def _annotation(check: GateCheck) -> str:
    return f"::error title=whydrift gate {_WORDS[check.passed]}::{_escape(check.message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


FORMATS: dict[str, Callable[[Result], str]] = {
    "text": as_text,
    "json": as_json,
    "junit": as_junit,
    "github": as_github,
}

"""The cached state of the fold saves time and nothing else."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from whydrift.monitors import assessment

DAY = timedelta(days=1)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)
DAYS = [FIRST + i * DAY for i in range(4)]


@pytest.fixture
def folded(finished, project):
    """The project after a backfill of DAYS."""
    shutil.copytree(finished / "store", project.folder / "store")
    return project


@pytest.fixture
def steps(monkeypatch):
    """The windows that are folded from now on."""
    found, step = [], assessment.step

    def counted(reference, before, window):
        found.append(window.key.start)
        return step(reference, before, window)

    monkeypatch.setattr(assessment, "step", counted)
    return found


def states(project):
    return sorted(p.parent.name[:8] for p in project.store.rglob("state.json"))


def drop(project):
    for path in project.store.rglob("state.json"):
        path.unlink()


def test_the_next_window_and_the_same_one_are_one_step(folded, steps):
    project, following = folded, DAYS[-1] + DAY
    assert states(project) == ["20240203", "20240204"]
    assert project.window("profile", following).code == 0
    assert project.window("assess", following).code in (0, 1)
    assert steps == [following]
    assert states(project) == ["20240204", "20240205"]
    expected = project.tree()
    assert project.window("assess", following).code in (0, 1)
    assert steps == [following, following]
    assert project.tree() == expected

    drop(project)
    assert project.window("assess", following).code in (0, 1)
    assert steps[2:] == [*DAYS, following]
    assert project.tree() == expected


def test_a_corrected_past_is_folded_again(folded, steps):
    project = folded
    project.edit_log(DAYS[1], lambda frame: frame.iloc[: len(frame) // 2])
    assert project.window("profile", DAYS[1]).code == 0
    assert project.window("assess", DAYS[-1]).code in (0, 1)
    assert steps == DAYS
    expected = project.tree()
    drop(project)
    assert project.window("assess", DAYS[-1]).code in (0, 1)
    assert project.tree() == expected


def test_another_configuration_does_not_use_the_state(folded, steps):
    folded.configure(window={"every": "1d", "min_rows": 120})
    assert folded.window("assess", DAYS[-1]).code in (0, 1)
    assert steps == DAYS


@pytest.mark.parametrize("text", [b"", b"[", b'["x", 1]', b"{}"])
def test_a_spoiled_state_is_said_and_not_used(folded, steps, text, caplog):
    expected = folded.tree()
    for path in folded.store.rglob("state.json"):
        path.write_bytes(text)
    assert folded.window("assess", DAYS[-1]).code in (0, 1)
    assert "cannot be read and is not used" in caplog.text
    assert steps == DAYS
    assert folded.tree() == expected


def test_an_earlier_window_is_judged_by_its_own_past(folded):
    expected = folded.verdict(DAYS[1])
    assert folded.window("assess", DAYS[1]).code in (0, 1)
    assert folded.verdict(DAYS[1]) == expected

"""The checks of answers: what is right, what is not, and what the learner reads then."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hyraxvm.core.paths import PROVISION
from tests.unit.dapdir.running import Server

CHECKS = PROVISION / "workshop/workshop"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch, data: Path) -> Iterator[ModuleType]:
    """The module of checks, as a learner's notebook imports it; it reads the files."""
    monkeypatch.setenv("WORKSHOP_DATA", str(data))
    monkeypatch.syspath_prepend(str(CHECKS))
    yield importlib.import_module("checks")
    del sys.modules["checks"]


def test_over_the_network_the_answers_are_the_same(
    checks: ModuleType, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {name: find() for name, find in checks._questions.items()}
    monkeypatch.setattr(checks, "FILES", Path("/does/not/exist"))
    monkeypatch.setattr(checks, "SERVER", f"{server.url}/workshop")
    away = {name: find() for name, find in checks._questions.items()}
    assert len(here) > 15
    for name, value in here.items():
        assert away[name] == (value if isinstance(value, str) else pytest.approx(value)), name


def test_every_question_is_asked_once(checks: ModuleType) -> None:
    sources = (PROVISION / "workshop/exercises").glob("*.md")
    text = "\n".join(path.read_text() for path in sources)
    for name in checks._questions:
        assert text.count(f'check("{name}", answer)') == 1, name
    assert text.count("check(") == len(checks._questions)


@pytest.mark.parametrize(
    ("question", "answer"),
    [("files", 19), ("files", "20 files"), ("units", "K"), ("units", 3), ("date_line", [100, 140]),
     ("date_line", 100), ("celsius", float("nan")), ("celsius", None), ("celsius", 28.3)],
)  # fmt: skip
def test_a_wrong_answer_gets_a_hint_and_not_the_solution(
    checks: ModuleType, question: str, answer: object
) -> None:
    with pytest.raises(checks.NotYet) as caught:
        checks.check(question, answer)
    (line,) = caught.value._render_traceback_()
    assert line.startswith(f"Not yet: {answer!r} is not it. ")
    assert line.endswith(str(checks._questions[question].__doc__))


def test_right_answers_may_be_rounded_and_written_in_other_cases(
    checks: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    checks.check("celsius", round(checks.celsius(), 1))
    checks.check("units", " Degree_celsius ")
    checks.check("date_line", (100, 139))
    assert capsys.readouterr().out.count("Right: ") == 3

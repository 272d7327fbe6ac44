"""Golden cases: each folder of tests/cases/config has a configuration and what must be said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import ConfigErrors, check, load
from gateway.core.errors import ConfigError
from tests.config.kinds import kinds

CASES = Path(__file__).parents[1] / "cases" / "config"


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir() if path.is_dir()))
def test_each_case_says_exactly_what_is_wrong(case: str) -> None:
    directory = CASES / case
    report = check(directory, kinds())
    said = [line.replace(f"{directory}/", "") for line in report.errors]
    assert said == (directory / "error.txt").read_text().splitlines()
    assert said, "a case without an error shows nothing"
    assert report.site is None
    with pytest.raises(ConfigErrors) as caught:
        load(directory, kinds())
    assert caught.value.errors == report.errors
    assert isinstance(caught.value, ConfigError)


def test_many_faults_are_found_in_one_run() -> None:
    report = check(CASES / "many-at-once", kinds())
    assert len(report.errors) >= 10
    assert list(report.errors) == sorted(report.errors, key=_place)


def _place(line: str) -> tuple[str, int, int]:
    file, row, column, _ = line.split(":", 3)
    return file, int(row), int(column)


def test_a_secret_never_stands_in_a_message() -> None:
    report = check(CASES / "secret-in-yaml", kinds())
    assert report.errors
    assert not [line for line in (*report.errors, *report.warnings) if "hunter2" in line]

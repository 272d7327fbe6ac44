"""Counts the tests that ran against peers, says so in one line, and in CI fails where one did not run."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.peers import in_ci

pytest_plugins = ["tests.fuzz"]


class PeerCount:
    """How many interop tests were collected, ran and were skipped, and why."""

    def __init__(self) -> None:
        self.collected: set[str] = set()
        self.ran: set[str] = set()
        self.skipped: dict[str, str] = {}

    def missing(self) -> list[str]:
        """Tests that were collected and of which nobody can say that they ran."""
        return sorted(self.collected - self.ran)

    def line(self) -> str:
        """The one line at the end of the session."""
        reasons = ", ".join(f"{n} x {reason}" for reason, n in sorted(Counter(self.skipped.values()).items()))
        return f"peer tests: {len(self.ran)} ran, {len(self.skipped)} skipped" + (
            f" ({reasons})" if reasons else ""
        )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember every interop test that is about to run."""
        self.collected = {item.nodeid for item in session.items if item.get_closest_marker("interop")}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Sort a finished test: it ran once its body was called and did not skip."""
        if report.nodeid not in self.collected:
            return
        if report.skipped:
            self.ran.discard(report.nodeid)
            self.skipped[report.nodeid] = _reason(report)
        elif report.when == "call":
            self.ran.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Where the run decides, a peer test that did not run is a failure."""
        if in_ci() and self.missing() and not session.config.option.collectonly:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what ran."""
        if not self.collected or terminalreporter.config.option.collectonly:
            return
        terminalreporter.write_line(self.line())
        if in_ci():
            for nodeid in self.missing():
                terminalreporter.write_line(f"peer test did not run: {nodeid}", red=True)


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def pytest_configure(config: pytest.Config) -> None:
    """Start counting."""
    config.pluginmanager.register(PeerCount(), "peer count")

"""A plugin of pytest: where a machine has everything, a test that is skipped is a test that nobody runs."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the list."""
    parser.addoption(
        "--allowed-skips",
        type=Path,
        metavar="FILE",
        help="fail where a test is skipped for a reason that holds no line of FILE",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch in the process that hears of all tests."""
    path = config.getoption("--allowed-skips")
    if path and not hasattr(config, "workerinput"):
        lines = [line.strip() for line in path.read_text().splitlines()]
        config.pluginmanager.register(SkipWatch([line for line in lines if line and not line.startswith("#")]))


class SkipWatch:
    """Gathers what is skipped.

    Parameters
    ----------
    allowed : parts of reasons
    """

    def __init__(self, allowed: list[str]) -> None:
        self._allowed = allowed
        self._refused: dict[str, str] = {}  # by test or module

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at a test."""
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Look at a module."""
        self._look(report)

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            if not any(part in reason for part in self._allowed):
                self._refused[report.nodeid] = reason.removeprefix("Skipped: ")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that is green but for this."""
        if self._refused and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which tests, and what to do."""
        if self._refused:
            terminalreporter.section("skipped, and not allowed to be")
            for name, reason in sorted(self._refused.items()):
                terminalreporter.line(f"{name}: {reason}")
            terminalreporter.line("install what is missing, or add the reason to the file of --allowed-skips")

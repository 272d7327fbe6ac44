"""What users write of the journal and of history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from gateway.config.model import Model, defaults
from gateway.config.publish import Patterns, Report
from gateway.config.values import Duration, Percent, Size, Text
from gateway.core.errors import Problem


class HistorySection(Model):
    """What of the past is kept, and how long, after everything was delivered."""

    match: Patterns = Field(
        ("*/*",), description="Patterns over device/tag, as in `publish`: which tags have a history."
    )
    keep_ns: Annotated[int, Duration("1m")] = Field(
        "30d",
        validate_default=True,
        alias="keep",
        description="How long, in running time: no clock step and no time switched off deletes anything.",
    )
    max_bytes: Annotated[int, Size("10MB")] = Field(
        "4GB",
        validate_default=True,
        alias="max",
        description="Most disk space, what is still to be delivered included; that goes first.",
    )
    report: Report = Field(
        default_factory=defaults(Report),
        description="What of the scans is recorded. What a `publish` rule records as fine is not "
        "recorded again.",
    )

    def problems(self) -> Iterable[Problem]:
        yield from (Problem(("report", *p.path), p.found, p.expected) for p in self.report.problems())


class JournalSection(Model):
    """Where accepted values are kept until they are delivered."""

    directory: Text | None = Field(
        None,
        min_length=1,
        description="Directory of the journal. Default: the state directory of the service, else ./state.",
    )
    commit_ns: Annotated[int, Duration("1ms", "10s")] = Field(
        "100ms", validate_default=True, alias="commit",
        description="Longest time that a value waits to be written to disk together with others.",
    )  # fmt: skip
    commit_bytes: Annotated[int, Size("4KB", "64MB")] = Field(
        "1MB", validate_default=True, alias="commit_size",
        description="So many bytes waiting are written without waiting for `commit`.",
    )  # fmt: skip
    compression: Literal["zstd", "none"] = Field(
        "zstd",
        description="zstd: what is written together is compressed together, to a half or less; none: plain. "
        "Both are always read.",
    )
    max_bytes: Annotated[int, Size("10MB")] = Field(
        "2GB",
        validate_default=True,
        alias="max",
        description="Most disk space that the journal takes, all buffers together.",
    )
    spill_memory: Annotated[int, Size("1MB", "1GB")] = Field(
        "16MB", validate_default=True,
        description="Most memory for values of rules with `durability: spill`; above it they go to disk.",
    )  # fmt: skip
    alarm_share: Annotated[float, Percent()] = Field(
        "12.5%",
        validate_default=True,
        description="Part of `max` kept for tags with `priority: alarm`.",
    )
    unsynchronised: Literal["mark", "trust"] = Field(
        "mark",
        description="Times taken while the operating system does not say that its clock follows a reference. "
        "mark: payloads say so, and what is still in the journal when it does is dated from how long before "
        "it was; trust: they count as good, for sites without a time server.",
    )
    on_failure: Literal["stop", "live_only"] = Field(
        "stop",
        description="What to do when the disk cannot be written: stop, or deliver live values "
        "without keeping them.",
    )
    history: HistorySection | None = Field(
        None, description="What of the past is kept for `gateway history`. Default: nothing."
    )

    def problems(self) -> Iterable[Problem]:
        if self.history is not None:
            found = self.history.problems()
            yield from (Problem(("history", *p.path), p.found, p.expected) for p in found)

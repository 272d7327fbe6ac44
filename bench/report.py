"""Goals, ratios and the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from bench.rows import Figures, percentiles

Rows = Mapping[str, Figures]


class Goal(msgspec.Struct, kw_only=True):
    """One figure with its goal. `is_gate`: a ratio of one run, which may fail it; the others only inform."""

    name: str
    goal: str
    found: str
    is_met: bool | None  # None where it was not measured
    is_gate: bool = False


class _Rule(msgspec.Struct, frozen=True):
    name: str
    row: str
    found: Callable[[Rows], float | None]
    limit: float
    unit: str
    is_at_most: bool = True
    is_gate: bool = False


def _of(row: str, read: Callable[[Figures], float | None]) -> Callable[[Rows], float | None]:
    return lambda rows: read(rows[row]) if row in rows else None


def _ratio(above: str, below: str, read: Callable[[Figures], float | None]) -> Callable[[Rows], float | None]:
    def found(rows: Rows) -> float | None:
        if above not in rows or below not in rows:
            return None
        one, other = read(rows[above]), read(rows[below])
        return one / other if one is not None and other else None

    return found


def _points(figures: Figures) -> float | None:
    return figures.points_per_s


def _cpu(figures: Figures) -> float | None:
    return figures.cpu_us_per_point


def _cpu_message(figures: Figures) -> float | None:
    return figures.cpu_us_per_message


def _cpu_percent(figures: Figures) -> float | None:
    return figures.cpu_percent


def _p99(figures: Figures) -> float | None:
    return (figures.latency_ms or {}).get("p99")


def _extra(name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.extra.get(name)


def _command_p99(figures: Figures) -> float | None:
    """Beyond one fdatasync, which the command's id needs before it is sent."""
    if not figures.command_ms:
        return None
    return figures.command_ms["p99"] - (figures.fdatasync_ms or {}).get("p50", 0.0)


# Gates are ratios to the naive script of the same run, so that a slow or busy machine moves both sides.
# They leave room above what is measured: to catch a gateway that got slower, not a noisy minute.
RULES = (
    _Rule("points/s, all change, vs naive", "device all",
          _ratio("device all", "naive", _points), 3.0, "x", is_at_most=False, is_gate=True),
    _Rule("CPU per point, all change, vs naive", "device all",
          _ratio("device all", "naive", _cpu), 0.38, "x", is_gate=True),
    _Rule("CPU per point, tenth changes, vs naive", "device tenth",
          _ratio("device tenth", "naive", _cpu), 0.3, "x", is_gate=True),
    _Rule("CPU per message, tag topics, vs naive block", "tag topics",
          _ratio("tag topics", "naive", _cpu_message), 0.08, "x", is_gate=True),
    _Rule("CPU per point, all change", "device all", _of("device all", _cpu), 1.5, "us"),
    _Rule("CPU per point, tenth changes", "device tenth", _of("device tenth", _cpu), 0.6, "us"),
    _Rule("CPU per message, tag topics", "tag topics", _of("tag topics", _cpu_message), 15.0, "us"),
    _Rule("CPU, 10,000 tags at 1 s", "10k tags 1s", _of("10k tags 1s", _cpu_percent), 3.0, "%"),
    _Rule("RSS, 10,000 tags at 1 s", "10k tags 1s", _of("10k tags 1s", lambda row: row.rss_mb), 85.0, "MB"),
    _Rule("end to end p99, 10,000 tags at 1 s", "10k tags 1s", _of("10k tags 1s", _p99), 10.0, "ms"),
    _Rule("command to write p99, less one fdatasync", "commands", _of("commands", _command_p99), 5.0, "ms"),
    _Rule("Modbus client, CPU per read of 120 registers", "modbus client",
          _of("modbus client", _extra("client us")), 45.0, "us"),
    _Rule("Modbus client, pymodbus' CPU against ours, one by one", "modbus client",
          _of("modbus client", _extra("pymodbus x")), 4.0, "x", is_at_most=False),
    _Rule("Modbus client, the same with 8 devices", "modbus client",
          _of("modbus client", _extra("pymodbus 8 x")), 4.0, "x", is_at_most=False),
    _Rule("Modbus decoding, unchanged, per tag", "modbus decode",
          _of("modbus decode", _extra("unchanged us")), 0.1, "us"),
    _Rule("Modbus decoding, scaling and deadband, per tag", "modbus decode",
          _of("modbus decode", _extra("scaled us")), 0.3, "us"),
    _Rule("Modbus server, requests/CPU s, vs pymodbus", "modbus server",
          _of("modbus server", _extra("server x")), 5.0, "x", is_at_most=False),
    _Rule("Modbus server, the same, pymodbus on asyncio's loop", "modbus server",
          _of("modbus server", _extra("server asyncio x")), 5.0, "x", is_at_most=False),
    _Rule("Modbus server, values changing, vs pymodbus", "modbus server",
          _of("modbus server", _extra("server moving x")), 5.0, "x", is_at_most=False),
    _Rule("RTU framer, frames", "rtu framer",
          _of("rtu framer", _extra("rtu frames")), 2.0, "MB/s", is_at_most=False),
    _Rule("RTU framer, the worst noise", "rtu framer",
          _of("rtu framer", _extra("rtu worst")), 2.0, "MB/s", is_at_most=False),
    _Rule("RTU framer, rate on half as much noise", "rtu framer",
          _of("rtu framer", _extra("rtu linear")), 1.3, "x"),
    _Rule("journal, groups of 20 in a row, vs bare disk", "journal",
          _of("journal", _extra("ratio 20")), 1.3, "x"),
    _Rule("replay, null uplink", "replay", _of("replay", _points), 500_000, "points/s", is_at_most=False),
    _Rule("first live value with a backlog", "start-up", _of("start-up", _extra("first live s")), 2.0, "s"),
    _Rule("CPU per point, all change, vs raw path", "device all",
          _ratio("device all", "raw", _cpu), float("inf"), "x"),
)  # fmt: skip


def judge(rows: Rows) -> list[Goal]:
    """Every goal with what was found."""
    goals = []
    for rule in RULES:
        found = rule.found(rows)
        sign = "<=" if rule.is_at_most else ">="
        is_met = None if found is None else (found <= rule.limit) is rule.is_at_most or found == rule.limit
        goals.append(
            Goal(
                name=rule.name,
                goal="-" if rule.limit == float("inf") else f"{sign} {rule.limit:g} {rule.unit}",
                found="not measured" if found is None else f"{found:.3g} {rule.unit}",
                is_met=is_met,
                is_gate=rule.is_gate,
            )
        )
    return goals


def table(rows: Rows, goals: list[Goal], *, failed: Mapping[str, str], machine: str) -> str:
    """What a person reads."""
    columns = (
        "row",
        "read pt/s",
        "checked pt/s",
        "msg/s",
        "CPU us/pt",
        "us/msg",
        "CPU %",
        "RSS MB",
        "peak MB",
    )
    lines = [_line(columns, WIDTHS)]
    for name, figures in rows.items():
        cells = (
            name,
            f"{figures.read_points_per_s:,.0f}",
            f"{figures.points_per_s:,.0f}",
            f"{figures.messages_per_s:,.0f}",
            _text(figures.cpu_us_per_point, ".3f"),
            _text(figures.cpu_us_per_message, ".1f"),
            _text(figures.cpu_percent, ".1f"),
            _text(figures.rss_mb, ".1f"),
            _text(figures.peak_mb, ".1f"),
        )
        lines.append(_line(cells, WIDTHS))
    lines.append("")
    for name, figures in rows.items():
        if figures.row == "plant":
            lines.append(f"{name}: {figures.note or 'ceiling of the load generator, read by C'}")
            continue
        lines += [f"{name}: {line}" for line in figures.lines]
        if figures.lines:
            lines += [f"{name}: wrong {figures.wrong}"] if figures.wrong else []
            continue
        checks = (
            f"wrong {figures.wrong}, null {figures.bad}, missing {figures.missing}, late {figures.late}, "
            f"duplicates {figures.duplicates}"
        )
        others = ", ".join(f"{who} {percent:.0f}%" for who, percent in figures.others.items())
        lines.append(f"{name}: {checks}; beside it {others}")
        if figures.latency_ms:
            lines.append(f"{name}: end to end ms {_said(figures.latency_ms)}")
        if figures.commands:
            lines.append(
                f"{name}: command to write ms {_said(figures.command_ms or {})}; one fdatasync meanwhile "
                f"{_said(figures.fdatasync_ms or {})}; through the broker alone "
                f"{_said(figures.broker_ms or {})}; {figures.commands.sent} sent, "
                f"answers {figures.commands.answers}"
            )
            lines += [
                f"{name}: command to answer '{status}' ms {_said(percentiles(took_ms))}"
                for status, took_ms in figures.commands.answers_ms.items()
            ]
    lines += [f"{name}: could not be measured: {_ends(why)}" for name, why in failed.items()]
    lines += ["", _line(("goal", "wanted", "found", ""), GOAL_WIDTHS)]
    for goal in goals:
        verdict = {True: "met", False: "MISSED", None: ""}[goal.is_met] if goal.goal != "-" else ""
        name = f"{goal.name}{' [gate]' if goal.is_gate else ''}"
        lines.append(_line((name, goal.goal, goal.found, verdict), GOAL_WIDTHS))
    lines += ["", machine]
    return "\n".join(lines)


WIDTHS = (14, 13, 13, 9, 10, 8, 7, 8, 8)
GOAL_WIDTHS = (56, 18, 18, 8)


def _line(cells: tuple[str, ...], widths: tuple[int, ...]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return first[0].ljust(first[1]) + "".join(text.rjust(width + 1) for text, width in rest)


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _ends(text: str) -> str:
    """First and last line: which process, and what it said at the end."""
    lines = [line for line in text.splitlines() if line.strip()]
    return " … ".join(dict.fromkeys((lines[0], lines[-1])))


def _said(values: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.2f}" for name, value in values.items())

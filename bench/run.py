"""Measure everything and print one table: goals beside figures, ratios of one run (docs/adr/0008)."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from bench import durable, modbus
from bench.features import features
from bench.formula import Mode
from bench.report import Goal, judge, table
from bench.rig import ROOT, Programs, RigError, build
from bench.rows import Figures, Plan, ceiling, gateway, measure, naive, raw
from bench.sites import SiteSpec, Topics

FULL = Plan(window_s=15.0, settle_s=3.0)
QUICK = Plan(window_s=4.0, settle_s=1.5, commands=100)


def rows(programs: Programs, folder: Path, plan: Plan) -> dict[str, Callable[[], Figures]]:
    """Every row by name, not run yet."""
    row = partial(measure, programs=programs, folder=folder, plan=plan)
    flat = SiteSpec(
        devices=plan.devices,
        registers=plan.registers,
        scan="continuous",
        topics=Topics.DEVICE,
        in_flight=plan.depth,
    )
    replace = msgspec.structs.replace
    per_tag = replace(flat, scan="1s", topics=Topics.TAG, is_spread=True)
    second = replace(flat, scan="1s", is_spread=True)
    few = replace(second, devices=plan.devices // 10)
    return {
        "plant": lambda: ceiling(programs, folder, plan),
        "naive": lambda: row("naive", naive(plan), mode=Mode.ALL),
        "raw": lambda: row("raw", raw(plan), mode=Mode.ALL),
        "device all": lambda: row("device all", gateway(flat), mode=Mode.ALL),
        "device tenth": lambda: row("device tenth", gateway(flat), mode=Mode.TENTH),
        "tag topics": lambda: row("tag topics", gateway(per_tag), mode=Mode.ALL, topics=Topics.TAG),
        "1k tags 1s": lambda: row(
            "1k tags 1s", gateway(few), mode=Mode.ALL, devices=plan.devices // 10, is_timed=True
        ),
        "10k tags 1s": lambda: row("10k tags 1s", gateway(second), mode=Mode.ALL, is_timed=True),
        "commands": lambda: row(
            "commands",
            gateway(replace(flat, is_writable=True)),
            mode=Mode.ALL,
            commands=plan.commands,
        ),
        "modbus client": lambda: modbus.client(programs, folder, plan),
        "modbus decode": lambda: modbus.decoding(folder, plan),
        "modbus server": lambda: modbus.server(programs, folder, plan),
        "rtu framer": lambda: modbus.framing(folder, plan),
        "journal": lambda: durable.commits(folder, plan),
        "replay": lambda: durable.replay(folder, plan),
        "start-up": lambda: durable.start_up(programs, folder, plan),
    }


def main() -> int:
    """0: measured, and with --gate no ratio is worse than allowed. 1: a gate broke or a value was wrong."""
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short windows: a look, not a figure to quote")
    parser.add_argument("--gate", action="store_true", help="exit 1 where a ratio is worse than its limit")
    parser.add_argument("--only", metavar="ROW", action="append", help="this row; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configurations and logs")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    folder = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    measured: dict[str, Figures] = {}
    failed: dict[str, str] = {}
    try:
        programs = build(folder)
        all_rows = rows(programs, folder, plan)
        unknown = set(options.only or ()) - set(all_rows)
        if unknown:
            parser.error(f"no row {', '.join(sorted(unknown))}; there are: {', '.join(all_rows)}")
        for name in options.only or all_rows:
            print(f"bench: {name} …", file=sys.stderr, flush=True)
            try:
                measured[name] = all_rows[name]()
            except RigError as error:
                failed[name] = str(error)
                print(f"bench: {name} could not be measured: {error}", file=sys.stderr)
    finally:
        if options.keep:
            print(f"bench: configurations and logs are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    goals = judge(measured)
    print(table(measured, goals, failed=failed, machine=_machine()))
    print(f"features on: {features()}")
    print(f"written to {_write(measured, goals, failed)}")
    broken = [goal for goal in goals if goal.is_gate and goal.is_met is False]
    wrong = [name for name, figures in measured.items() if figures.wrong]
    return 1 if failed or wrong or (options.gate and broken) else 0


def _machine() -> str:
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, load {load}"


def _write(measured: dict[str, Figures], goals: list[Goal], failed: dict[str, str]) -> Path:
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    text = msgspec.json.encode({"machine": _machine(), "rows": measured, "goals": goals, "failed": failed})
    path.write_bytes(msgspec.json.format(text) + b"\n")
    return path.relative_to(ROOT)


if __name__ == "__main__":
    sys.exit(main())

"""The past of a real gateway: asked while it runs, after SIGKILL without it, and after the next start."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.system.plant import Plant, counting_tags
from tests.system.process import Gateway
from tests.system.waiting import ROOT, until

pytestmark = pytest.mark.kills


def config(plant: Plant) -> dict[str, Any]:
    """No uplink: what is there is there for history."""
    return {
        "version": 1,
        "gateway": {"name": "gw"},
        "http": {"listen": "127.0.0.1:0"},
        "journal": {"commit": "20ms", "history": {"keep": "1d", "max": "100MB"}},
        "links": {"line": {"driver": "modbus", "host": f"127.0.0.1:{plant.port}", "timeout": "300ms"}},
        "scan": {"fast": "20ms"},
        "devices": {"pump": {"link": "line", "unit": 1, "tags": counting_tags("fast")}},
    }


def ask(gateway: Gateway, **words: object) -> list[dict[str, Any]]:
    """All pages."""
    rows: list[dict[str, Any]] = []
    while True:
        query = "&".join(f"{key}={quote(str(text))}" for key, text in words.items())
        answer = gateway.get(f"/v1/history?{query}")
        assert answer.code == 200, answer.body
        rows += answer.json["rows"]
        if answer.json["after"] is None:
            return rows
        words |= {"from": answer.json["from"], "to": answer.json["to"], "after": answer.json["after"]}


def history(*words: str, note: str = "") -> str:
    """What the command says; `note`: to people, besides."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.app.cli", "history", *words],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=30,
        env={"PATH": "/usr/bin", "COLUMNS": "80", "NO_COLOR": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, note), done.stderr
    return done.stdout


def counts(rows: list[dict[str, Any]]) -> list[int]:
    return [row["value"] for row in rows if row["kind"] == "value"]


def test_values_seen_in_the_past_are_there_after_a_kill_and_the_time_between_is_a_gap(
    plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    gateway = make_gateway(config(plant))
    gateway.start()
    tag = f"pump/{next(iter(counting_tags('fast')))}"
    before = until(lambda: rows if len(rows := ask(gateway, tag=tag)) >= 25 else None, "25 values")
    gateway.kill()
    at_most = plant.counts[1]

    offline = [json.loads(line) for line in history(tag, "--format", "jsonl", "--state",
                                                    str(gateway.state)).splitlines()]  # fmt: skip
    assert counts(offline)[: len(before)] == counts(before)
    assert counts(offline) == sorted(set(counts(offline)))
    assert counts(offline)[-1] <= at_most

    gateway.start()
    after = until(
        lambda: rows if len(rows := ask(gateway, tag=tag, limit=10)) >= len(offline) + 20 else None, "20 more"
    )
    assert after[: len(offline)] == offline
    gaps = [row for row in after if row["kind"] == "gap"]
    assert [gap["reason"] for gap in gaps] == ["the gateway was not running"]
    place = after.index(gaps[0])
    assert place == len(offline)
    assert {row["e"] for row in after[:place]} != {row["e"] for row in after[place + 1 :]}
    assert offline[-1]["time"] <= gaps[0]["from"] < gaps[0]["to"] <= after[place + 1]["time"]
    assert {row["quality"] for row in after if row["kind"] == "value"} == {"good"}

    [span] = ask(gateway, tag=tag, every="1d", **{"from": gaps[0]["from"], "to": gaps[0]["to"]})
    assert span["good"] < 0.1  # nothing is drawn across
    values = [row for row in ask(gateway, tag="pump/*", every="500ms", **{"from": "-1m"}) if row["count"]]
    assert len({row["name"] for row in values}) == len(counting_tags("fast"))

    url = "--url=http://{}:{}".format(*gateway.http)
    table = history(tag, url, "--from", "-10m")
    assert "── the gateway was not running: " in table
    assert max(map(len, table.splitlines())) <= 80
    spans = history(tag, url, "--every", "1s", "--from", "-2m")
    assert re.search(r"time .*mean +min +max +count +good", spans)
    assert max(map(len, spans.splitlines())) <= 80
    note = "the first 30 rows; --limit asks for more\n"
    first = history(tag, url, "--format", "csv", "--limit", "30", note=note)
    rows = list(csv.DictReader(io.StringIO(first)))
    assert [int(row["value"]) for row in rows if row["kind"] == "value"] == counts(after[: len(rows)])

    status = gateway.get("/v1/status").json["journal"]["history"]
    assert status["limit_bytes"] == 100_000_000
    assert b"gateway_history_size_bytes" in gateway.get("/metrics").body
    assert gateway.stop()[0] == 0


def test_what_makes_no_sense_is_refused_with_words(
    plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    gateway = make_gateway(config(plant))
    gateway.start()
    for query, said in {
        "": "tag: found none",
        "tag=pump": "device/tag with one slash",
        "tag=a/b&every=5": "every: found '5', expected a duration",
        "tag=a/b&from=yesterday": "from: found 'yesterday', expected a time such as now",
        "tag=a/b&from=now": "expected a time before",
        "tag=a/b&limit=0": "limit: found '0'",
        "tag=a/b&after=x": "after: found 'x'",
        "tag=a/b&to=now&to=now": "to: found 2 of it",
        "tag=a/b&step=1": "unknown parameter 'step'",
    }.items():
        answer = gateway.get(f"/v1/history?{query}")
        assert answer.code == 400, query
        assert said in answer.json["error"]

"""Where `gateway history` gets its answers: the running gateway, or a journal that nobody writes."""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import click
import msgspec
from rich.console import Console

from gateway.api.history import HistoryAnswer, answer_of, make_question
from gateway.api.http import Refusal
from gateway.app.history_output import write_csv, write_jsonl, write_table
from gateway.app.watch import open_connection
from gateway.core.errors import GatewayError, LinkError
from gateway.disk.filesystem import RealFileSystem
from gateway.disk.record import Damage
from gateway.journal.historian import LIMIT_MAX, Historian, Now, Page, Pages, Question
from gateway.journal.inspection import journal_directory, look
from gateway.journal.lane_scan import HistoryLane
from gateway.journal.placed import LanePlaces

ANSWER_TIMEOUT_S: Final = 40.0  # longer than the gateway takes at most for a page
ANSWER_BYTES_MAX: Final = 64 << 20
TABLE_ROWS_MAX: Final = 1000


def history(
    tags: Sequence[str],
    words: Mapping[str, str],
    *,
    limit: int | None,
    form: str,
    url: str,
    state: Path | None,
) -> int:
    """Ask and show; the exit code. Raises `GatewayError`."""
    asked = {**words, "limit": str(min(limit or LIMIT_MAX, LIMIT_MAX))}
    pages = ask_gateway(url, tags, asked) if state is None else ask_journal(state, tags, asked)
    try:
        if form == "csv":
            count = write_csv(pages, limit, sys.stdout)
        elif form == "jsonl":
            count = write_jsonl(pages, limit, sys.stdout)
        else:
            count = write_table(pages, limit or TABLE_ROWS_MAX, Console())
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if not count:
        click.echo(
            f"nothing is recorded of {', '.join(tags)} from {words['from']} to {words['to']}; "
            "`journal: history` in the configuration says what is",
            err=True,
        )
    return 0


def ask_gateway(url: str, tags: Sequence[str], words: Mapping[str, str]) -> Iterator[HistoryAnswer]:
    """Page after page. Raises `GatewayError` with what the gateway said, or why it cannot be asked."""
    connection, base = open_connection(url, timeout_s=ANSWER_TIMEOUT_S)
    fields = [*(("tag", tag) for tag in tags), *((key, text) for key, text in words.items() if text)]
    try:
        while True:
            path = f"/v1/history?{urlencode(fields)}"
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                code, body = response.status, response.read(ANSWER_BYTES_MAX)
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise LinkError(
                    f"no gateway answers at {base}: {reason}. `--url` says where it listens; where none "
                    "runs, `--state DIR` reads its journal"
                ) from error
            if code != 200:
                raise GatewayError(_reason(code, body))
            answer = _decoded(base, body)
            yield answer
            if answer.after is None:
                return
            given = {"from": answer.from_, "to": answer.to, "after": answer.after}
            fields = [(key, text) for key, text in fields if key not in given] + list(given.items())
    finally:
        connection.close()


def ask_journal(state: Path, tags: Sequence[str], words: Mapping[str, str]) -> Iterator[HistoryAnswer]:
    """The same from the disk, read only and without its lock. Raises `GatewayError`."""
    now_ns = time.time_ns()
    question = make_question(tags, words, now_ns)
    filesystem = RealFileSystem()
    views = look(journal_directory(state), filesystem)
    damage: list[Damage] = []
    historian = Historian(
        [HistoryLane(view.name, view, LanePlaces()) for view in views],
        filesystem=filesystem,
        report=lambda _, found: damage.append(found),
    )
    while True:
        page = _whole(historian.ask(question, Now(now_ns, 0)))
        yield answer_of(question, page)
        if not page.after:
            return
        question = _following(question, page)


def _following(question: Question, page: Page) -> Question:
    return msgspec.structs.replace(question, after=page.after)


def _whole(pages: Pages) -> Page:
    while True:
        try:
            next(pages)
        except StopIteration as end:
            page: Page = end.value
            return page


def _decoded(base: str, body: bytes) -> HistoryAnswer:
    try:
        return msgspec.json.decode(body, type=HistoryAnswer)
    except msgspec.DecodeError as error:
        raise GatewayError(
            f"{base}: what answers there is not a gateway that keeps history: {error}"
        ) from error


def _reason(code: int, body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=Refusal).error
    except msgspec.DecodeError:
        return f"found an answer {code}, expected 200: {body[:200]!r}"

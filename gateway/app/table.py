"""The live table: points above, rates, links, uplinks and journal below, in whatever room the terminal gives.

Pure drawing: `TableView` remembers what it showed, to mark what changed; time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from gateway.api.source import LinkStatus, Points, PointView, ServerStatus, Status, UplinkStatus

CHANGE_SHOWN_NS: Final = 700_000_000
STALE_AGE_S: Final = 10.0  # older ages stand out; slow scans are older than fast ones and still fine
DECIMALS_MAX: Final = 3
WIDE_COLUMNS: Final = 114  # from here on two columns of points fit side by side
ROOMY_LINES: Final = 16  # below that no blank lines are spent
EVENTS_MAX: Final = 3
_MORE_COLUMNS: Final[tuple[tuple[str, int, JustifyMethod], ...]] = (
    ("unit", 5, "left"),
    ("quality", 9, "left"),
    ("age", 6, "right"),
)

_STATE_STYLES: Final = {"up": "green", "ok": "green", "connecting": "yellow", "degraded": "yellow"}


class Glyphs(msgspec.Struct, frozen=True):
    """The few signs used, for terminals with and without Unicode."""

    dash: str
    more: str
    up: str
    down: str
    changed: str
    dot: str
    separator: str
    is_unicode: bool


UNICODE: Final = Glyphs("—", "…", "▲", "▼", "◆", "●", "·", is_unicode=True)
ASCII: Final = Glyphs("-", "...", "^", "v", "*", "o", "|", is_unicode=False)


def glyphs_for(console: Console) -> Glyphs:
    """What this terminal can show."""
    return UNICODE if console.encoding.lower().startswith("utf") else ASCII


class _Memory(msgspec.Struct):
    """What was shown of one point."""

    shown: object
    decimals: int = 0
    mark: str = ""
    marked_ns: int = -CHANGE_SHOWN_NS


class TableView:
    """One picture of a gateway: feed it with `update`, print it with rich at any size."""

    def __init__(self, *, glyphs: Glyphs = UNICODE) -> None:
        self._glyphs = glyphs
        self._memory: dict[str, _Memory] = {}
        self._points: Sequence[PointView] = ()
        self._status: Status | None = None
        self._now_ns = 0
        self._heard_ns = 0
        self._fault = ""
        self._events: list[Text] = []
        self._keys: list[str] = []  # of the events
        self._said: list[str] = []  # events printed last, as plain lines
        self._printed: dict[str, int] = {}  # change counter of each point when it was last printed

    def update(self, *, points: Points, status: Status, now_ns: int) -> None:
        """What the gateway just told."""
        self._points, self._status = points.points, status
        self._now_ns = self._heard_ns = now_ns
        self._fault = ""
        for point in points.points:
            self._remember(point, now_ns)

    def lose(self, fault: str, *, now_ns: int) -> None:
        """The gateway does not answer: nothing on the screen may look fresh."""
        self._fault, self._now_ns = fault, now_ns

    def note(self, event: str, *, style: str = "", key: str = "") -> None:
        """One line at the bottom; the last few stay. A line with the `key` of an earlier one replaces it."""
        line = Text(event, style=style)
        if key and key in self._keys:
            at = self._keys.index(key)
            if self._events[at].plain == line.plain:
                return
            self._events[at] = line
        else:
            self._events = [*self._events, line][-EVENTS_MAX:]
            self._keys = [*self._keys, key][-EVENTS_MAX:]

    def _remember(self, point: PointView, now_ns: int) -> None:
        shown = (point.value, point.text, point.quality)
        memory = self._memory.get(point.name)
        if memory is None:
            memory = self._memory[point.name] = _Memory(shown=shown)
        elif memory.shown != shown:
            before = memory.shown[0] if isinstance(memory.shown, tuple) else None
            memory.mark = self._direction(before, point)
            memory.marked_ns = now_ns
            memory.shown = shown
        if isinstance(point.value, float):
            memory.decimals = max(memory.decimals, _decimals(point.value))

    def _direction(self, before: object, point: PointView) -> str:
        after = point.value
        numbers = isinstance(before, (int, float)) and isinstance(after, (int, float))
        if not numbers or isinstance(after, bool) or point.text is not None:
            return self._glyphs.changed
        return self._glyphs.up if after > before else self._glyphs.down  # type: ignore[operator]  # numbers, see above

    # Plain lines

    def plain_lines(self, *, limit: int) -> list[str]:
        """For logs: one line of state, then every point whose value or quality is new since the last call."""
        if self._fault or self._status is None:
            return [self._fault or "waiting for the first values"]
        status = self._status
        links = [f"{link.name} {link.state}" for link in status.links]
        links += [f"{server.name} {server.state} clients {server.connections}" for server in status.servers]
        uplinks = [f"{uplink.name} {uplink.state} backlog {uplink.backlog}" for uplink in status.uplinks]
        state = ", ".join([f"{status.points.good}/{status.points.total} points good", *links, *uplinks])
        fresh = [point for point in self._points if self._printed.get(point.name) != point.changed]
        self._printed.update((point.name, point.changed) for point in fresh)
        lines = [f"{status.time} {status.gateway}: {state}"]
        for point in fresh[:limit]:
            parts = (point.name, self._value(point), point.unit, point.quality)
            lines.append("  " + " ".join(filter(None, parts)))
        if len(fresh) > limit:
            lines.append(f"  {self._glyphs.more} {len(fresh) - limit} more changed")
        events = [event.plain for event in self._events]
        lines += [f"  {event}" for event in events if event not in self._said]
        self._said = events
        return lines if self._glyphs.is_unicode else [_ascii(line) for line in lines]

    # Drawing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.size.height
        for segment in console.render(self.picture(width=options.max_width, height=height), options):
            yield segment if self._glyphs.is_unicode else Segment(_ascii(segment.text), *segment[1:])

    def picture(self, *, width: int, height: int) -> RenderableType:
        """Everything in `width` by `height` cells; rows that do not fit are counted, not scrolled."""
        if self._status is None:
            return Text(self._fault or f"waiting for the first values {self._glyphs.more}", style="dim")
        is_roomy = height >= ROOMY_LINES
        head = self._head(self._status, width)
        foot = self._foot(self._status, width=width, lines_max=max(height - (9 if is_roomy else 5), 1))
        blanks = [Text()] if is_roomy else []
        room = max(height - len(foot) - 2 - 2 * len(blanks), 1)  # the head's line and the table's own header
        return Group(head, *blanks, self._body(width, room), *blanks, *foot)

    def _head(self, status: Status, width: int) -> Text:
        counts = status.points
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(f" {status.gateway} ", style="bold reverse")
        head.append(f" {status.site}", style="bold")
        head.append(self._between(f"up {duration(status.uptime_s)}", f"{counts.total} points"), style="dim")
        for number, level, style in (
            (counts.good, "good", "green"),
            (counts.uncertain, "uncertain", "yellow"),
            (counts.bad, "bad", "bold red"),
        ):
            if number:
                head.append(f" {number} {level}", style=style)
        if self._fault:
            silent_s = (self._now_ns - self._heard_ns) / 1e9
            head = Text(
                f" {status.gateway}  NO ANSWER for {duration(silent_s)}: {self._fault}", style="bold red"
            )
            head.no_wrap, head.overflow = True, "ellipsis"
        head.truncate(width)
        return head

    def _between(self, *parts: str) -> str:
        return "".join(f" {self._glyphs.separator} {part}" for part in parts if part)

    def _body(self, width: int, room: int) -> RenderableType:
        points = self._points
        if not points:
            return Text("no points are configured", style="dim")
        columns = 2 if width >= WIDE_COLUMNS and len(points) > room else 1
        if len(points) <= room * columns:
            shown, hidden = list(points), list[PointView]()
        else:
            room = max(room - 1, 1)  # the line that counts what is hidden
            shown, hidden = _most_telling(points, room * columns)
        per_column = room if columns > 1 else len(shown)
        tables = [self._table(part, width // columns) for part in _chunks(shown, per_column)]
        side_by_side: RenderableType = tables[0]
        if len(tables) > 1:
            grid = Table.grid(padding=(0, 3, 0, 0))
            grid.add_row(*tables)
            side_by_side = grid
        if not hidden:
            return side_by_side
        return Group(side_by_side, self._more(hidden))

    def _more(self, hidden: Sequence[PointView]) -> Text:
        bad = sum(not point.quality.startswith("good") for point in hidden)
        rest = f", {bad} of them not good" if bad else ", all good"
        text = f" {self._glyphs.more} {len(hidden)} more{rest}"
        return Text(text, style="red" if bad else "dim", no_wrap=True, overflow="ellipsis")

    def _table(self, points: Sequence[PointView], width: int) -> Table:
        """Narrow terminals lose the age, then the unit, then the quality; a bad value is a dash anyway."""
        kept = 5 if width >= 57 else 4 if width >= 50 else 3 if width >= 44 else 2
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim", collapse_padding=True)
        table.add_column(" tag", no_wrap=True, overflow="ellipsis", min_width=min(14, width // 2))
        table.add_column("value", no_wrap=True, min_width=min(11, width // 2))
        for title, min_width, justify in _MORE_COLUMNS[: kept - 2]:
            table.add_column(title, no_wrap=True, overflow="ellipsis", min_width=min_width, justify=justify)
        texts = [self._value(point) for point in points]
        before_point = max((_width_before_point(text) for text in texts), default=0)
        for point, text in zip(points, texts, strict=True):
            device, _, tag = point.name.partition("/")
            name = Text.assemble(" ", (f"{device}/", "dim"), (tag, "bold"))
            cells = [name, self._cell(point, text, before_point), Text(point.unit)]
            table.add_row(*[*cells, self._quality(point), self._age(point)][:kept])
        return table

    def _value(self, point: PointView) -> str:
        value = point.value
        if value is None or point.quality.startswith("bad"):
            return self._glyphs.dash
        if point.text is not None:
            return point.text
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, float):
            return f"{value:.{self._memory[point.name].decimals}f}"
        return str(value)

    def _cell(self, point: PointView, text: str, before_point: int) -> Text:
        """The value, its decimal point in line with the others', and a mark for a moment after a change."""
        memory = self._memory[point.name]
        is_number = _is_number(point, text)
        indent = before_point - _width_before_point(text) if is_number else 0
        is_fresh = self._now_ns - memory.marked_ns < CHANGE_SHOWN_NS
        style = "bold bright_cyan" if is_fresh else ""
        if text == self._glyphs.dash:
            style = "red"
            indent = max(before_point - 1, 0)
        if self._fault:
            style = "dim"
        mark = memory.mark if is_fresh and not self._fault else " "
        return Text.assemble((mark, "cyan"), " ", " " * indent, (text, style))

    def _quality(self, point: PointView) -> Text:
        if self._fault:
            return Text("no answer", style="red")  # nobody knows what the value is worth now
        level, _, reason = point.quality.partition("/")
        if level == "good":
            return Text(point.quality, style="green")
        return Text(reason or level, style="red" if level == "bad" else "yellow")

    def _age(self, point: PointView) -> Text:
        if point.age_s is None:
            return Text(self._glyphs.dash, style="dim")
        age_s = point.age_s + (self._now_ns - self._heard_ns) / 1e9
        return Text(duration(age_s), style="yellow" if age_s > STALE_AGE_S else "dim")

    def _foot(self, status: Status, *, width: int, lines_max: int) -> list[Text]:
        connections = [(link.state == "up", self._link(link)) for link in status.links]
        connections += [(server.state == "up", self._server(server)) for server in status.servers]
        connections += [(uplink.state == "up", self._uplink(uplink)) for uplink in status.uplinks]
        notices = [
            _line(
                "notice",
                Text(notice.text, style={"error": "bold red", "warning": "yellow"}.get(notice.level, "")),
            )
            for notice in status.notices[-1:]
        ]
        events = self._events[-(EVENTS_MAX if lines_max > EVENTS_MAX + 3 else 1) :]
        room = max(lines_max - len(notices) - len(events) - 1, 2)
        lines = self._fitting(connections, room)
        lines += [self._journal(status), *notices][: max(lines_max - len(lines) - len(events), 0)]
        lines += [_line("event" if index == 0 else "", event) for index, event in enumerate(events)]
        lines = lines[:lines_max]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
            line.truncate(width, overflow="ellipsis")
        return lines

    def _fitting(self, connections: list[tuple[bool, Text]], room: int) -> list[Text]:
        """At most `room` lines; those that are not up are what one looks for."""
        lines = [line for _, line in connections]
        if len(lines) <= room:
            return lines
        lines = [line for _, line in sorted(connections, key=lambda connection: connection[0])][: room - 1]
        hidden = f"{self._glyphs.more} {len(connections) - len(lines)} more links and uplinks"
        return [*lines, _line("", Text(hidden, style="dim"))]

    def _link(self, link: LinkStatus) -> Text:
        text = self._state(link.name, link.state, link.peer, link.reason)
        if link.state == "up":
            text.append(f"  {rate(link.requests_per_s)} requests/s  {rate(link.points_per_s)} points/s")
        for number, what in ((link.timeouts_total, "timeouts"), (link.errors_total, "errors")):
            if number:
                text.append(f"  {number} {what}", style="yellow")
        for device in link.devices:
            if device.state in {"degraded", "demoted"}:
                text.append(f"  {device.name} {device.state} {device.reason}".rstrip(), style="red")
        return _line("link", text)

    def _server(self, server: ServerStatus) -> Text:
        text = self._state(server.name, server.state, server.address, server.reason)
        if server.connections_limit:
            text.append(f"  clients {server.connections}/{server.connections_limit}")
        text.append(f"  {count(server.points)} points  {count(server.requests_total)} requests")
        refusals = sum(server.exceptions_total.values())
        for number, what in ((refusals, "refused requests"), (server.refused_total, "refused clients")):
            if number:
                text.append(f"  {count(number)} {what}", style="yellow")
        return _line("server", text)

    def _uplink(self, uplink: UplinkStatus) -> Text:
        text = self._state(uplink.name, uplink.state, uplink.peer, uplink.reason)
        if uplink.state == "up":
            text.append(f"  {rate(uplink.messages_per_s)} messages/s")
        text.append(f"  backlog {count(uplink.backlog)}", style="yellow" if uplink.state != "up" else "")
        if uplink.backlog_age_s is not None and uplink.backlog_age_s >= 1.0:
            text.append(f" since {duration(uplink.backlog_age_s)}", style="yellow")
        if uplink.in_flight_limit:
            text.append(f"  in flight {uplink.in_flight}/{uplink.in_flight_limit}")
        for number, what in ((uplink.quarantined_total, "quarantined"), (uplink.dropped_total, "dropped")):
            if number:
                text.append(f"  {count(number)} {what}", style="bold red")
        return _line("uplink", text)

    def _state(self, name: str, state: str, peer: str, reason: str) -> Text:
        style = _STATE_STYLES.get(state, "bold red")
        text = Text.assemble((self._glyphs.dot, style), f" {name} ", (state, style), f" {peer}")
        if state != "up" and reason:
            text.append(f"  {reason}", style=style)
        return text

    def _journal(self, status: Status) -> Text:
        journal = status.journal
        style = {"ok": "green", "off": "dim"}.get(journal.state, "bold red")
        text = Text.assemble(
            (self._glyphs.dot, style), " ", (journal.state, style), f" {size(journal.size_bytes)}"
        )
        if journal.limit_bytes is not None:
            text.append(f" of {size(journal.limit_bytes)}")
        text.append(f"  epoch {status.epoch}  committed {count(journal.committed_seq)}")
        if journal.damaged_total:
            text.append(f"  {count(journal.damaged_total)} damaged records set aside", style="bold red")
        if journal.reason:
            text.append(f"  {journal.reason}", style=style)
        return _line("journal", text)


def _ascii(text: str) -> str:
    """The same number of characters, without any that such a terminal cannot show."""
    return (
        text.translate({ord("…"): "~", ord("°"): " ", ord("µ"): "u"})
        .encode("ascii", "replace")
        .decode("ascii")
    )


def _line(title: str, text: Text) -> Text:
    return Text.assemble((f" {title:<8}", "dim"), text)


def _is_number(point: PointView, text: str) -> bool:
    return isinstance(point.value, (int, float)) and not isinstance(point.value, bool) and text != point.text


def _width_before_point(text: str) -> int:
    whole = text.partition(".")[0]
    return len(whole) if whole.lstrip("-").isdigit() else 0


def _decimals(value: float) -> int:
    """How many decimals this value deserves: its own, at least one, but not the noise digits of a float32."""
    if abs(value) >= 1e6:
        return 0
    limit = DECIMALS_MAX if abs(value) < 10 else 2 if abs(value) < 1000 else 1
    text = f"{value:.{limit}f}".rstrip("0")
    return max(len(text.partition(".")[2]), 1)


def _most_telling(points: Sequence[PointView], places: int) -> tuple[list[PointView], list[PointView]]:
    """What is shown and what is not: points that are not good come first, the order stays."""
    troubled = [index for index, point in enumerate(points) if not point.quality.startswith("good")]
    calm = [index for index, point in enumerate(points) if point.quality.startswith("good")]
    chosen = set([*troubled, *calm][:places])
    shown = [point for index, point in enumerate(points) if index in chosen]
    hidden = [point for index, point in enumerate(points) if index not in chosen]
    return shown, hidden


def _chunks(points: Sequence[PointView], size: int) -> Iterable[Sequence[PointView]]:
    for start in range(0, len(points), max(size, 1)):
        yield points[start : start + size]


def duration(seconds: float) -> str:
    """`0.2 s`, `59 s`, `12 min`, `3.5 h`, `9 d`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} d"


def rate(per_second: float) -> str:
    """`0.4`, `12`, `3.4 k`."""
    if per_second < 9.95:
        return f"{per_second:.1f}"
    return count(round(per_second))


def count(number: int) -> str:
    """`999`, `12.3 k`, `4.5 M`."""
    if number < 10_000:
        return str(number)
    if number < 1_000_000:
        return f"{number / 1000:.1f} k"
    return f"{number / 1_000_000:.1f} M"


def size(size_bytes: int) -> str:
    """`0 B`, `1.2 MB`: decimal units, as disks are sold."""
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"

"""`gateway frames`: what goes over a wire of a running gateway, in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from drivers.modbus.wire import mbap, pdu
from drivers.modbus.wire.client import ClientSession
from drivers.modbus.wire.pdu import Table
from gateway.api.source import Frames
from gateway.app import frames as showing
from gateway.app.frames import show_frames
from gateway.app.watch import NotAGateway
from gateway.app.wires import READ_EVERY_NS, Wires
from tests.api.fake_source import FakeSource
from tests.app.test_watch import served

S = 1_000_000_000
READ = pdu.read(Table.HOLDING_REGISTERS, start=5, count=1)


def test_frames_are_printed_as_they_come(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "LOOK_S", 0.02)
    source = FakeSource()
    monkeypatch.setattr(source, "watch_frames", lambda link, for_ns: watched(source, link, for_ns))
    with served(source) as url:
        assert show_frames("plc", for_s=0.1, with_hex=True, url=url) == 0
    assert capsys.readouterr().out.splitlines() == [
        "12:00:00.123Z > frame 2  [01 07]",
        "12:00:00.123Z > frame 3  [01 07]",
    ]
    assert source.watched == {"plc": 0}, "it is ended behind it"


def watched(source: FakeSource, link: str, for_ns: int) -> Frames:
    """What was there before is not shown."""
    source.watched[link] = for_ns
    return Frames(link=link, watched_s=for_ns / 1e9, last=1, missed=0, frames=[])


def test_an_unknown_link_is_told_in_words() -> None:
    with (
        served(FakeSource()) as url,
        pytest.raises(NotAGateway, match="no link 'plc9'; /v1/status names them"),
    ):
        show_frames("plc9", for_s=1, with_hex=False, url=url)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_ns = 100 * S

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns + 1_700_000_000 * S


def test_a_running_link_shows_its_frames_for_as_long_as_asked() -> None:
    session, clock = ClientSession(), Hands()
    gateway: Any = SimpleNamespace(links={"plc": SimpleNamespace(driver=SimpleNamespace(session=session))})
    wires = Wires(gateway, clock=clock)  # type: ignore[arg-type]  # of its methods it needs two

    def ask(number: int) -> None:
        session.request(7, READ, token=0, timeout_ns=S, now_ns=clock.now_ns)
        session.receive(mbap.encode(number, 7, b"\3\2\x12\x34"), clock.now_ns + 2_000_000)

    ask(1)
    assert wires.frames("nope", 0) is None
    assert wires.watch("nope", S) is None
    begun = wires.watch("plc", 10 * S)
    assert begun is not None
    assert (begun.watched_s, begun.last, begun.frames) == (10.0, 0, [])
    ask(2)
    clock.now_ns += S
    shown = wires.frames("plc", 0)
    assert shown is not None
    assert [(frame.time[11:], frame.way, frame.text) for frame in shown.frames] == [
        ("22:15:00.000Z", "sent", "unit 7 read holding registers 5"),
        ("22:15:00.002Z", "received", "unit 7: 1 register 1234"),
    ]
    hurried = wires.frames("plc", 0)
    clock.now_ns += READ_EVERY_NS
    patient = wires.frames("plc", 0)
    assert hurried is not None
    assert patient is not None
    assert (len(hurried.frames), len(patient.frames)) == (0, 2), "too often: nothing new, nothing forgotten"
    clock.now_ns += 10 * S
    ask(3)
    after = wires.frames("plc", 2)
    assert after is not None
    assert (after.watched_s, after.frames) == (0.0, [])

"""Many spoiled frames, quickly: no other error than the peer's, and work that grows with the octets only."""

from __future__ import annotations

import random
import sys
from types import FrameType

import pytest

from drivers.iec104.wire import apci
from drivers.iec104.wire.asdu import Codec
from drivers.iec104.wire.describe import describe_frame
from drivers.iec104.wire.events import Received
from drivers.iec104.wire.session import Role, Session
from drivers.iec104.wire.settings import Settings
from drivers.iec104.wire.terms import Function
from gateway.core.errors import RemoteProtocolError
from tests.drivers.iec104.octets import captured_frames

CODEC = Codec()
SPOILED = 50_000
CALLS_FOR_AN_OCTET_MAX = (
    4  # Python and C calls; measured: 1.7 for test frames, 2.2 for S frames, 1.1 and 0.2 for data
)


def test_fifty_thousand_spoiled_apdus() -> None:
    dice = random.Random(104)
    frames = [frame for _, frame in captured_frames()]
    started = apci.u_frame(Function.STARTDT_ACT)
    refused = taken = 0
    for number in range(SPOILED):
        octets = bytearray(dice.choice(frames))
        for _ in range(dice.randint(0, 4)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        if dice.random() < 0.2:
            octets[6:] = dice.randbytes(dice.randint(0, 60))
        if dice.random() < 0.5 and len(octets) > 6:  # as the next one that is expected
            octets[1:6] = bytes((len(octets) - 2, 0, 0, 0, 0))
        session = Session(Role.CONTROLLED, Settings(), CODEC)
        session.connected(0)
        try:
            events = session.receive(started + bytes(octets), 0)
        except RemoteProtocolError:
            refused += 1
        else:
            taken += sum(isinstance(event, Received) for event in events)
        if number % 10 == 0:
            assert describe_frame(bytes(octets), CODEC)
    assert refused > SPOILED // 5
    assert taken > SPOILED // 5


def calls_of(session: Session, data: bytes) -> int:
    """Python and C calls while this is received and answered."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(profile)
    try:
        session.receive(data, 0)
        session.to_send(0)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("size", [1 << 10, 1 << 16])
@pytest.mark.parametrize("kind", ["test frames", "S frames", "smallest ASDUs", "full ASDUs"])
def test_work_grows_with_the_octets_only(kind: str, size: int) -> None:
    small, full = (
        bytes.fromhex("67 01 06 00 01 00 00 00 00") + bytes(7),
        bytes.fromhex("01ff 0300 0100 000000"),
    )
    pieces = {
        "test frames": lambda _: apci.u_frame(Function.TESTFR_ACT),
        "S frames": lambda _: apci.s_frame(0),
        "smallest ASDUs": lambda n: apci.i_frame(n % 32_768, 0, small),
        "full ASDUs": lambda n: apci.i_frame(n % 32_768, 0, full + bytes(127)),
    }[kind]
    session = Session(Role.CONTROLLED, Settings(), CODEC)
    session.connected(0)
    session.receive(apci.u_frame(Function.STARTDT_ACT), 0)
    one = len(pieces(0))
    stream = b"".join(pieces(n) for n in range(size // one))
    assert calls_of(session, stream) < CALLS_FOR_AN_OCTET_MAX * len(stream)

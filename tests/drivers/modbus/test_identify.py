"""Devices say who they are, where they are asked: behind their values, once for each connection."""

from __future__ import annotations

import asyncio

from drivers.modbus.identify import text_of
from drivers.modbus.wire.pdu_identity import Identity
from tests.drivers.modbus.rig import Plc, Request, Rig, driven, frame

SITE = """
links: {plc: {driver: modbus, host: 10.0.0.1, timeout: 500ms, reconnect: {min: 1s, max: 10s}}}
scan: {normal: 1s}
devices:
  d: {link: plc, unit: 1, identify: true, tags: {a: {at: "hr:0", type: uint16}}}
  e: {link: plc, unit: 2, tags: {a: {at: "hr:0", type: uint16}}}
"""
OBJECTS = {0: b"Vendor", 1: b"Code", 2: b"V1", 3: b"u" * 240, 4: b"Pump 7\0\0"}


class Speaking(Plc):
    """Answers 43/14 and 17 as told."""

    def __init__(self, identification: Identity | int | None, server_id: bytes = b"") -> None:
        super().__init__(1, 2)
        self.identification, self.server_id = identification, server_id

    def respond(self, unit: int, pdu: bytes) -> bytes:
        if pdu[0] == 43:
            if isinstance(self.identification, Identity):
                answer = self.identification.answer(pdu)
                assert isinstance(answer, bytes)
                return answer
            return bytes((0xAB, self.identification or 1))
        if pdu[0] == 17:
            return bytes((17, len(self.server_id))) + self.server_id if self.server_id else b"\x91\x01"
        return super().respond(unit, pdu)


def identity_of(plc: Plc, *, seconds: float = 3.5) -> dict[str, str]:
    async def script(rig: Rig) -> None:
        await asyncio.sleep(seconds)
        assert rig.shown.points["d/a"] == (7, "good")

    return driven(SITE, script, plc=plc).driver.devices["d"].identity


def test_a_device_says_who_it_is_behind_its_first_values() -> None:
    plc = Speaking(Identity(OBJECTS))
    assert identity_of(plc) == {
        "VendorName": "Vendor",
        "ProductCode": "Code",
        "MajorMinorRevision": "V1",
        "VendorUrl": "u" * 240,
        "ProductName": "Pump 7",
    }
    assert plc.asked[0][2][0] == 3, "values come first"
    assert [unit for _, unit, pdu in plc.asked if pdu[0] == 43] == [1, 1, 1], "one unit, one time"


def test_one_that_refuses_is_asked_for_its_server_id() -> None:
    plc = Speaking(1, b"\x09\xffgateway")
    assert identity_of(plc) == {"ServerId": "09 ff 67 61 74 65 77 61 79"}
    assert [len(plc.requests(43)), len(plc.requests(17))] == [1, 1]


def test_one_that_refuses_both_is_left_in_peace() -> None:
    plc = Speaking(1)
    assert identity_of(plc) == {}
    assert [len(plc.requests(43)), len(plc.requests(17))] == [1, 1]


def test_silence_or_nonsense_to_the_question_does_not_harm_the_values() -> None:
    for nonsense in (b"", b"\x2b\x0e\x02\x09\0\0\0", b"\x2b\x0e\x02\x01\xff\0\1\0\0"):
        plc = Speaking(None)

        def reply(plc: Plc, request: Request, said: bytes = nonsense) -> bytes:
            transaction, unit, pdu = request
            if pdu[0] == 43:
                return frame(transaction, unit, said) if said else b""
            return plc.answer(request)

        plc.reply = reply

        async def script(rig: Rig) -> None:
            await asyncio.sleep(5)
            device = rig.driver.devices["d"]
            assert (device.state, device.failure_count, device.identity) == ("ok", 0, {})
            assert rig.shown.points["d/a"] == (7, "good")

        driven(SITE, script, plc=plc)
        assert len(plc.requests(43)) == 1


def test_a_new_connection_may_be_another_device() -> None:
    plc = Speaking(Identity(OBJECTS))

    async def script(rig: Rig) -> None:
        await asyncio.sleep(2.5)
        plc.identification = Identity({**OBJECTS, 0: b"Other"})
        rig.driver.endpoint.drop("cut by the test")
        await asyncio.sleep(5)
        assert rig.driver.devices["d"].identity["VendorName"] == "Other"

    driven(SITE, script, plc=plc)


def test_what_is_no_text_is_shown_as_digits() -> None:
    assert text_of(b"ABC \0") == "ABC"
    assert text_of(b"") == ""
    assert text_of(b"\xff\x01") == "ff 01"

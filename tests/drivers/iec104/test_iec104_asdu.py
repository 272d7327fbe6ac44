"""ASDUs to octets and back: real captures, every type, any octets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.iec104.wire import apci, elements
from drivers.iec104.wire.asdu import Asdu, Codec, Sizes, confirmation
from drivers.iec104.wire.describe import describe_frame, frame_words
from drivers.iec104.wire.elements import LAYOUTS, Freeze, Pulse, Quality
from drivers.iec104.wire.terms import Cause, TypeId
from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from tests.drivers.iec104.octets import asdus, captured_frames, codes

CODEC = Codec()
SIZES = [
    Sizes(cause=cause, common_address=common, object_address=where, asdu=asdu)
    for cause, common, where, asdu in itertools.product((1, 2), (1, 2), (1, 2, 3), (64, 249))
]


def asdu_of(frame: str) -> Asdu:
    """The ASDU of an I frame in hexadecimal digits."""
    return CODEC.decode(apci.decode(bytes.fromhex(frame)).asdu)


@pytest.mark.parametrize(("where", "frame"), captured_frames(), ids=lambda one: str(one)[:40])
def test_a_captured_frame_is_read_and_written_octet_for_octet(where: str, frame: bytes) -> None:
    found = apci.decode(frame)
    if found.function is not None:
        again = apci.u_frame(found.function)
    elif found.send < 0:
        again = apci.s_frame(found.receive)
    else:
        asdu = CODEC.decode(found.asdu)
        assert asdu.raw is None, where
        again = apci.i_frame(found.send, found.receive, CODEC.encode(asdu))
    assert again == frame


def test_captured_values() -> None:
    # iec104-diverse packet 1; values as Wireshark 4.0.17 prints them
    asdu = asdu_of("681a9a0028000d02010003001405000000f041001505000000314400")
    assert (asdu.type_id, asdu.cause, asdu.common_address, asdu.originator) == (13, Cause.PERIODIC, 3, 0)
    assert asdu.addresses == (1300, 1301)
    assert asdu.column("value") == (30.0, 708.0)
    assert asdu.column("qds") == (0, 0)
    # iec104-dissect packet 134: negative confirmation of a test, originator 2
    asdu = asdu_of("680e14000a002d01c7020d91ce560081")
    assert (asdu.cause, asdu.negative, asdu.test, asdu.originator) == (7, True, True, 2)
    assert (asdu.common_address, asdu.addresses, asdu.column("sco")) == (37133, (22222,), (0x81,))
    with pytest.raises(KeyError, match="C_SC_NA_1 has no field siq"):
        asdu.column("siq")


def test_a_captured_sequence_shares_one_address() -> None:
    # iec104-dissect packet 110, fourth frame of its segment: M_SP_NA_1, SQ = 1, nine objects
    frame = next(
        frame for where, frame in captured_frames()
        if where == "iec104-dissect packet 110" and frame[6:8] == bytes.fromhex("0189")
    )  # fmt: skip
    asdu = CODEC.decode(apci.decode(frame).asdu)
    assert asdu.sequence
    assert asdu.addresses == range(10010, 10019)
    assert len(asdu.column("siq")) == 9


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_what_is_encoded_is_decoded(sizes: Sizes, data: st.DataObject) -> None:
    codec = Codec(sizes)
    asdu = data.draw(asdus(codec))
    octets = codec.encode(asdu)
    assert len(octets) <= sizes.asdu
    assert codec.decode(octets) == asdu


@pytest.mark.parametrize("type_id", [*LAYOUTS, TypeId.F_SG_NA_1], ids=lambda one: TypeId(one).name)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_every_type_there_and_back(type_id: int, data: st.DataObject) -> None:
    asdu = data.draw(asdus(CODEC, st.just(type_id)))
    assert CODEC.decode(CODEC.encode(asdu)) == asdu
    frame = apci.i_frame(1, 2, CODEC.encode(asdu))
    assert TypeId(type_id).name in describe_frame(frame, CODEC)


@given(st.binary(max_size=260))
@settings(max_examples=1000, deadline=None)
def test_any_octets_are_an_asdu_or_the_peers_fault(octets: bytes) -> None:
    try:
        asdu = CODEC.decode(octets)
    except RemoteProtocolError:
        return
    # Not equal where a float is a signalling NaN, which Python reads as a quiet one.
    if not any(isinstance(one, float) and one != one for column in asdu.columns for one in column):
        assert CODEC.encode(asdu) == octets


@given(st.sampled_from([*LAYOUTS, TypeId.F_SG_NA_1, 0, 200]), st.integers(0, 255), st.binary(max_size=243))
@settings(max_examples=1000, deadline=None)
def test_any_objects_of_a_known_type(type_id: int, qualifier: int, body: bytes) -> None:
    octets = bytes((type_id, qualifier, 3, 0, 1, 0)) + body
    try:
        asdu = CODEC.decode(octets)
    except RemoteProtocolError:
        return
    assert len(asdu.addresses) <= 127
    describe_frame(apci.i_frame(0, 0, octets), CODEC)


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_octets_have_words(octets: bytes) -> None:
    assert describe_frame(octets, CODEC)
    assert describe_frame(b"\x68" + bytes((len(octets) % 256,)) + octets, CODEC)


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        ("01 01 03 00 01", "ASDU: found 5 octets, expected 6 at least"),
        ("01 01 03 00 01 00 0a 00 00", "M_SP_NA_1: found 3 octets of objects, expected 4 for 1 of them"),
        ("01 02 03 00 01 00 0a 00 00 01", "M_SP_NA_1: found 4 octets of objects, expected 8 for 2 of them"),
        ("01 01 03 00 01 00 0a 00 00 01 01", "found 5 octets of objects, expected 4"),
        ("01 82 03 00 01 00 0a 00 00 01", "found 4 octets of objects, expected 5 for 2"),
        ("01 82 03 00 01 00 ff ff ff 01 01", "2 objects from address 16777215"),
        ("7d 01 0d 00 01 00 0a 00 00 01 00 01 05 00", "F_SG_NA_1: found 8 octets of objects, expected 12"),
        ("7d 02 0d 00 01 00 0a 00 00 01 00 01 00", "F_SG_NA_1: found 2 objects, SQ 0"),
        ("7d 01 0d 00 01 00 0a 00 00", "F_SG_NA_1: found 3 octets"),
    ],
)
def test_a_length_that_does_not_fit_is_the_peers_fault(octets: str, fault: str) -> None:
    with pytest.raises(RemoteProtocolError, match=fault):
        CODEC.decode(bytes.fromhex(octets))


@pytest.mark.parametrize(
    ("asdu", "fault"),
    [
        (Asdu(1, 3, 1, (1,), ()), r"M_SP_NA_1: found columns of \[\], expected 1 each"),
        (Asdu(1, 3, 1, (1, 2), ((1,),)), "found columns of"),
        (Asdu(1, 3, 1, (1 << 24,), ((1,),)), "object address outside 0..16777215"),
        (Asdu(1, 3, 1, (1, 3), ((1, 1),), sequence=True), "addresses with gaps"),
        (Asdu(1, 3, 1, (1,), ((256,),)), "M_SP_NA_1"),
        (Asdu(13, 3, 1, (1,), ((1e39,), (0,))), "M_ME_NC_1"),
        (Asdu(13, 3, 1, (1,), (("x",), (0,))), "M_ME_NC_1"),
        (Asdu(1, 64, 1, (1,), ((1,),)), "found cause 64, expected 0..63"),
        (Asdu(1, 3, 65536, (1,), ((1,),)), "found common address 65536"),
        (Asdu(1, 3, 1, (1,), ((1,),), originator=256), "found originator 256"),
        (Asdu(200, 3, 1, (1,), ((1,),)), "type 200: has no layout"),
        (Asdu(36, 3, 1, (1,) * 20, ((0.0,) * 20, (0,) * 20, (bytes(7),) * 20)), "306 octets for 20 objects"),
        (Asdu(1, 3, 1, raw=bytes(10), count=128), "found 128 objects"),
        (Asdu(125, 13, 1, (1,), ((1,), (1,), (bytes(256),))), "F_SG_NA_1"),
        (Asdu(125, 13, 1 << 24, (1 << 24,), ((1,), (1,), (b"",))), "F_SG_NA_1: found address 16777216"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_our_fault(asdu: Asdu, fault: str) -> None:
    with pytest.raises(LocalProtocolError, match=fault):
        CODEC.encode(asdu)


def test_sizes_are_checked() -> None:
    for wrong in ({"cause": 3}, {"common_address": 0}, {"object_address": 4}, {"asdu": 250}):
        with pytest.raises(LocalProtocolError, match=f"sizes.{next(iter(wrong))}"):
            Sizes(**wrong)
    with pytest.raises(LocalProtocolError, match=r"originator 1, expected 0\.\.0"):
        Codec(Sizes(cause=1)).encode(Asdu(1, 3, 1, (1,), ((1,),), originator=1))
    with pytest.raises(RemoteProtocolError, match="70 octets, expected 64 at most"):
        Codec(Sizes(asdu=64)).decode(bytes(70))


def test_room_is_what_fits() -> None:
    for type_id, sequence in itertools.product(LAYOUTS, (False, True)):
        room = CODEC.room(type_id, sequence=sequence)
        columns = tuple(
            ((bytes(int(code[:-1])) if code.endswith("s") else 0),) * (room + 1)
            for code in codes(LAYOUTS[type_id].format)
        )
        fits = Asdu(type_id, 3, 1, tuple(range(room)), tuple(c[:room] for c in columns), sequence=sequence)
        assert len(CODEC.encode(fits)) <= 249
        with pytest.raises(LocalProtocolError):
            CODEC.encode(Asdu(type_id, 3, 1, tuple(range(room + 1)), columns, sequence=sequence))
    assert CODEC.room(TypeId.M_ME_NC_1) == 30
    assert CODEC.room(TypeId.M_SP_NA_1, sequence=True) == 127
    with pytest.raises(LocalProtocolError, match="F_SG_NA_1"):
        CODEC.room(TypeId.F_SG_NA_1)


def test_a_confirmation_mirrors_its_command() -> None:
    # iec104-diverse packets 25 and 27: select of C_SC_NA_1 and its confirmation
    command = asdu_of("680e2c00a2002d010600030094110081")
    assert confirmation(command) == asdu_of("680ea2002e002d010700030094110081")
    # iec104-dissect packets 117 and 118: refused
    command = asdu_of("680e02000a002e0106010d91983a0082")
    assert confirmation(command, negative=True) == asdu_of("680e0a0004002e0147010d91983a0082")
    assert confirmation(command, cause=Cause.ACTIVATION_TERMINATION).cause == 10
    with pytest.raises(LocalProtocolError, match="cause 7"):
        confirmation(confirmation(command))


def test_bits_of_elements() -> None:
    assert [elements.step_position(elements.vti(n, transient=n > 0)) for n in (-64, -1, 0, 63)] == [
        (-64, False), (-1, False), (0, False), (63, True),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="step position: found 64"):
        elements.vti(64)
    assert elements.normalized(-32768) == -1.0
    assert elements.nva(elements.normalized(12345)) == 12345
    for wrong in (1.0, -1.1):
        with pytest.raises(ValueError, match="normalized value"):
            elements.nva(wrong)
    # iec104-diverse packet 19, 25 and 91: execute on; select on; DCO 6
    assert elements.command(1) == 0x01
    assert elements.command(1, select=True) == 0x81
    assert elements.command(2, pulse=Pulse.SHORT) == 0x06
    for wrong in ((4, 0), (0, 32)):
        with pytest.raises(ValueError, match="command: found"):
            elements.command(wrong[0], pulse=wrong[1])
    assert elements.counter_interrogation() == 5
    assert elements.counter_interrogation(1, Freeze.RESET) == 0xC1
    with pytest.raises(ValueError, match="RQT"):
        elements.counter_interrogation(64)
    assert Quality.IV | Quality.NT == 0xC0


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("680407000000", "STARTDT act"),
        ("680401009c00", "S, acknowledges 78"),
        (
            "681a9a0028000d02010003001405000000f041001505000000314400",
            "I 77, acknowledges 20: M_ME_NC_1 periodic, station 3: 1300 30 good; 1301 708 good",
        ),
        (
            "681528009c003a010600030095110081080017130d086d",
            ("I 20, acknowledges 78: C_SC_TA_1 activation, station 3: "
             "4501 select on year 109-08-13 19:23:00.008"),
        ),
        (
            "6815c8003e001e010300030002000001aac229108d0809",
            "I 100, acknowledges 31: M_SP_TB_1 spontaneous, station 3: 2 on good 2009-08-13 16:41:49.834",
        ),
        (
            "680e14000a002d01c7020d91ce560081",
            ("I 10, acknowledges 5: C_SC_NA_1 activation confirmation, negative, test, originator 2, "
             "station 37133: 22222 select on"),
        ),
        (
            "680ea40030002e0107000300f8110006",
            ("I 82, acknowledges 24: C_DC_NA_1 activation confirmation, station 3: "
             "4600 execute on, short pulse"),
        ),
        (
            "680e3c00bc0064010600030000000014",
            "I 30, acknowledges 94: C_IC_NA_1 activation, station 3: 0 station",
        ),
        ("680e3c00bc0064010600030000000014ff", "malformed: frame: found ff, expected it to start with 68"),
        ("680e3c00bc00640106000300000000", "malformed: not one whole frame: 68 0e 3c"),
        ("680b3c00bc0001010600030000", "I 30, acknowledges 94, but malformed: M_SP_NA_1: found 1 octets"),
        ("680cc80000009f01030001001122", "type 159 spontaneous, station 1: 1 objects not decoded: 11 22"),
        ("680404000000", "malformed: I frame: found no ASDU"),
    ],
)  # fmt: skip
def test_words_of_frames(frame: str, words: str) -> None:
    assert words in describe_frame(bytes.fromhex(frame), CODEC)


def test_words_for_the_frame_log() -> None:
    assert frame_words("sent", bytes.fromhex("680443000000"), CODEC, "") == ("680443000000", "TESTFR act")
    assert frame_words("fault", b"", CODEC, "no STARTDT con in time") == ("", "no STARTDT con in time")

"""Wireshark as judge of our octets: every type we write, with the same values and no complaint."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from drivers.iec104.wire import apci, elements
from drivers.iec104.wire.asdu import Asdu, Codec
from drivers.iec104.wire.elements import LAYOUTS
from drivers.iec104.wire.terms import Cause, Function, TypeId
from drivers.iec104.wire.timetag import Cp24Time2a, Cp56Time2a, encode_cp24, encode_cp56
from tests.drivers.iec104.octets import codes
from tests.peers import require

CODEC = Codec()
CP56 = Cp56Time2a(59_999, 59, 23, 31, 12, 26, 4, invalid=True, substituted=True, summer=True)
CP24 = Cp24Time2a(12_345, 59, invalid=True, substituted=True)
# Two objects of every type: each field takes the first value in the first object, the second in the second.
VALUES: dict[str, tuple[Any, Any]] = {
    "siq": (0x91, 0x60), "diq": (0xB2, 0x41), "vti": (elements.vti(-64, transient=True), elements.vti(63)),
    "qds": (0xD1, 0x20), "qdp": (0xF8, 0x08), "bsi": (0xDEADBEEF, 1), "nva": (-32768, 12345),
    "sva": (-32768, 12345), "value": (-1.5, 3.25e7), "counter": (-(1 << 31), 99), "bcr": (0xFF, 0x05),
    "status": (0xA5A5, 1), "changes": (0x5A5A, 2), "sep": (0xFA, 0x01), "spe": (0x3F, 0x01),
    "oci": (0x0F, 0x02), "elapsed": (59_999, 1), "sco": (elements.command(1, pulse=2, select=True), 0),
    "dco": (elements.command(2, pulse=1, select=True), 1), "rco": (elements.command(1, pulse=3), 0x82),
    "qos": (0x81, 0x7F), "coi": (0x82, 1), "qoi": (20, 36), "qcc": (0x45, 0x81), "fbp": (0x55AA, 1),
    "tsc": (0x1234, 1), "qrp": (1, 2), "qpm": (0xC4, 1), "qpa": (3, 1),
}  # fmt: skip
# What Wireshark 4.0 shows of a field; the names of the others have no field there.
HEAD_ONLY = {  # types whose objects it does not take apart
    *range(17, 21), *range(38, 41), TypeId.C_RD_NA_1, TypeId.C_TS_NA_1, TypeId.C_CD_NA_1, TypeId.C_TS_TA_1,
    TypeId.P_AC_NA_1, *range(120, 128),
}  # fmt: skip
SHOWN = {
    "siq": ("siq", 16), "diq": ("diq", 16), "vti": ("vti", 16), "qds": ("qds", 16), "sva": ("scalval", 10),
    "counter": ("bcr.count", 10), "sco": ("sco", 16), "dco": ("dco", 16), "rco": ("rco", 16),
    "qos": ("qos", 16), "coi": ("coi", 16), "qoi": ("qoi", 10), "qcc": ("qcc", 16), "qrp": ("qrp", 10),
    "qpm": ("qpm", 16),
}  # fmt: skip


def asdu_of(type_id: int) -> Asdu:
    """Two objects of this type; one where it is a command or a system function."""
    layout = LAYOUTS[type_id]
    objects = 1 if type_id >= TypeId.C_SC_NA_1 else 2
    columns = []
    for name, code in zip(layout.fields, codes(layout.format), strict=True):
        if name == "time":
            tags = (encode_cp56(CP56),) * 2 if code == "7s" else (encode_cp24(CP24),) * 2
        elif code.endswith("s"):
            tags = (bytes(range(1, int(code[:-1]) + 1)),) * 2
        else:
            tags = VALUES.get(name, (1, 2))
        columns.append(tags[:objects])
    return Asdu(
        type_id, Cause.SPONTANEOUS, 0xABCD, (0xFEDCBA, 7)[:objects], tuple(columns),
        negative=True, test=True, originator=99,
    )  # fmt: skip


def dissect(folder: Path, frames: list[bytes]) -> list[dict[str, Any]]:
    """The layers that Wireshark sees in each frame, sent by port 2404."""
    dump = "".join(f"I\n000000 {frame.hex(' ')}\n" for frame in frames)
    capture = folder / "frames.pcap"
    subprocess.run(
        [require("text2pcap"), "-q", "-D", "-T", "2404,40000", "-", str(capture)],
        input=dump.encode(),
        check=True,
        capture_output=True,
        timeout=30,
    )
    output = subprocess.run(
        [require("tshark"), "-r", str(capture), "-T", "json", "-J",
         "iec60870_104 iec60870_asdu _ws.malformed _ws.expert"],
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout  # fmt: skip
    layers = [packet["_source"]["layers"] for packet in json.loads(output)]
    assert len(layers) == len(frames)
    return layers


def clean(layers: dict[str, Any]) -> dict[str, Any]:
    """The ASDU's layer, where nothing is malformed."""
    assert "malformed" not in json.dumps(layers), layers
    return layers["iec60870_asdu"]


def check_field(shown: dict[str, Any], name: str, value: Any) -> None:
    prefix = "iec60870_asdu."
    if name == "time":
        if len(value) == 3:
            tree = shown[f"{prefix}cp24time_tree"]
            found = [int(tree[f"{prefix}cp24time.{part}"]) for part in ("ms", "min", "iv")]
            assert found == [CP24.millisecond, CP24.minute, 1]
            return
        tree = shown[f"{prefix}cp56time_tree"]
        parts = ("ms", "min", "gen", "iv", "hour", "su", "day", "dow", "month", "year")
        assert [int(tree[f"{prefix}cp56time.{part}"]) for part in parts] == [
            CP56.millisecond, CP56.minute, 1, 1, CP56.hour, 1, CP56.day, CP56.day_of_week,
            CP56.month, CP56.year,
        ]  # fmt: skip
    elif name == "bsi":  # shown in the order of the octets; bit 1 of the string is the lowest of the first
        assert int(shown[f"{prefix}bitstring"], 16) == int.from_bytes(value.to_bytes(4, "little"), "big")
    elif name == "value":
        assert float(shown[f"{prefix}float"]) == value
    elif name == "nva":
        assert float(shown[f"{prefix}normval"]) == pytest.approx(value / 32768, abs=1e-6)
    elif name == "bcr":
        found = [int(shown[f"{prefix}bcr.{part}"]) for part in ("sq", "cy", "ca", "iv")]
        assert found == [value & 0x1F, value >> 5 & 1, value >> 6 & 1, value >> 7]
    elif name in SHOWN:
        field, base = SHOWN[name]
        assert int(shown[prefix + field], base) == value, name


@pytest.mark.interop
def test_wireshark_reads_every_type_with_the_same_values(tmp_path: Path) -> None:
    sent = [asdu_of(type_id) for type_id in LAYOUTS]
    frames = [apci.i_frame(n, 32_767 - n, CODEC.encode(asdu)) for n, asdu in enumerate(sent)]
    for number, (asdu, layers) in enumerate(zip(sent, dissect(tmp_path, frames), strict=True)):
        shown = clean(layers)
        control = layers["iec60870_104"]
        assert [int(control[f"iec60870_104.{name}"]) for name in ("tx", "rx")] == [number, 32_767 - number]
        heads = ("typeid", "numix", "causetx", "nega", "test", "oa", "addr", "sq")
        assert [int(shown[f"iec60870_asdu.{name}"]) for name in heads] == [
            asdu.type_id, len(asdu.addresses), 3, 1, 1, 99, 0xABCD, 0,
        ]  # fmt: skip
        if asdu.type_id in HEAD_ONLY:
            assert not any(key.startswith("IOA") for key in shown)  # then it can be judged here, too
            continue
        for n, address in enumerate(asdu.addresses):
            found = shown[f"IOA: {address}"]
            assert int(found["iec60870_asdu.ioa"]) == address
            for name, column in zip(LAYOUTS[asdu.type_id].fields, asdu.columns, strict=True):
                check_field(found, name, column[n])


@pytest.mark.interop
def test_wireshark_reads_a_sequence(tmp_path: Path) -> None:
    asdu = Asdu(TypeId.M_ME_NB_1, 20, 1, range(1000, 1100 - 25), (tuple(range(75)), (0,) * 75), sequence=True)
    (layers,) = dissect(tmp_path, [apci.i_frame(0, 0, CODEC.encode(asdu))])
    shown = clean(layers)
    assert (shown["iec60870_asdu.sq"], shown["iec60870_asdu.numix"]) == ("1", "75")
    values = [int(shown[f"IOA: {address}"]["iec60870_asdu.scalval"]) for address in asdu.addresses]
    assert values == list(range(75))


@pytest.mark.interop
def test_wireshark_reads_control_frames_and_a_segment_of_a_file(tmp_path: Path) -> None:
    segment = Asdu(TypeId.F_SG_NA_1, 13, 1, (7,), ((1,), (2,), (b"abc",)))
    frames = [*map(apci.u_frame, Function), apci.s_frame(12_345), apci.i_frame(0, 0, CODEC.encode(segment))]
    *controls, supervision, data = dissect(tmp_path, frames)
    functions = [int(layers["iec60870_104"]["iec60870_104.utype"], 16) for layers in controls]
    assert functions == [function >> 2 for function in Function]
    assert supervision["iec60870_104"]["iec60870_104.rx"] == "12345"
    assert clean(data)["iec60870_asdu.typeid"] == "125"

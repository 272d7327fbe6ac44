"""Frames in words, for people who look at a wire: the frame log, probes, errors.

Any octets at all have words; what is no frame, or no ASDU of its type, is shown as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from drivers.iec104.wire import apci, elements
from drivers.iec104.wire.asdu import Asdu, Codec
from drivers.iec104.wire.elements import CounterFlag, DoublePoint, Freeze, Pulse, Quality, Step
from drivers.iec104.wire.terms import CAUSE_NAMES, TYPE_NAMES, Function, TypeId
from drivers.iec104.wire.timetag import Cp56Time2a, decode_cp24, decode_cp56
from gateway.core.errors import RemoteProtocolError

OBJECTS_SHOWN_MAX: Final = 16  # of one ASDU; more are counted
OCTETS_SHOWN_MAX: Final = 64
_SEGMENT_FIELDS: Final = ("nof", "nos", "segment")


def frame_words(way: str, frame: bytes, codec: Codec, note: str) -> tuple[str, str]:
    """For the frame log: the frame's digits, and its words. `way`: as `gateway.core.frames.Way`."""
    if not frame:
        return "", note
    words = describe_frame(frame, codec) if way != "fault" else "frame"
    return frame.hex(), f"{words} ({note})" if note else words


def describe_frame(frame: bytes, codec: Codec) -> str:
    """One APDU: `I 12, acknowledges 8: M_ME_NC_1 spontaneous, station 3: 1301 784 good`."""
    pieces: list[bytes] = []
    try:
        apci.Framer().feed(frame, pieces)
        if len(pieces) != 1 or len(pieces[0]) != len(frame):
            return f"malformed: not one whole frame: {_octets(frame)}"
        found = apci.decode(frame)
    except RemoteProtocolError as error:
        return f"malformed: {error}"
    if found.function is not None:
        return function_words(found.function)
    if found.send < 0:
        return f"S, acknowledges {found.receive}"
    head = f"I {found.send}, acknowledges {found.receive}"
    try:
        return f"{head}: {describe_asdu(codec.decode(found.asdu))}"
    except RemoteProtocolError as error:
        return f"{head}, but malformed: {error}: {_octets(found.asdu)}"


def function_words(function: Function) -> str:
    """`STARTDT act`."""
    return f"{function.name[:-4]} {function.name[-3:].lower()}"


def describe_asdu(asdu: Asdu) -> str:
    """Type, cause, flags, station, objects."""
    head = f"{TYPE_NAMES.get(asdu.type_id, f'type {asdu.type_id}')} {cause_words(asdu.cause)}"
    head += ", negative" if asdu.negative else ""
    head += ", test" if asdu.test else ""
    head += f", originator {asdu.originator}" if asdu.originator else ""
    head += f", station {asdu.common_address}"
    if asdu.raw is not None:
        return f"{head}: {asdu.count} objects not decoded: {_octets(asdu.raw)}"
    fields = _SEGMENT_FIELDS if asdu.type_id == TypeId.F_SG_NA_1 else elements.LAYOUTS[asdu.type_id].fields
    shown = []
    for number, address in enumerate(asdu.addresses[:OBJECTS_SHOWN_MAX]):
        words = [_WORDS[name](column[number]) for name, column in zip(fields, asdu.columns, strict=True)]
        shown.append(" ".join([str(address), *filter(None, words)]))
    more = len(asdu.addresses) - OBJECTS_SHOWN_MAX
    tail = f"; {more} more" if more > 0 else ""
    return f"{head}: {'; '.join(shown)}{tail}" if shown else f"{head}: no object"


def cause_words(cause: int) -> str:
    """`spontaneous`, or `cause 55`."""
    return CAUSE_NAMES.get(cause, f"cause {cause}")


def quality_words(octet: int) -> str:
    """`good`, or the flags that are set: `IV NT`. OV and EI as far as the descriptor has them."""
    flags = [flag.name or "" for flag in reversed(Quality) if octet & flag]
    return " ".join(flags) or "good"


def time_words(octets: bytes) -> str:
    """CP56Time2a or CP24Time2a: `2008-09-13 16:34:49.834 IV SU`, as it stands on the wire."""
    if len(octets) == 3:
        short = decode_cp24(octets)
        seconds, ms = divmod(short.millisecond, 1000)
        return f"xx:{short.minute:02}:{seconds:02}.{ms:03}{_time_flags(short.invalid, short.substituted)}"
    tag: Cp56Time2a = decode_cp56(octets)
    seconds, ms = divmod(tag.millisecond, 1000)
    year = f"20{tag.year:02}" if tag.year <= 99 else f"year {tag.year}"  # a struct tm is sent by some devices
    return (
        f"{year}-{tag.month:02}-{tag.day:02} {tag.hour:02}:{tag.minute:02}:{seconds:02}.{ms:03}"
        + _time_flags(tag.invalid, tag.substituted)
        + (" SU" if tag.summer else "")
        + ("" if tag.civil_ms() is not None else " no date")
    )


# --- parts -------------------------------------------------------------------------------------------------


def _time_flags(invalid: bool, substituted: bool) -> str:  # noqa: FBT001 - two bits of an octet
    return (" IV" if invalid else "") + (" substituted" if substituted else "")


def _octets(data: bytes) -> str:
    shown = data[:OCTETS_SHOWN_MAX].hex(" ")
    return shown + (f" … {len(data)} octets" if len(data) > OCTETS_SHOWN_MAX else "")


def _named(kind: Any, value: int) -> str:
    try:
        return str(kind(value).name).lower().replace("_", " ")
    except ValueError:
        return str(value)


def _single(octet: int) -> str:
    return f"{'on' if octet & elements.SPI else 'off'} {quality_words(octet & 0xF0)}"


def _double(octet: int) -> str:
    return f"{_named(DoublePoint, octet & elements.STATE_MASK)} {quality_words(octet & 0xF0)}"


def _protection(octet: int) -> str:
    return f"{_named(DoublePoint, octet & elements.STATE_MASK)} {quality_words(octet & 0xF8)}"


def _step(octet: int) -> str:
    position, transient = elements.step_position(octet)
    return f"{position}{' in transit' if transient else ''}"


def _counter(octet: int) -> str:
    flags = [flag.name or "" for flag in reversed(CounterFlag) if octet & flag]
    return " ".join([f"reading {octet & elements.COUNTER_SEQUENCE_MASK}", *(flags or ["good"])])


def _command(states: Callable[[int], str]) -> Callable[[int], str]:
    def words(octet: int) -> str:
        pulse = octet >> elements.QOC_SHIFT & elements.QOC_MASK
        selects = "select" if octet & elements.SELECT else "execute"
        length = f", {_named(Pulse, pulse)} pulse" if pulse in (Pulse.SHORT, Pulse.LONG) else ""
        if not length and pulse:
            length = f", {_named(Pulse, pulse)}" if pulse == Pulse.PERSISTENT else f", qualifier {pulse}"
        return f"{selects} {states(octet & elements.STATE_MASK)}{length}"

    return words


def _set_point(octet: int) -> str:
    level = octet & elements.QL_MASK
    return ("select" if octet & elements.SELECT else "execute") + (f", qualifier {level}" if level else "")


def _interrogation(octet: int) -> str:
    if octet == elements.QOI_STATION:
        return "station"
    group = octet - elements.QOI_STATION
    return f"group {group}" if 1 <= group <= 16 else f"qualifier {octet}"


def _counters(octet: int) -> str:
    request = octet & elements.RQT_MASK
    which = "general" if request == elements.QCC_GENERAL else f"group {request}"
    return f"{which} {_named(Freeze, octet >> elements.FREEZE_SHIFT)}"


def _hexadecimal(digits: int) -> Callable[[int], str]:
    return lambda value: f"0x{value:0{digits}x}"


def _label(name: str) -> Callable[[int], str]:
    return lambda value: f"{name} {value}"


def _length(octets: bytes) -> str:
    return f"{int.from_bytes(octets, 'little')} octets"


_WORDS: Final[Mapping[str, Callable[[Any], str]]] = MappingProxyType(
    {
        "siq": _single,
        "diq": _double,
        "vti": _step,
        "qds": quality_words,
        "qdp": lambda octet: quality_words(octet & 0xF8),
        "bsi": _hexadecimal(8),
        "nva": lambda value: f"{elements.normalized(value):g}",
        "sva": str,
        "value": lambda value: f"{value:.7g}",
        "counter": str,
        "bcr": _counter,
        "status": _hexadecimal(4),
        "changes": lambda value: f"changed 0x{value:04x}",
        "sep": _protection,
        "spe": lambda octet: f"start events 0x{octet:02x}",
        "oci": lambda octet: f"output circuits 0x{octet:02x}",
        "elapsed": lambda value: f"{value} ms",
        "time": time_words,
        "start": lambda octets: f"from {time_words(octets)}",
        "stop": lambda octets: f"to {time_words(octets)}",
        "sco": _command(lambda state: "on" if state & 1 else "off"),
        "dco": _command(lambda state: _named(DoublePoint, state)),
        "rco": _command(lambda state: _named(Step, state)),
        "qos": _set_point,
        "coi": lambda octet: f"cause {octet & 0x7F}{' after a change of parameters' if octet & 0x80 else ''}",
        "qoi": _interrogation,
        "qcc": _counters,
        "fbp": _hexadecimal(4),
        "tsc": _label("counter"),
        "qrp": _label("qualifier"),
        "qpm": lambda octet: f"kind {octet & 0x3F}, LPC {octet >> 6 & 1}, POP {octet >> 7}",
        "qpa": _label("qualifier"),
        "nof": _label("file"),
        "nos": _label("section"),
        "lof": _length,
        "frq": _label("FRQ"),
        "srq": _label("SRQ"),
        "scq": _label("SCQ"),
        "lsq": _label("LSQ"),
        "chs": _label("checksum"),
        "afq": _label("AFQ"),
        "sof": lambda octet: f"SOF 0x{octet:02x}",
        "segment": lambda data: f"{len(data)} octets {_octets(data)}".rstrip(),
    }
)

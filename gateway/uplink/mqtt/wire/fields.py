"""Data representation (MQTT 5.0 §1.5): integers, strings and binary data, read and written."""

from __future__ import annotations

from typing import Final

from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.uplink.mqtt.wire.reasons import ReasonCode
from gateway.uplink.mqtt.wire.terms import STRING_BYTES_MAX, VARINT_MAX

VARINT_BYTES_MAX: Final = 4  # MQTT 5.0 §1.5.5


class Violation(RemoteProtocolError):
    """The server broke MQTT. `reason` is what a DISCONNECT tells it (MQTT 5.0 §4.13)."""

    def __init__(self, where: str, *, found: str, expected: str, reason: ReasonCode) -> None:
        super().__init__(f"{where}: found {found}, expected {expected}")
        self.reason = reason


def malformed(where: str, *, found: str, expected: str) -> Violation:
    """A packet that cannot be parsed (MQTT 5.0 §1.2, Malformed Packet)."""
    return Violation(where, found=found, expected=expected, reason=ReasonCode.MALFORMED_PACKET)


def protocol_error(where: str, *, found: str, expected: str) -> Violation:
    """A packet that parses, with something the state or the standard forbids (MQTT 5.0 §1.2)."""
    return Violation(where, found=found, expected=expected, reason=ReasonCode.PROTOCOL_ERROR)


def varint(value: int) -> bytes:
    """A Variable Byte Integer in its shortest form (MQTT 5.0 §1.5.5), 0 to 268,435,455."""
    if value < 0x80:
        if value < 0:
            raise LocalProtocolError(f"variable byte integer: found {value}, expected 0 to {VARINT_MAX}")
        return bytes((value,))
    if value > VARINT_MAX:
        raise LocalProtocolError(f"variable byte integer: found {value}, expected 0 to {VARINT_MAX}")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def uint(value: int, size_bytes: int, *, what: str) -> bytes:
    """A big-endian integer of 1, 2 or 4 bytes (MQTT 5.0 §1.5.2, §1.5.3)."""
    try:
        return value.to_bytes(size_bytes, "big")
    except OverflowError:
        expected = (1 << 8 * size_bytes) - 1
        raise LocalProtocolError(f"{what}: found {value}, expected 0 to {expected}") from None


def binary(value: bytes, *, what: str) -> bytes:
    """Binary Data (MQTT 5.0 §1.5.6), at most 65,535 bytes."""
    if len(value) > STRING_BYTES_MAX:
        raise LocalProtocolError(f"{what}: found {len(value)} bytes, expected at most {STRING_BYTES_MAX}")
    return len(value).to_bytes(2, "big") + value


def text(value: str, *, what: str) -> bytes:
    """A UTF-8 Encoded String without U+0000 (MQTT 5.0 §1.5.4), at most 65,535 bytes."""
    if "\0" in value:
        raise LocalProtocolError(f"{what}: found U+0000 in {value!r}, expected a string without it")
    try:
        return binary(value.encode("utf-8"), what=what)
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{what}: found {value!r}, expected UTF-8 ({error.reason})") from None


class Reader:
    """Reads the fields of one packet in order. Raises `Violation` where they do not fit."""

    __slots__ = ("_data", "_end", "_pos", "where")

    def __init__(self, data: bytes, *, where: str) -> None:
        self._data: Final = data
        self._pos = 0
        self._end: Final = len(data)
        self.where: Final = where

    def remaining(self) -> int:
        """Bytes not read yet."""
        return self._end - self._pos

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        start = self._pos
        if count > self._end - start:
            raise malformed(
                f"{self.where}, {what} at byte {start}",
                found=f"{self._end - start} bytes left",
                expected=f"{count}",
            )
        self._pos = start + count
        return self._data[start : self._pos]

    def uint(self, size_bytes: int, what: str) -> int:
        """A big-endian integer."""
        return int.from_bytes(self.take(size_bytes, what), "big")

    def varint(self, what: str) -> int:
        """A Variable Byte Integer of at most four bytes (MQTT 5.0 §1.5.5)."""
        value = 0
        for shift in range(0, 7 * VARINT_BYTES_MAX, 7):
            byte = self.uint(1, what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise malformed(
            f"{self.where}, {what} (MQTT 5.0 section 1.5.5)",
            found="a fifth byte announced",
            expected="a variable byte integer of at most 4 bytes",
        )

    def binary(self, what: str) -> bytes:
        """Binary Data (MQTT 5.0 §1.5.6)."""
        return self.take(self.uint(2, what), what)

    def text(self, what: str) -> str:
        """A UTF-8 Encoded String (MQTT 5.0 §1.5.4): neither ill-formed, nor with surrogates, nor U+0000."""
        raw = self.binary(what)
        try:
            value = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise malformed(
                f"{self.where}, {what} (MQTT 5.0 section 1.5.4)",
                found=f"{raw[:40]!r} ({error.reason})",
                expected="well-formed UTF-8",
            ) from None
        if "\0" in value:
            raise malformed(
                f"{self.where}, {what} (MQTT 5.0 section 1.5.4)",
                found="U+0000",
                expected="a string without it",
            )
        return value

    def packet_id(self) -> int:
        """A Packet Identifier, never zero (MQTT 5.0 §2.2.1)."""
        value = self.uint(2, "packet identifier")
        if not value:
            raise protocol_error(
                f"{self.where} (MQTT 5.0 section 2.2.1)", found="packet identifier 0", expected="1 to 65535"
            )
        return value

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self.remaining(), "payload")

    def done(self) -> None:
        """Nothing may be left."""
        if self._pos != self._end:
            raise malformed(
                self.where, found=f"{self._end - self._pos} bytes more", expected=f"{self._pos} bytes in all"
            )

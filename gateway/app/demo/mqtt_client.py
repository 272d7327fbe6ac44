"""The demo's own witness at the broker: a small blocking MQTT client, independent of the gateway's uplink.

It shares no code with the uplink on purpose: what it counts was decoded by somebody else. It speaks MQTT
3.1.1 (level 4) and 5.0 (level 5), QoS 0 and 1, and nothing more.
"""

from __future__ import annotations

import enum
import select
import socket
import time
from collections import deque

import msgspec

from gateway.core.errors import LinkError, LocalProtocolError, RemoteProtocolError

PACKET_BYTES_MAX = 1 << 20  # a demo payload is a few kilobytes; more is not ours
KEEP_ALIVE_S = 30
_CONNACK, _PUBLISH, _PUBACK, _SUBACK, _PINGRESP, _DISCONNECT = 2, 3, 4, 9, 13, 14


class Level(enum.IntEnum):
    """Protocol level in CONNECT (MQTT 3.1.1 §3.1.2.2, MQTT 5.0 §3.1.2.2)."""

    V311 = 4
    V5 = 5


class Message(msgspec.Struct, frozen=True):
    """One PUBLISH that arrived."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    duplicate: bool


class MqttClient:
    """One connection to a broker at `host:port`, opened by `connect`.

    Every call raises `LinkError` when the connection is gone or the broker is silent for too long, and
    `RemoteProtocolError` when it answers something that cannot stand there.
    """

    def __init__(self, *, host: str, port: int, client_id: str, level: Level = Level.V5) -> None:
        self._where = f"mqtt://{host}:{port}"
        self._address = (host, port)
        self._client_id = client_id
        self._level = level
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._packet_id = 0
        self._acknowledged: set[int] = set()
        self._messages: deque[Message] = deque()
        self._last_sent_ns = 0

    def connect(self, *, timeout_s: float = 2.0) -> None:
        """Open the connection and wait for CONNACK with reason 0 (MQTT 5.0 §3.2)."""
        try:
            self._socket = socket.create_connection(self._address, timeout=timeout_s)
        except OSError as error:
            raise LinkError(f"{self._where}: {error.strerror or error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = _text("MQTT") + bytes((self._level, 0x02)) + KEEP_ALIVE_S.to_bytes(2, "big")
        body += self._properties() + _text(self._client_id)
        self._send(0x10, body)
        kind, _, answer = self._wait(_CONNACK, timeout_s=timeout_s)
        if kind != _CONNACK or len(answer) < 2:
            raise RemoteProtocolError(f"{self._where}: expected CONNACK, found packet type {kind}")
        if answer[1] != 0:
            raise LinkError(f"{self._where}: the broker refused the connection, reason 0x{answer[1]:02x}")

    def subscribe(self, topic_filter: str, *, timeout_s: float = 2.0) -> None:
        """Subscribe at QoS 1 and wait for SUBACK."""
        body = self._next_packet_id() + self._properties() + _text(topic_filter) + b"\x01"
        self._send(0x82, body)
        _, _, answer = self._wait(_SUBACK, timeout_s=timeout_s)
        if not answer or answer[-1] > 2:
            raise LinkError(f"{self._where}: subscription to {topic_filter} refused, SUBACK {answer.hex()}")

    def publish(
        self, topic: str, payload: bytes, *, expiry_s: int | None = None, timeout_s: float = 2.0
    ) -> None:
        """Publish once at QoS 1, not retained, and wait for PUBACK.

        `expiry_s` is the message expiry interval (MQTT 5.0 §3.3.2.3.3), which only level 5 can carry.
        """
        properties = self._properties()
        if expiry_s is not None:
            if self._level is not Level.V5:
                raise LocalProtocolError("a message expiry needs MQTT 5")
            properties = b"\x05\x02" + expiry_s.to_bytes(4, "big")
        packet_id = self._next_packet_id()
        self._send(0x32, _text(topic) + packet_id + properties + payload)
        wanted = int.from_bytes(packet_id, "big")
        deadline = time.monotonic() + timeout_s
        while wanted not in self._acknowledged:
            if time.monotonic() >= deadline:
                raise LinkError(f"{self._where}: no PUBACK for {topic} within {timeout_s:g} s")
            self._pump(max(0.0, deadline - time.monotonic()))
        self._acknowledged.discard(wanted)

    def messages(self, *, wait_s: float) -> list[Message]:
        """What arrived, waiting at most `wait_s` for the first of it; QoS 1 is acknowledged."""
        self._keep_alive()
        if not self._messages:
            self._pump(wait_s)
        found = list(self._messages)
        self._messages.clear()
        return found

    def close(self) -> None:
        """Say DISCONNECT and close. Never raises."""
        if self._socket is None:
            return
        try:
            self._socket.sendall(b"\xe0\x00")
        except OSError:
            pass  # it is being closed either way
        self._socket.close()
        self._socket = None

    def _properties(self) -> bytes:
        return b"\x00" if self._level is Level.V5 else b""

    def _next_packet_id(self) -> bytes:
        self._packet_id = self._packet_id % 0xFFFF + 1
        return self._packet_id.to_bytes(2, "big")

    def _send(self, first_byte: int, body: bytes) -> None:
        if self._socket is None:
            raise LinkError(f"{self._where}: not connected")
        try:
            self._socket.sendall(bytes((first_byte,)) + _variable_length(len(body)) + body)
        except OSError as error:
            raise LinkError(f"{self._where}: {error.strerror or error}") from error
        self._last_sent_ns = time.monotonic_ns()

    def _keep_alive(self) -> None:
        if time.monotonic_ns() - self._last_sent_ns > KEEP_ALIVE_S * 500_000_000:
            self._send(0xC0, b"")

    def _wait(self, wanted: int, *, timeout_s: float) -> tuple[int, int, bytes]:
        """The next packet of type `wanted`; PUBLISH before it is kept, anything else is returned as found."""
        deadline = time.monotonic() + timeout_s
        while True:
            packet = self._next_packet()
            if packet is None:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise LinkError(f"{self._where}: no answer within {timeout_s:g} s")
                self._read(left_s)
            elif packet[0] == wanted or not self._handle(*packet):
                return packet

    def _pump(self, wait_s: float) -> None:
        self._read(wait_s)
        while (packet := self._next_packet()) is not None:
            self._handle(*packet)

    def _read(self, wait_s: float) -> None:
        if self._socket is None:
            raise LinkError(f"{self._where}: not connected")
        if not select.select([self._socket], [], [], wait_s)[0]:
            return
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            raise LinkError(f"{self._where}: {error.strerror or error}") from error
        if not data:
            raise LinkError(f"{self._where}: the broker closed the connection")
        self._buffer += data

    def _next_packet(self) -> tuple[int, int, bytes] | None:
        """(type, flags, body) of the first complete packet in the buffer."""
        buffer = self._buffer
        length, shift, at = 0, 0, 1
        while True:
            if at >= len(buffer):
                return None
            length |= (buffer[at] & 0x7F) << shift
            at += 1
            if not buffer[at - 1] & 0x80:
                break
            shift += 7
            if at > 4:
                raise RemoteProtocolError(f"{self._where}: remaining length longer than 4 bytes")
        if length > PACKET_BYTES_MAX:
            raise RemoteProtocolError(
                f"{self._where}: packet of {length} bytes, expected at most {PACKET_BYTES_MAX}"
            )
        if len(buffer) < at + length:
            return None
        packet = (buffer[0] >> 4, buffer[0] & 0x0F, bytes(buffer[at : at + length]))
        del buffer[: at + length]
        return packet

    def _handle(self, kind: int, flags: int, body: bytes) -> bool:
        """Take what may come at any time; False for a packet that somebody must be waiting for."""
        if kind == _PUBLISH:
            self._messages.append(self._message(flags, body))
        elif kind == _PUBACK and len(body) >= 2:
            if len(body) > 2 and body[2] >= 0x80:
                raise LinkError(f"{self._where}: publish refused, reason 0x{body[2]:02x}")
            self._acknowledged.add(int.from_bytes(body[:2], "big"))
        elif kind == _DISCONNECT:
            reason = body[0] if body else 0
            raise LinkError(f"{self._where}: the broker disconnected us, reason 0x{reason:02x}")
        elif kind != _PINGRESP:
            return False
        return True

    def _message(self, flags: int, body: bytes) -> Message:
        try:
            end = 2 + int.from_bytes(body[:2], "big")
            topic = body[2:end].decode()
            _require(len(body) >= end)
            qos = flags >> 1 & 3
            if qos:
                packet_id = body[end : end + 2]
                end += 2
                _require(len(body) >= end)
                self._send(0x40, packet_id)
            if self._level is Level.V5:
                length, at = _read_length(body, end)
                end = at + length
                _require(len(body) >= end)
        except (IndexError, UnicodeDecodeError) as error:
            raise RemoteProtocolError(f"{self._where}: malformed PUBLISH {body[:64].hex()}") from error
        return Message(topic, body[end:], qos, bool(flags & 1), bool(flags & 8))


def _require(is_whole: bool) -> None:  # noqa: FBT001 - reads as one word
    if not is_whole:
        raise IndexError


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _variable_length(value: int) -> bytes:
    """Variable byte integer, MQTT 5.0 §1.5.5."""
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        out.append(byte | 0x80 if value else byte)
        if not value:
            return bytes(out)


def _read_length(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        _require(shift <= 21)

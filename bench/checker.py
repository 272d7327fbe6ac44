"""A subscriber that checks every value it is sent, in a process of its own.

    python -m bench.checker PORT TOPIC_FILTER MODE REGISTERS ARRIVALS_FILE|-

MQTT 3.1.1, QoS 1, a clean session. Two payloads are known: an object with `v` (values by tag), `e`, `n` on
`…/devNNN`, and one with `v` (a value) on `…/devNNN/rNNN`. Every 100 ms it prints its counters as one line of
JSON. Nothing is sampled: each value is compared with what the plant showed at the read that it must come
from, and each read of a unit is waited for until it was seen once.

ARRIVALS_FILE gets, as in plant.c, u16 unit, u16 0, u32 read, u64 CLOCK_MONOTONIC ns for each new read seen.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from bench.formula import MODULUS, PLACE, RESIDUES, SERIES, Mode, read_of, version_at

SNAPSHOT_NS = 100_000_000
MISSING_MAX = 2_000_000  # reads not seen yet that are remembered; more are only counted
TOLD_MAX = 5  # wrong messages shown in full


class Payload(msgspec.Struct):
    """What the checker reads of a message; other fields are ignored."""

    v: Any
    e: int = 0
    n: int = 0


class Seen:
    """Which versions of one stream (a unit, a residue of it, or a tag) arrived: none, once, or again."""

    __slots__ = ("last", "missing")

    def __init__(self) -> None:
        self.last = -1
        self.missing: set[int] = set()


class Counters(msgspec.Struct):
    """What a snapshot says. `missing` are reads before the newest one that did not arrive (yet)."""

    t_ns: int = 0
    messages: int = 0
    points: int = 0
    bad: int = 0  # values sent as null
    wrong: int = 0  # messages with a value that the plant did not show at that read
    duplicates: int = 0  # versions that arrived again
    late: int = 0  # versions that arrived after a newer one
    missing: int = 0
    bytes: int = 0


class Checker:
    """Verifies payloads and keeps count."""

    def __init__(self, mode: Mode, registers: int, arrivals: BinaryIO | None) -> None:
        self.mode, self.registers = mode, registers
        self.counters = Counters()
        self._tags = [f"r{number:03d}" for number in range(registers)]
        self._tenths = [self._tags[residue::RESIDUES] for residue in range(RESIDUES)]
        self._seen: dict[Any, Seen] = {}
        self._arrivals = arrivals
        self._decode = msgspec.json.Decoder(Payload).decode
        # A whole block is decoded into a struct: a tag unknown or missing, or no integer, is an error.
        fields = [(f"f{number}", int) for number in range(registers)]
        rename = {f"f{number}": tag for number, tag in enumerate(self._tags)}
        self._block = msgspec.defstruct("Block", fields, rename=rename, forbid_unknown_fields=True, gc=False)
        self._decode_whole: Callable[[bytes], Any] = msgspec.json.Decoder(
            msgspec.defstruct("Whole", [("v", self._block)])
        ).decode
        self._units: dict[bytes, tuple[int, int]] = {}
        self._told = 0

    def message(self, topic: bytes, payload: bytes, t_ns: int) -> None:
        """One PUBLISH."""
        counters = self.counters
        counters.messages += 1
        unit, tag = self._units.get(topic) or self._where(topic)
        if tag < 0 and self.mode is Mode.ALL and self._whole(unit, payload, t_ns):
            return
        values = self._decode(payload).v
        if tag >= 0:
            if values is None:
                counters.bad += 1
                return
            counters.points += 1
            is_right = self._one(unit, tag, values, t_ns)
        elif type(values) is dict:
            is_right = self._device(unit, values, t_ns)
        else:
            is_right = False
        if not is_right:
            counters.wrong += 1
            if self._told < TOLD_MAX:
                self._told += 1
                print(f"checker: wrong: {topic!r} {payload[:300]!r}", file=sys.stderr, flush=True)

    def _whole(self, unit: int, payload: bytes, t_ns: int) -> bool:
        """The common case, fast: all values of one read. False: look closer."""
        try:
            block = self._decode_whole(payload).v
        except msgspec.ValidationError:
            return False
        place = PLACE.get(block.f0, -1)
        if not 0 <= place < MODULUS or block != self._block(*SERIES[place : place + self.registers]):
            return False
        if not self._version((unit, 0), version_at(place, unit=unit), unit, 0, t_ns):
            return False
        self.counters.points += self.registers
        return True

    def flush(self) -> None:
        """Let others read the arrivals so far."""
        if self._arrivals is not None:
            self._arrivals.flush()

    def _where(self, topic: bytes) -> tuple[int, int]:
        parts = topic.decode().split("/")
        tag = int(parts.pop()[1:]) if parts[-1][0] == "r" else -1
        self._units[topic] = found = int(parts[-1].removeprefix("dev")), tag
        return found

    def _device(self, unit: int, by_tag: dict[str, Any], t_ns: int) -> bool:
        values = list(by_tag.values())
        self.counters.points += len(values)
        if None in values:
            bad = values.count(None)
            self.counters.bad += bad
            self.counters.points -= bad
            return bad == len(values)
        tags = list(by_tag)
        if self.mode is Mode.ALL:
            return tags == self._tags and self._slice(unit, 0, values, t_ns)
        if len(tags) == len(self._tenths[int(tags[0][1:]) % RESIDUES]):
            residue = int(tags[0][1:]) % RESIDUES
            return tags == self._tenths[residue] and self._slice(unit, residue, values, t_ns)
        # More than one residue: the first read, or reads that report-by-exception joined.
        for residue, own in enumerate(self._tenths):
            part = [by_tag[tag] for tag in own if tag in by_tag]
            if part and (len(part) != len(own) or not self._slice(unit, residue, part, t_ns)):
                return False
        return True

    def _slice(self, unit: int, residue: int, values: list[int], t_ns: int) -> bool:
        place = PLACE.get(values[0], -1)
        if not 0 <= place < MODULUS or list(SERIES[place : place + len(values)]) != values:
            return False
        version = version_at(place, unit=unit, residue=residue)
        return self._version((unit, residue), version, unit, residue, t_ns)

    def _one(self, unit: int, tag: int, value: int, t_ns: int) -> bool:
        residue = tag % RESIDUES if self.mode is Mode.TENTH else 0
        offset = tag // RESIDUES if self.mode is Mode.TENTH else tag
        place = PLACE.get(value, -1) - offset
        if not 0 <= place < MODULUS:
            return False
        return self._version((unit, tag), version_at(place, unit=unit, residue=residue), unit, residue, t_ns)

    def _version(self, stream: tuple[int, int], version: int, unit: int, residue: int, t_ns: int) -> bool:
        """Book a version; False where it is further from the last one than any backlog could explain."""
        seen = self._seen.get(stream)
        if seen is None:
            seen = self._seen[stream] = Seen()
            seen.last = version
        else:
            ahead = (version - seen.last) % MODULUS
            if ahead == 0:
                self.counters.duplicates += 1
                return True
            if ahead > MODULUS // 2:  # older than the newest
                older = seen.last + ahead - MODULUS
                if older in seen.missing:
                    seen.missing.discard(older)
                    self.counters.missing -= 1
                    self.counters.late += 1
                    return True
                self.counters.duplicates += 1
                return older >= 0
            if ahead > 1:
                self.counters.missing += ahead - 1
                if len(seen.missing) + ahead < MISSING_MAX:
                    seen.missing.update(range(seen.last + 1, seen.last + ahead))
            seen.last += ahead
        if self._arrivals is not None:
            read = seen.last if self.mode is Mode.ALL else read_of(seen.last, residue)
            if read > 0:  # a tenth that no read has changed yet has none
                self._arrivals.write(struct.pack("<HHIQ", unit, 0, read, t_ns))
        return True


def packets(buffer: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Complete packets as (first byte, body), and the rest (MQTT 3.1.1 §2.2)."""
    found, at, end = [], 0, len(buffer)
    while end - at >= 2:
        length, shift, body = 0, 0, at + 1
        while body < end:
            byte = buffer[body]
            length |= (byte & 0x7F) << shift
            body += 1
            shift += 7
            if byte < 0x80:
                break
        else:
            break
        if end - body < length:
            break
        found.append((buffer[at], buffer[body : body + length]))
        at = body + length
    return found, buffer[at:]


def run(link: socket.socket, topic_filter: str, checker: Checker) -> None:
    """Subscribe, then check until the broker hangs up."""
    name = f"checker-{time.monotonic_ns():x}".encode()
    connect = b"\0\4MQTT\4\2\0\0" + len(name).to_bytes(2) + name
    link.sendall(bytes((0x10, len(connect))) + connect)
    text = topic_filter.encode()
    subscribe = b"\0\1" + len(text).to_bytes(2) + text + b"\1"
    link.sendall(bytes((0x82, len(subscribe))) + subscribe)
    buffer, counters, next_ns = b"", checker.counters, 0
    encode = msgspec.json.Encoder().encode
    while True:
        readable, _, _ = select.select([link], [], [], 0.05)
        now_ns = time.monotonic_ns()
        if readable:
            data = link.recv(1 << 18)
            if not data:
                return
            counters.bytes += len(data)
            found, buffer = packets(buffer + data)
            acknowledgements = []
            for first, body in found:
                if first & 0xF0 == 0x30:
                    topic_end = 2 + int.from_bytes(body[:2])
                    payload_at = topic_end
                    if first & 0x06:
                        payload_at += 2
                        acknowledgements.append(b"\x40\x02" + body[topic_end:payload_at])
                    checker.message(body[2:topic_end], body[payload_at:], now_ns)
                elif first == 0x90 and body[2] == 0x80:
                    raise SystemExit("checker: the broker refused the subscription")
            if acknowledgements:
                link.sendall(b"".join(acknowledgements))
        if now_ns >= next_ns:
            next_ns = now_ns + SNAPSHOT_NS
            counters.t_ns = now_ns
            checker.flush()
            sys.stdout.buffer.write(encode(counters) + b"\n")
            sys.stdout.flush()


def main() -> None:
    """See the module."""
    port, topic_filter, mode, registers, arrivals = sys.argv[1:]
    log = None if arrivals == "-" else open(arrivals, "wb")  # noqa: SIM115  open as long as the process
    checker = Checker(Mode(mode), int(registers), log)
    with socket.create_connection(("127.0.0.1", int(port))) as link:
        run(link, topic_filter, checker)


if __name__ == "__main__":
    main()

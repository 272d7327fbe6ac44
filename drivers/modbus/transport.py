"""What the frames of a link travel on: what opens it, the session that speaks on it, how long it takes."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final, TypeAlias

from drivers.modbus.link import LINES, ModbusLink
from drivers.modbus.planner import Cost
from drivers.modbus.wire.client import ClientSession
from drivers.modbus.wire.line import Mode, Timing
from drivers.modbus.wire.line_client import LineClientSession
from gateway.aio.endpoint import Back, Backoff, Endpoint, Opener
from gateway.aio.rs485 import Rs485
from gateway.aio.serial import SerialOpener
from gateway.aio.tcp import TcpOpener
from gateway.aio.tls import TlsFault, TlsFiles, client_context
from gateway.aio.udp import UdpOpener
from gateway.config.lines import Line, Rs485Mode
from gateway.config.site import LinkSpec
from gateway.core.clock import Clock
from gateway.core.errors import Problem

AnySession: TypeAlias = ClientSession | LineClientSession
_MBAP_OVERHEAD: Final = 7  # bytes of a Modbus TCP frame besides its PDU, as `planner.Cost` counts them
_OPEN_S_MIN: Final = 1.0  # what opening gets at least, however short answers may take


def mode_of(link: ModbusLink) -> Mode:
    """RTU or ASCII, of a link that is a line."""
    return Mode.ASCII if link.transport.startswith("ascii") else Mode.RTU


def make_session(link: ModbusLink) -> AnySession:
    """What speaks on the link."""
    if link.transport not in LINES:
        is_udp = link.transport == "udp"
        return ClientSession(max_in_flight=link.max_in_flight, has_datagrams=is_udp)
    return LineClientSession(mode=mode_of(link), timing=_timing(link), has_echo=link.echo)


def make_endpoint(name: str, link: ModbusLink, *, clock: Clock, tls: ssl.SSLContext | None) -> Endpoint:
    """What opens the link; nothing is opened yet."""
    reconnect = link.reconnect
    return Endpoint(
        name,
        make_opener(link, clock, tls),
        clock=clock,
        open_timeout_s=max(_OPEN_S_MIN, link.timeout_ns / 1e9),
        backoff=Backoff(first_s=reconnect.min_ns / 1e9, limit_s=reconnect.max_ns / 1e9),
        back=Back.HEARD if link.transport == "udp" else Back.OPEN,
    )


def open_tls(spec: LinkSpec, link: ModbusLink) -> tuple[ssl.SSLContext | None, list[Problem]]:
    """The certificates of a link read and tried; None where it has no TLS, or with a fault in its files."""
    if link.transport != "tls":
        return None, []
    named = {key: getattr(link, key) for key in ("ca", "cert", "key_file")}
    files = TlsFiles(**{key: None if name is None else Path(name) for key, name in named.items()})
    try:
        return client_context(files), []
    except TlsFault as fault:
        return None, [Problem((*spec.path, fault.key), fault.found, fault.expected)]


def wire_ns(link: ModbusLink, cost: Cost) -> int:
    """How long the frames of these requests and answers keep a serial line busy; 0 on a network.

    With the silence before each request and before each answer: no slave begins sooner.
    """
    if link.serial is None or link.port is None:
        return 0
    timing, mode = _timing(link), mode_of(link)
    pdu_bytes = cost.request_bytes + cost.answer_bytes - 2 * cost.requests * _MBAP_OVERHEAD
    per_byte = mode.size(1) - mode.size(0)
    characters = pdu_bytes * per_byte + 2 * cost.requests * mode.size(0)
    return characters * link.serial.character_ns + 2 * cost.requests * timing.silence_ns


def frame_bytes(link: ModbusLink, cost: Cost) -> int:
    """Bytes of the requests and answers as this link frames them, without TCP/IP around them."""
    both = cost.request_bytes + cost.answer_bytes
    if link.transport not in LINES:
        return both
    mode = mode_of(link)
    pdu_bytes = both - 2 * cost.requests * _MBAP_OVERHEAD
    return pdu_bytes * (mode.size(1) - mode.size(0)) + 2 * cost.requests * mode.size(0)


def line_timing(mode: Mode, line: Line | None, *, turnaround_ns: int = 0) -> Timing:
    """Of a serial port, or where there is none, of a line over TCP."""
    if line is None:
        return Timing.over_tcp(turnaround_ns=turnaround_ns)
    return Timing.serial(
        mode, baud=line.baud, character_bits=line.character_bits, turnaround_ns=turnaround_ns
    )


def _timing(link: ModbusLink) -> Timing:
    return line_timing(mode_of(link), link.serial, turnaround_ns=link.turnaround_ns)


def make_opener(link: ModbusLink, clock: Clock, tls: ssl.SSLContext | None) -> Opener:
    """What opens the link once; nothing is opened yet."""
    if link.port is not None and link.serial is not None:
        return SerialOpener(link.port, link.serial, clock=clock, rs485=make_rs485(link.rs485))
    assert link.host is not None  # the model has one of them
    if link.transport == "udp":
        return UdpOpener(link.host.host, link.host.port)
    return TcpOpener(link.host.host, link.host.port, tls=tls, server_name=link.server_name)


def make_rs485(mode: Rs485Mode | None) -> Rs485 | None:
    """What the kernel is told; None where it shall not control the direction."""
    if mode is None:
        return None
    return Rs485(
        rts_on_send=mode.rts_on_send == "high",
        delay_before_ms=mode.delay_before_ns // 1_000_000,
        delay_after_ms=mode.delay_after_ns // 1_000_000,
        receive_during_send=mode.receive_during_send,
        terminate=mode.terminate,
    )

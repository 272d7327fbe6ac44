"""A simulator's session in place of a scripted device: for a driver in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from drivers.modbus.link import TransportName
from drivers.modbus.simulator.faults import Faults, parse
from drivers.modbus.simulator.serve import Place, Server
from drivers.modbus.simulator.session import FaultySession
from drivers.modbus.simulator.units import Units, make_units
from gateway.aio.alarm import Alarm
from gateway.config.load import load
from gateway.config.site import DeviceSpec
from gateway.core.errors import RemoteProtocolError
from tests.aio.memory import LoopClock, Network, Wire
from tests.config.kinds import kinds
from tests.drivers.modbus.rig import Plc
from tests.virtual_time import START_NS, now_ns


def devices_of(text: str) -> list[DeviceSpec]:
    """The devices of a configuration; `text` is everything below the first two lines."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "gateway.yaml")
        path.write_text("version: 1\ngateway: {name: g}\n" + text)
        return list(load(path, kinds()).devices.values())


class SimulatedPlc(Plc):
    """Stands where `rig.Plc` does. `units` may be made to hold values, `faults` to spoil them."""

    def __init__(self, text: str, *, transport: TransportName = "tcp", seed: int = 7) -> None:
        super().__init__()
        self.units: Units = make_units(
            devices_of(text), seed=seed, start_ns=0, second=lambda: (now_ns() - START_NS) / 1e9
        )
        self.faults = Faults(seed=seed, now_ns=now_ns)
        self.exchanges: list[tuple[int, bytes, bytes | None]] = []
        self.network = Network(self._arrived)
        self._sessions: dict[Wire, tuple[FaultySession, Alarm]] = {}
        self._place = Place(transport=transport, host="plc")

    def fault(self, text: str) -> None:
        """One more rule."""
        self.faults.add(parse(text))

    def _arrived(self, wire: Wire, data: bytes) -> None:
        found = self._sessions.get(wire)
        if found is None:
            server = Server(
                "plc", self.units, self._place, faults=self.faults, clock=LoopClock(),
                seen=lambda unit, request, answer: self.exchanges.append((unit, request, answer)),
            )  # fmt: skip
            session = server.session(lambda _reason: wire.close_by_peer())
            loop = asyncio.get_running_loop()
            alarm = Alarm(loop=loop, clock=LoopClock(), fire=lambda now: self._due(wire, now))
            found = self._sessions[wire] = (session, alarm)
        try:
            found[0].receive(data, now_ns())
        except RemoteProtocolError:
            wire.close_by_peer()
            return
        self._flush(wire)

    def _due(self, wire: Wire, now: int) -> None:
        self._sessions[wire][0].on_deadline(now)
        self._flush(wire)

    def _flush(self, wire: Wire) -> None:
        session, alarm = self._sessions[wire]
        for piece in session.to_send(now_ns()):
            if wire.is_open:
                wire.feed(piece)
        alarm.set(session.deadline_ns())

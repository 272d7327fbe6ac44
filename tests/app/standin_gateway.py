"""Not a gateway: publishes a few registers of the demo plant, so that the demo can be tested without one.

`python standin_gateway.py DIR [die | mute | deaf | late]`: die after a second, publish nothing, take no
command, or answer commands without writing them.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.api.http import HttpServer
from gateway.api.source import (
    Family,
    Health,
    JournalStatus,
    LinkStatus,
    PointCounts,
    Points,
    PointView,
    Status,
    UplinkStatus,
)
from gateway.app.demo.mqtt_client import MqttClient

ROOT = "plant/hall/"


class StandIn:
    def __init__(self, directory: Path, mode: str) -> None:
        text = (directory / "gateway.yaml").read_text()
        found = re.findall(r"127\.0\.0\.1:(\d+)", text)
        self.http, self.modbus, self.mqtt = (int(port) for port in found[:3])
        self.mode = mode
        self.plant = socket.create_connection(("127.0.0.1", self.modbus))
        self.broker = MqttClient(host="127.0.0.1", port=self.mqtt, client_id="standin")
        self.broker.connect()
        if mode != "deaf":
            self.broker.subscribe(f"{ROOT}+/+/set")
        self.seq = 0
        self.view: list[PointView] = []
        self.began = time.monotonic()

    def ask(self, unit: int, pdu: bytes) -> bytes:
        self.plant.sendall(struct.pack(">HHHB", 1, 0, len(pdu) + 1, unit) + pdu)
        head = self.plant.recv(7, socket.MSG_WAITALL)
        return self.plant.recv(int.from_bytes(head[4:6], "big") - 1, socket.MSG_WAITALL)

    def scan(self) -> None:
        self.seq += 1
        water = struct.unpack(">h", self.ask(1, struct.pack(">BHH", 4, 1, 1))[2:])[0] / 10
        setpoint = struct.unpack(">h", self.ask(1, struct.pack(">BHH", 3, 0, 1))[2:])[0] / 10
        values = {"water_temp": water, "setpoint": setpoint}
        self.view = [
            PointView(
                name=f"boiler/{tag}", value=value, unit="°C", quality="good", age_s=0.0, changed=self.seq
            )
            for tag, value in values.items()
        ]
        if self.mode == "mute":
            return
        for tag, value in values.items():
            self.broker.publish(f"{ROOT}boiler/{tag}", json.dumps({"v": value, "q": "good"}).encode())
        self.broker.publish(f"{ROOT}boiler", json.dumps({"v": values, "e": 1, "n": self.seq}).encode())
        for message in self.broker.messages(wait_s=0):
            self.command(message.topic, json.loads(message.payload))

    def command(self, topic: str, fields: dict[str, object]) -> None:
        if self.mode != "late":
            raw = round(float(str(fields["v"])) * 10)
            self.ask(1, struct.pack(">BHH", 6, 0, raw))
        for outcome in ("accepted", "sent", "verified"):
            answer = {"id": fields["id"], "outcome": outcome}
            self.broker.publish(topic.removesuffix("set") + "ack", json.dumps(answer).encode())

    def health(self) -> Health:
        return Health(ok=True)

    def points(self, since: int) -> Callable[[], Points]:
        found = [point for point in self.view if point.changed > since]
        return lambda: Points(epoch=1, counter=self.seq, points=found)

    def status(self) -> Status:
        return Status(
            gateway="standin",
            site="hall",
            version="0",
            config_version="0",
            epoch=1,
            seq=self.seq,
            time="2026-05-01T12:00:00.000Z",
            time_synchronised=False,
            started="2026-05-01T12:00:00.000Z",
            uptime_s=time.monotonic() - self.began,
            points=PointCounts(good=len(self.view)),
            links=(LinkStatus(name="plc", driver="modbus", peer=f"127.0.0.1:{self.modbus}", state="up"),),
            uplinks=(UplinkStatus(name="local", kind="mqtt", peer=f"127.0.0.1:{self.mqtt}", state="up"),),
            journal=JournalStatus(state="off"),
        )

    def families(self) -> tuple[Family, ...]:
        return ()


async def main() -> None:
    standin = StandIn(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
    server = HttpServer(standin, host="127.0.0.1", port=standin.http)
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    while not stop.is_set():
        standin.scan()
        if standin.mode == "die" and time.monotonic() - standin.began > 1.0:
            sys.stderr.write("standin: giving up, as told\n")
            sys.exit(3)
        try:
            await asyncio.wait_for(stop.wait(), 0.1)
        except TimeoutError:
            pass
    await server.close()


asyncio.run(main())

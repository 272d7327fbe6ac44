"""The script people write first: pymodbus and paho, one loop, everything in turn.

    python -m bench.naive MODBUS_PORT MQTT_PORT DEVICES REGISTERS

Reads each device's holding registers, makes a dict, dumps it as JSON, publishes it with QoS 1. No report by
exception, no journal, nothing is kept when the broker is away. Here to be compared with, in the same run.
"""

from __future__ import annotations

import json
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient

QUEUED_MAX = 1000  # so that paho's queue does not grow without end where the broker is slower


def main() -> None:
    """Poll until killed."""
    modbus_port, mqtt_port, devices, registers = map(int, sys.argv[1:])
    plant = ModbusTcpClient("127.0.0.1", port=modbus_port)
    plant.connect()
    broker = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="naive")
    broker.max_inflight_messages_set(QUEUED_MAX)
    broker.connect("127.0.0.1", mqtt_port)
    broker.loop_start()
    tags = [f"r{number:03d}" for number in range(registers)]
    count = 0
    while True:
        for device in range(1, devices + 1):
            result = plant.read_holding_registers(0, count=registers, device_id=device)
            if result.isError():
                print(f"naive: dev{device:03d}: {result}", file=sys.stderr)
                continue
            count += 1
            values = dict(zip(tags, result.registers, strict=True))
            payload = {"t": time.time_ns() // 1_000_000, "e": 1, "n": count, "v": values}
            sent = broker.publish(f"bench/dev{device:03d}", json.dumps(payload), qos=1)
            if count % QUEUED_MAX == 0:
                sent.wait_for_publish(10)


if __name__ == "__main__":
    main()

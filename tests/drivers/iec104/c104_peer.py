"""c104 as a process of its own: `server PORT` or `client PORT`. A line on stdin is an order, each line on
stdout is JSON. Never imported: c104 wraps a GPL library, and stays out of every other process. Annotations
are real ones here, for c104 compares them.
"""

import datetime
import json
import sys
import threading
from typing import Any

import c104

STATION = 47
WHEN = datetime.datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=datetime.UTC)
_LOCK = threading.Lock()


def tell(**what: Any) -> None:
    with _LOCK:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def plain(value: Any) -> Any:
    """A value of c104 as JSON has it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, c104.Byte32):
        return int.from_bytes(bytes(value), sys.byteorder)
    if isinstance(value, c104.NormalizedFloat):
        return float(value)
    return int(value.value) if hasattr(value, "value") else int(value)


def told(info: Any) -> dict[str, Any]:
    """The parts of an information that its class has."""
    found: dict[str, Any] = {}
    for name in dir(info):
        if name.startswith("_") or name in {"is_readonly", "processed_at", "value"}:
            continue
        value = getattr(info, name)
        found[name] = value.isoformat()[:23] if isinstance(value, datetime.datetime) else plain(value)
    return found


QUALITY = c104.Quality.Invalid | c104.Quality.Substituted


def informations(when: datetime.datetime | None) -> dict[str, Any]:
    """One of every kind, with a quality that is not good."""
    return {
        "SP": c104.SingleInfo(True, QUALITY, when),
        "DP": c104.DoubleInfo(c104.Double.ON, QUALITY, when),
        "ST": c104.StepInfo(c104.Int7(-5), True, QUALITY, when),
        "BO": c104.BinaryInfo(c104.Byte32(0xDEADBEEF), QUALITY, when),
        "ME_A": c104.NormalizedInfo(c104.NormalizedFloat(-0.25), QUALITY, when),
        "ME_B": c104.ScaledInfo(c104.Int16(-1234), QUALITY, when),
        "ME_C": c104.ShortInfo(3.5, QUALITY, when),
        "IT": c104.BinaryCounterInfo(
            -77, c104.UInt5(9), c104.BinaryCounterQuality.Carry | c104.BinaryCounterQuality.Invalid, when
        ),
        "EP_D": c104.ProtectionEventInfo(c104.EventState.ON, c104.UInt16(321), QUALITY, when),
        "EP_E": c104.ProtectionStartInfo(
            c104.StartEvents.General | c104.StartEvents.PhaseL2, c104.UInt16(322), QUALITY, when
        ),
        "EP_F": c104.ProtectionCircuitInfo(c104.OutputCircuits.PhaseL3, c104.UInt16(323), QUALITY, when),
        "PS": c104.StatusAndChanged(
            c104.PackedSingle.I0 | c104.PackedSingle.I15, c104.PackedSingle.I3, QUALITY, when
        ),
    }


MONITOR = {
    "M_SP_NA_1": "SP", "M_DP_NA_1": "DP", "M_ST_NA_1": "ST", "M_BO_NA_1": "BO", "M_ME_NA_1": "ME_A",
    "M_ME_NB_1": "ME_B", "M_ME_NC_1": "ME_C", "M_IT_NA_1": "IT", "M_PS_NA_1": "PS", "M_SP_TB_1": "SP",
    "M_DP_TB_1": "DP", "M_ST_TB_1": "ST", "M_BO_TB_1": "BO", "M_ME_TD_1": "ME_A", "M_ME_TE_1": "ME_B",
    "M_ME_TF_1": "ME_C", "M_IT_TB_1": "IT", "M_EP_TD_1": "EP_D", "M_EP_TE_1": "EP_E", "M_EP_TF_1": "EP_F",
}  # fmt: skip
COMMANDS = [
    "C_SC_NA_1", "C_DC_NA_1", "C_RC_NA_1", "C_SE_NA_1", "C_SE_NB_1", "C_SE_NC_1", "C_BO_NA_1",
    "C_SC_TA_1", "C_DC_TA_1", "C_RC_TA_1", "C_SE_TA_1", "C_SE_TB_1", "C_SE_TC_1", "C_BO_TA_1",
]  # fmt: skip


def on_command(
    point: c104.Point, previous_info: c104.Information, message: c104.IncomingMessage
) -> c104.ResponseState:
    tell(
        command=point.type.name,
        address=point.io_address,
        select=message.is_select_command,
        **told(message.info),
    )
    return c104.ResponseState.FAILURE if point.io_address == 2999 else c104.ResponseState.SUCCESS


def on_clock_sync(server: c104.Server, ip: str, date_time: datetime.datetime) -> c104.ResponseState:
    tell(clock=date_time.isoformat()[:23])
    return c104.ResponseState.SUCCESS


def serve(port: int) -> None:
    server = c104.Server(ip="127.0.0.1", port=port, tick_rate_ms=50)
    server.on_clock_sync(callable=on_clock_sync)
    station = server.add_station(common_address=STATION)
    points = {}
    for name, kind in MONITOR.items():
        kind_of = getattr(c104.Type, name)
        points[name] = station.add_point(io_address=1000 + int(kind_of.value), type=kind_of)
        points[name].info = informations(WHEN if 30 <= int(kind_of.value) <= 40 else None)[kind]
    for name in COMMANDS:
        kind_of = getattr(c104.Type, name)
        point = station.add_point(io_address=2000 + int(kind_of.value), type=kind_of)
        point.on_receive(callable=on_command)
    refused = station.add_point(io_address=2999, type=c104.Type.C_SC_NA_1)
    refused.on_receive(callable=on_command)
    careful = station.add_point(
        io_address=2998, type=c104.Type.C_DC_NA_1, command_mode=c104.CommandMode.SELECT_AND_EXECUTE
    )
    careful.on_receive(callable=on_command)
    server.start()
    tell(ready=True)
    for line in sys.stdin:
        order, *arguments = line.split()
        if order == "spontaneous":
            for name in MONITOR:
                tell(sent=name, ok=points[name].transmit(cause=c104.Cot.SPONTANEOUS))
        elif order == "count":
            point = points["M_ME_NC_1"]
            for number in range(int(arguments[0])):
                point.value = float(number)
                point.transmit(cause=c104.Cot.SPONTANEOUS)
            tell(counted=int(arguments[0]))
    server.stop()


def on_value(
    point: c104.Point, previous_info: c104.Information, message: c104.IncomingMessage
) -> c104.ResponseState:
    tell(value=point.type.name, address=point.io_address, cause=int(message.cot.value), **told(message.info))
    return c104.ResponseState.SUCCESS


def on_new_point(client: c104.Client, station: c104.Station, io_address: int, point_type: c104.Type) -> None:
    point = station.add_point(io_address=io_address, type=point_type)
    point.on_receive(callable=on_value)


def ask(port: int) -> None:
    client = c104.Client(tick_rate_ms=50, command_timeout_ms=5000)
    client.on_new_point(callable=on_new_point)
    connection = client.add_connection(ip="127.0.0.1", port=port, init=c104.Init.NONE)
    connection.protocol_parameters.keep_alive_interval = 1
    station = connection.add_station(common_address=STATION)
    when = WHEN
    orders = {
        "C_SC_NA_1": c104.SingleCmd(True, c104.Qoc.SHORT_PULSE), "C_DC_NA_1": c104.DoubleCmd(c104.Double.ON),
        "C_RC_NA_1": c104.StepCmd(c104.Step.HIGHER, c104.Qoc.LONG_PULSE),
        "C_SE_NA_1": c104.NormalizedCmd(c104.NormalizedFloat(0.5), c104.UInt7(3)),
        "C_SE_NB_1": c104.ScaledCmd(c104.Int16(-99)), "C_SE_NC_1": c104.ShortCmd(2.25),
        "C_BO_NA_1": c104.BinaryCmd(c104.Byte32(0x12345678)),
        "C_SC_TA_1": c104.SingleCmd(False, c104.Qoc.PERSISTENT, when),
        "C_DC_TA_1": c104.DoubleCmd(c104.Double.OFF, c104.Qoc.NONE, when),
        "C_RC_TA_1": c104.StepCmd(c104.Step.LOWER, c104.Qoc.NONE, when),
        "C_SE_TA_1": c104.NormalizedCmd(c104.NormalizedFloat(-0.5), c104.UInt7(0), when),
        "C_SE_TB_1": c104.ScaledCmd(c104.Int16(99), c104.UInt7(0), when),
        "C_SE_TC_1": c104.ShortCmd(-2.25, c104.UInt7(0), when),
        "C_BO_TA_1": c104.BinaryCmd(c104.Byte32(0x12345678), when),
    }  # fmt: skip
    points = {}
    for name, info in orders.items():
        kind_of = getattr(c104.Type, name)
        points[name] = station.add_point(io_address=2000 + int(kind_of.value), type=kind_of)
        points[name].info = info
    careful = station.add_point(
        io_address=2998, type=c104.Type.C_DC_NA_1, command_mode=c104.CommandMode.SELECT_AND_EXECUTE
    )
    careful.info = c104.DoubleCmd(c104.Double.ON)
    client.start()
    tell(ready=True)
    for line in sys.stdin:
        order = line.strip()
        if order == "interrogation":
            done = connection.interrogation(common_address=STATION)
        elif order == "counters":
            done = connection.counter_interrogation(common_address=STATION)
        elif order == "clock":
            done = connection.clock_sync(common_address=STATION)
        elif order == "test":
            done = connection.test(common_address=STATION)
        elif order == "mute":
            done = connection.mute()
        elif order == "unmute":
            done = connection.unmute()
        elif order == "careful":
            done = careful.transmit(cause=c104.Cot.ACTIVATION)
        else:
            done = points[order].transmit(cause=c104.Cot.ACTIVATION)
        tell(order=order, done=done)
    client.stop()


if __name__ == "__main__":
    {"server": serve, "client": ask}[sys.argv[1]](int(sys.argv[2]))

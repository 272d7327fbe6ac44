"""Both our stations against c104 (lib60870-C), over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from drivers.iec104.wire import elements
from drivers.iec104.wire.asdu import Asdu, confirmation
from drivers.iec104.wire.elements import LAYOUTS
from drivers.iec104.wire.events import Confirmed, Event, Received, Started, Stopped
from drivers.iec104.wire.session import Role, Session, State
from drivers.iec104.wire.settings import Acknowledgement, Settings
from drivers.iec104.wire.terms import Cause, TypeId
from drivers.iec104.wire.timetag import cp56_of_civil_ms, decode_cp56, encode_cp56
from tests.drivers.iec104.pump import Pump, c104
from tests.peers import LOOPBACK, free_port, require

T = TypeId
STATION = 47
SPONTANEOUS = 1500
ANSWER_AFTER_S = 0.02
WHEN_MS = int(datetime.datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=datetime.UTC).timestamp() * 1000)
WHEN = encode_cp56(cp56_of_civil_ms(WHEN_MS))
BAD = 0xA0  # IV SB
# What c104 is told to hold, and what ours hold: one object of each type, address 1000 + type.
VALUES: dict[str, tuple[Any, ...]] = {
    "SP": (0x01 | BAD,), "DP": (0x02 | BAD,), "ST": (elements.vti(-5, transient=True), BAD),
    "BO": (0xDEADBEEF, BAD), "ME_A": (-8192, BAD), "ME_B": (-1234, BAD), "ME_C": (3.5, BAD),
    "IT": (-77, 9 | 0x20 | 0x80), "PS": (0x8001, 0x0008, BAD), "EP_D": (0x02 | BAD, 321),
    "EP_E": (0x05, BAD, 322), "EP_F": (0x08, BAD, 323),
}  # fmt: skip
WHEN_OF_C104 = encode_cp56(cp56_of_civil_ms(WHEN_MS)._replace(day_of_week=0))  # it leaves it out
FROM_C104 = {**VALUES, "BO": (0xDEADBEEF, 0)}  # c104 2.2.1 sends bitstrings without their quality
KINDS: dict[TypeId, str] = {
    T.M_SP_NA_1: "SP", T.M_DP_NA_1: "DP", T.M_ST_NA_1: "ST", T.M_BO_NA_1: "BO", T.M_ME_NA_1: "ME_A",
    T.M_ME_NB_1: "ME_B", T.M_ME_NC_1: "ME_C", T.M_IT_NA_1: "IT", T.M_PS_NA_1: "PS", T.M_SP_TB_1: "SP",
    T.M_DP_TB_1: "DP", T.M_ST_TB_1: "ST", T.M_BO_TB_1: "BO", T.M_ME_TD_1: "ME_A", T.M_ME_TE_1: "ME_B",
    T.M_ME_TF_1: "ME_C", T.M_IT_TB_1: "IT", T.M_EP_TD_1: "EP_D", T.M_EP_TE_1: "EP_E", T.M_EP_TF_1: "EP_F",
}  # fmt: skip
NAMED: dict[TypeId, dict[str, int]] = {  # fields whose octets have the same format
    T.M_ST_NA_1: {"vti": 0xFB, "qds": BAD}, T.M_PS_NA_1: {"status": 0x8001, "changes": 8, "qds": BAD},
    T.M_EP_TE_1: {"spe": 5, "qdp": BAD, "elapsed": 322}, T.M_EP_TF_1: {"oci": 8, "qdp": BAD, "elapsed": 323},
}  # fmt: skip
COMMANDS: dict[TypeId, tuple[Any, ...]] = {
    T.C_SC_NA_1: (elements.command(1, pulse=1),), T.C_DC_NA_1: (elements.command(2),),
    T.C_RC_NA_1: (elements.command(2, pulse=2),), T.C_SE_NA_1: (16384, 3), T.C_SE_NB_1: (-99, 0),
    T.C_SE_NC_1: (2.25, 0), T.C_BO_NA_1: (0x12345678,),
    T.C_SC_TA_1: (elements.command(0, pulse=3), WHEN), T.C_DC_TA_1: (elements.command(1), WHEN),
    T.C_RC_TA_1: (elements.command(1), WHEN), T.C_SE_TA_1: (-16384, 0, WHEN), T.C_SE_TB_1: (99, 0, WHEN),
    T.C_SE_TC_1: (-2.25, 0, WHEN), T.C_BO_TA_1: (0x12345678, WHEN),
}  # fmt: skip


def one(type_id: int, cause: int, address: int, row: tuple[Any, ...], **flags: Any) -> Asdu:
    return Asdu(type_id, cause, STATION, (address,), tuple((value,) for value in row), **flags)


def held(type_id: TypeId, cause: int, values: dict[str, tuple[Any, ...]] = VALUES) -> Asdu:
    """The object of this type that both stations hold."""
    row = values[KINDS[type_id]]
    if "time" in LAYOUTS[type_id].fields:
        row = (*row, WHEN_OF_C104 if values is FROM_C104 else WHEN)
    return one(type_id, cause, 1000 + type_id, row)


@contextlib.asynccontextmanager
async def running(pump: Pump) -> AsyncIterator[Pump]:
    task = asyncio.create_task(pump.run())
    try:
        yield pump
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await pump.close()


def received(pump: Pump, **like: Any) -> list[Asdu]:
    """ASDUs so far that look like this."""
    asdus = [event.asdu for event in pump.heard if isinstance(event, Received)]
    return [asdu for asdu in asdus if all(getattr(asdu, name) == value for name, value in like.items())]


async def asked(pump: Pump, asdu: Asdu, cause: int) -> Asdu:
    """Send an ASDU of ours, and wait for its mirror of this cause."""
    seen = len(received(pump, type_id=asdu.type_id, cause=cause))
    pump.session.send(asdu, token=asdu)
    pump.flush()
    await pump.until(lambda: len(received(pump, type_id=asdu.type_id, cause=cause)) > seen)
    return received(pump, type_id=asdu.type_id, cause=cause)[-1]


# --- we ask ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def controlling(**settings: Any) -> AsyncIterator[tuple[Pump, Any]]:
    """Our controlling station, started, and c104 as the controlled one."""
    port = free_port()
    async with c104("server", port) as peer:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        async with running(Pump(Session(Role.CONTROLLING, Settings(**settings)), reader, writer)) as pump:
            await asyncio.sleep(0)
            pump.session.start()
            pump.flush()
            await pump.until(lambda: Started() in pump.heard)
            yield pump, peer


@pytest.mark.interop
def test_our_controlling_station_interrogates_commands_and_sets_the_clock_of_c104() -> None:
    require("c104")

    async def body() -> None:
        async with controlling() as (pump, peer):
            station = one(T.C_IC_NA_1, Cause.ACTIVATION, 0, (elements.QOI_STATION,))
            await asked(pump, station, Cause.ACTIVATION_TERMINATION)
            assert received(pump, type_id=T.C_IC_NA_1, cause=Cause.ACTIVATION_CONFIRMATION) == [
                confirmation(station)
            ]
            answers = {
                (asdu.type_id, address): tuple(column[n] for column in asdu.columns)
                for asdu in received(pump, cause=Cause.INTERROGATED_BY_STATION)
                for n, address in enumerate(asdu.addresses)
            }
            for type_id in (1, 3, 5, 7, 9, 11, 13):
                asdu = held(T(type_id), 20, FROM_C104)
                assert answers[type_id, 1000 + type_id] == tuple(c[0] for c in asdu.columns), type_id
            await asked(pump, one(T.C_CI_NA_1, Cause.ACTIVATION, 0, (5,)), Cause.ACTIVATION_TERMINATION)
            counters = received(pump, type_id=T.M_IT_NA_1, cause=Cause.REQUESTED_BY_GENERAL_COUNTER)
            assert [(list(asdu.addresses), asdu.columns) for asdu in counters] == [
                ([1015], held(T.M_IT_NA_1, 37).columns)
            ]
            clock = one(T.C_CS_NA_1, Cause.ACTIVATION, 0, (WHEN,))
            assert not (await asked(pump, clock, Cause.ACTIVATION_CONFIRMATION)).negative
            await peer.until(lambda: any("clock" in said for said in peer.said))
            assert [said["clock"] for said in peer.said if "clock" in said] == ["2026-03-04T05:06:07.890"]
            test = one(T.C_TS_TA_1, Cause.ACTIVATION, 0, (0x1234, WHEN))
            assert await asked(pump, test, Cause.ACTIVATION_CONFIRMATION) == confirmation(test)
            read = one(T.C_RD_NA_1, Cause.REQUEST, 1013, ())
            pump.session.send(read, token=read)
            pump.flush()
            await pump.until(lambda: bool(received(pump, cause=Cause.REQUEST)))
            assert received(pump, cause=Cause.REQUEST) == [held(T.M_ME_NC_1, Cause.REQUEST)]
            unknown = one(T.C_SC_NA_1, Cause.ACTIVATION, 4711, (1,))
            assert (await asked(pump, unknown, Cause.UNKNOWN_OBJECT_ADDRESS)).addresses == (4711,)

    asyncio.run(body())


@pytest.mark.interop
def test_c104_takes_every_command_of_ours() -> None:
    require("c104")

    async def body() -> None:
        async with controlling() as (pump, peer):
            for type_id, row in COMMANDS.items():
                command = one(type_id, Cause.ACTIVATION, 2000 + type_id, row, originator=3)
                answer = await asked(pump, command, Cause.ACTIVATION_CONFIRMATION)
                assert answer == confirmation(command)
                await peer.until(lambda: peer.said[-1].get("command") == type_id.name)  # noqa: B023 - awaited here
                check_told(type_id, row, peer.said[-1])
            refused = one(T.C_SC_NA_1, Cause.ACTIVATION, 2999, (1,))
            assert (await asked(pump, refused, Cause.ACTIVATION_CONFIRMATION)) == confirmation(
                refused, negative=True
            )
            early = one(T.C_DC_NA_1, Cause.ACTIVATION, 2998, (elements.command(2),))
            assert (await asked(pump, early, Cause.ACTIVATION_CONFIRMATION)).negative
            select = one(T.C_DC_NA_1, Cause.ACTIVATION, 2998, (elements.command(2, select=True),))
            assert not (await asked(pump, select, Cause.ACTIVATION_CONFIRMATION)).negative
            assert not (await asked(pump, early, Cause.ACTIVATION_CONFIRMATION)).negative

    asyncio.run(body())


def check_told(type_id: TypeId, row: tuple[Any, ...], told: dict[str, Any]) -> None:
    """What c104 says of a command, against the octets that carry it."""
    values = dict(zip(LAYOUTS[type_id].fields, row, strict=True))
    if "sco" in values:
        assert (told["on"], told["qualifier"]) == (bool(values["sco"] & 1), values["sco"] >> 2)
    elif "dco" in values:
        assert (told["state"], told["qualifier"]) == (values["dco"] & 3, values["dco"] >> 2)
    elif "rco" in values:
        assert (told["direction"], told["qualifier"]) == (values["rco"] & 3, values["rco"] >> 2)
    elif "bsi" in values:
        assert told["blob"] == values["bsi"]
    else:
        expected = values.get("value", values.get("sva"))
        if "nva" in values:
            expected = pytest.approx(elements.normalized(values["nva"]), abs=1e-4)
        assert (told["target"], told["qualifier"]) == (expected, values["qos"])
    if "time" in values:
        assert told["recorded_at"] == "2026-03-04T05:06:07.890"


@pytest.mark.interop
@pytest.mark.parametrize("acknowledgement", Acknowledgement)
def test_spontaneous_values_of_c104_arrive_once_and_in_order(acknowledgement: Acknowledgement) -> None:
    require("c104")

    async def body() -> None:
        async with controlling(acknowledgement=acknowledgement) as (pump, peer):
            commit(pump, acknowledgement)
            peer.order("spontaneous")
            await pump.until(lambda: len(received(pump, cause=Cause.SPONTANEOUS)) == len(KINDS))
            assert received(pump, cause=Cause.SPONTANEOUS) == [
                held(kind, Cause.SPONTANEOUS, FROM_C104) for kind in KINDS
            ]
            for type_id, names in NAMED.items():
                (asdu,) = received(pump, type_id=type_id)
                assert {name: asdu.column(name)[0] for name in names} == names
            pump.heard.clear()
            for start in range(0, SPONTANEOUS, 100):  # its own queue drops in silence when it is full
                peer.order("count 100")
                await pump.until(lambda: len(received(pump)) == start + 100)  # noqa: B023 - awaited here
            found = [asdu.column("value")[0] for asdu in received(pump, type_id=T.M_ME_NC_1)]
            assert found == [float(n) for n in range(100)] * (SPONTANEOUS // 100)
            assert pump.session.counters.s_sent >= SPONTANEOUS // 12  # its window

    asyncio.run(body())


def commit(pump: Pump, acknowledgement: Acknowledgement) -> None:
    """As an owner that commits what comes in a little later."""
    if acknowledgement is not Acknowledgement.BY_OWNER:
        return

    def answer(event: Event) -> None:
        if isinstance(event, Received):
            asyncio.get_running_loop().call_later(0.002, safe, event.number)

    def safe(number: int) -> None:
        pump.session.acknowledge(number, 0)
        pump.flush()

    pump._answer = answer


@pytest.mark.interop
def test_c104_answers_test_frames_stopdt_and_startdt() -> None:
    require("c104")

    async def body() -> None:
        async with controlling(t3_s=1) as (pump, _):
            before = pump.session.counters.u_received
            await pump.until(lambda: pump.session.counters.u_received >= before + 2)  # two TESTFR con
            assert pump.session.counters.unasked == 0
            pump.session.stop()
            pump.flush()
            await pump.until(lambda: Stopped() in pump.heard)
            pump.heard.clear()
            pump.session.start()
            pump.flush()
            await pump.until(lambda: Started() in pump.heard)
            station = one(T.C_IC_NA_1, Cause.ACTIVATION, 0, (elements.QOI_STATION,))
            await asked(pump, station, Cause.ACTIVATION_TERMINATION)

    asyncio.run(body())


# --- we answer ---------------------------------------------------------------------------------------------


class Station:
    """Answers as a controlled station would; only what the tests ask."""

    def __init__(self) -> None:
        self.session = Session(Role.CONTROLLED, Settings(k=12, w=8))
        self.commands: list[Asdu] = []
        self.flush: Callable[[], None] = lambda: None

    def answer(self, event: Event) -> None:
        if not isinstance(event, Received):
            return
        # c104 misses an answer now and then that comes back before it waits for it
        asyncio.get_running_loop().call_later(ANSWER_AFTER_S, self.reply, event.asdu)

    def reply(self, asdu: Asdu) -> None:
        send = lambda reply: self.session.send(reply, token=None)  # noqa: E731
        send(confirmation(asdu))
        if asdu.type_id == T.C_IC_NA_1:
            for type_id, kind in KINDS.items():
                if kind != "IT" and "time" not in LAYOUTS[type_id].fields:
                    send(held(type_id, Cause.INTERROGATED_BY_STATION))
        elif asdu.type_id == T.C_CI_NA_1:
            send(held(T.M_IT_NA_1, Cause.REQUESTED_BY_GENERAL_COUNTER))
        else:
            self.commands.append(asdu)
        fields = LAYOUTS[asdu.type_id].fields
        octet = next((name for name in ("sco", "dco", "rco", "qos") if name in fields), None)
        selects = octet is not None and asdu.column(octet)[0] & elements.SELECT
        if asdu.type_id not in (T.C_CS_NA_1, T.C_TS_TA_1) and not selects:
            send(confirmation(asdu, cause=Cause.ACTIVATION_TERMINATION))
        self.flush()


@contextlib.asynccontextmanager
async def controlled() -> AsyncIterator[tuple[Pump, Station, Any]]:
    """Our controlled station, and c104 as the controlling one, connected and started."""
    station, pumps = Station(), []
    there, over = asyncio.Event(), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pumps.append(Pump(station.session, reader, writer, station.answer))
        station.flush = pumps[0].flush
        there.set()
        async with running(pumps[0]):
            await over.wait()

    server = await asyncio.start_server(accept, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with c104("client", port) as peer:
            async with asyncio.timeout(10):
                await there.wait()
            (pump,) = pumps
            while Started() not in pump.heard:  # c104 sometimes stays muted
                await peer.done("unmute")
                await asyncio.sleep(0.05)
            yield pump, station, peer
    finally:
        over.set()
        server.close()
        for pump in pumps:
            await pump.closed.wait()


@pytest.mark.interop
def test_c104_interrogates_and_sets_the_clock_of_our_controlled_station() -> None:
    require("c104")

    async def body() -> None:
        async with controlled() as (_, station, peer):
            assert await peer.done("interrogation")
            assert await peer.done("counters")
            values = {said["value"]: said for said in peer.said if "value" in said}
            for type_id, kind in KINDS.items():
                if "time" not in LAYOUTS[type_id].fields:
                    check_value(kind, values[type_id.name])
            before = datetime.datetime.now(datetime.UTC)
            assert await peer.done("clock")
            (clock,) = (asdu for asdu in station.commands if asdu.type_id == T.C_CS_NA_1)
            civil_ms = decode_cp56(clock.column("time")[0]).civil_ms()
            assert civil_ms is not None
            assert abs(civil_ms - before.timestamp() * 1000) < 60_000
            assert await peer.done("test")

    asyncio.run(body())


@pytest.mark.interop
def test_our_controlled_station_takes_every_command_of_c104() -> None:
    require("c104")

    async def body() -> None:
        async with controlled() as (_, station, peer):
            for type_id in COMMANDS:
                assert await peer.done(type_id.name), type_id.name
            for asdu, (type_id, row) in zip(station.commands, COMMANDS.items(), strict=True):
                check_command(asdu, type_id, row)
            station.commands.clear()
            assert await peer.done("careful")
            assert [asdu.column("dco")[0] for asdu in station.commands] == [0x82, 0x02]

    asyncio.run(body())


def check_command(asdu: Asdu, type_id: TypeId, row: tuple[Any, ...]) -> None:
    """A command of c104 in our columns."""
    assert (asdu.type_id, asdu.cause, asdu.addresses) == (type_id, Cause.ACTIVATION, (2000 + type_id,))
    for name, (found,), expected in zip(LAYOUTS[type_id].fields, asdu.columns, row, strict=True):
        if name == "time":
            assert decode_cp56(found).civil_ms() == WHEN_MS
        elif name == "nva":
            assert abs(found - expected) <= 1
        elif name == "bsi":
            assert found == 0  # whatever c104 2.2.1 is told to send
        else:
            assert found == expected, (type_id.name, name)


def check_value(kind: str, told: dict[str, Any]) -> None:
    """What c104 says of a value of ours."""
    expected: dict[str, dict[str, Any]] = {
        "SP": {"on": True}, "DP": {"state": 2}, "ST": {"position": -5, "transient": True},
        "BO": {"blob": 0xDEADBEEF}, "ME_A": {"actual": pytest.approx(-0.25, abs=1e-4)},
        "ME_B": {"actual": -1234},
        "ME_C": {"actual": 3.5}, "IT": {"counter": -77, "sequence": 9},
        "PS": {"status": 0x8001, "changed": 8}, "EP_D": {"state": 2, "elapsed_ms": 321},
        "EP_E": {"events": 5, "relay_duration_ms": 322}, "EP_F": {"circuits": 8, "relay_operating_ms": 323},
    }  # fmt: skip
    assert {name: told[name] for name in expected[kind]} == expected[kind], told
    assert told["quality"] == (BAD if kind != "IT" else 0xA0)


@pytest.mark.interop
def test_c104_takes_spontaneous_values_test_frames_and_stops() -> None:
    require("c104")

    async def body() -> None:
        async with controlled() as (pump, station, peer):
            session = station.session
            for type_id in KINDS:
                session.send(held(type_id, Cause.SPONTANEOUS), token=type_id)
            pump.flush()
            await peer.until(lambda: sum("value" in said for said in peer.said) == len(KINDS))
            for said, (type_id, kind) in zip(
                (s for s in peer.said if "value" in s), KINDS.items(), strict=True
            ):
                assert said["value"] == type_id.name
                check_value(kind, said)
                if "time" in LAYOUTS[type_id].fields:
                    assert said["recorded_at"] == "2026-03-04T05:06:07.890"
            peer.said.clear()
            sent = 0
            while sent < SPONTANEOUS:
                while session.capacity() and sent < SPONTANEOUS:
                    session.send(one(T.M_ME_NC_1, 3, 1013, (float(sent), 0)), token=sent)
                    sent += 1
                pump.flush()
                await pump.until(lambda: session.capacity() > 0)
            await peer.until(lambda: sum("value" in said for said in peer.said) == SPONTANEOUS)
            assert [said["actual"] for said in peer.said if "value" in said] == [
                *map(float, range(SPONTANEOUS))
            ]
            assert await peer.done("mute")
            await pump.until(lambda: session.state is State.STOPPED)
            confirmed = [t for e in pump.heard if isinstance(e, Confirmed) for t in e.tokens]
            assert [t for t in confirmed if t.__class__ is int] == list(range(SPONTANEOUS))
            before = session.counters.u_received
            await pump.until(lambda: session.counters.u_received >= before + 2)  # TESTFR act of c104
            assert await peer.done("unmute")
            await pump.until(lambda: session.state is State.STARTED)

    asyncio.run(body())

"""Starting, stopping and reloading the process: what it says, what it keeps, how fast it goes."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.peers import mosquitto, require
from tests.system.listeners import PahoListener
from tests.system.plant import Plant, counting_tags
from tests.system.process import Gateway
from tests.system.waiting import LOOPBACK, Background, until
from tests.system.wire import Wire

STATUS = "gateway/gw/status"


def site(plants: dict[str, Plant], port: int, **changes: Any) -> dict[str, Any]:
    """One device on each link; every plant is a link."""
    config: dict[str, Any] = {
        "version": 1,
        "gateway": {"name": "gw"},
        "http": {"listen": "127.0.0.1:0"},
        "journal": {"commit": "20ms"},
        "links": {
            name: {"driver": "modbus", "host": f"127.0.0.1:{plant.port}", "timeout": "300ms",
                   "reconnect": {"min": "50ms", "max": "200ms"}}
            for name, plant in plants.items()
        },
        "scan": {"fast": "20ms"},
        "devices": {name: {"link": name, "unit": 1, "tags": counting_tags("fast")} for name in plants},
        "uplinks": {"broker": uplink(port)},
        "publish": [{"uplink": "broker", "topic": "plant/{device}", "report": {"on": "scan"}}],
    }  # fmt: skip
    config.update(changes)
    return config


def uplink(port: int, **more: Any) -> dict[str, Any]:
    """The MQTT uplink of these tests."""
    return {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "connect_timeout": "2s",
            "backoff": {"min": "20ms", "max": "100ms"}, **more}  # fmt: skip


def new_plant(background: Background) -> Plant:
    """A plant of one unit that listens."""
    plant = Plant(background)
    plant.start()
    return plant


def dead_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def counts_of(listener: PahoListener, topic: str) -> list[int]:
    """The counter of every row heard on a topic, each (epoch, seq) once, in order."""
    found = {
        (one.json["e"], one.json["n"]): one.json["v"] for one in listener.on(topic) if "q" not in one.json
    }
    return [values["count"] for values in found.values()]


# Stopping


@pytest.mark.interop
@pytest.mark.kills
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_drains_and_says_goodbye(
    number: signal.Signals,
    tmp_path: Path,
    background: Background,
    plant: Plant,
    make_gateway: Callable[..., Gateway],
) -> None:
    require("paho")
    with mosquitto(tmp_path) as broker:
        listener = PahoListener(broker.port, "plant/#", STATUS)
        background.at_end.append(listener.close)
        gateway = make_gateway(site({"d1": plant}, broker.port, scan={"fast": "10ms"}))
        gateway.start()
        until(lambda: len(listener.on("plant/d1")) > 50, "values")
        status = listener.on(STATUS)[0].json
        assert status["state"] == "online"
        assert status["epoch"] == gateway.status()["epoch"]
        assert len(status["committed"]) == 2
        code, took_s = gateway.stop(number)
        assert code == 0
        assert took_s < 3
        said = listener.wait_for(
            lambda one: one.topic == STATUS and one.json["state"] == "offline", "goodbye"
        ).json
        assert said["reason"] == "stopped"
        counts = counts_of(listener, "plant/d1")
        assert counts == list(range(1, len(counts) + 1))
        newest = listener.on("plant/d1")[-1].json
        assert said["committed"] == [newest["e"], newest["n"]], "the goodbye tells how far to reconcile"
        assert plant.counts[1] - counts[-1] <= 1, "a scan that was read is missing"
        late = PahoListener(broker.port, STATUS, name="late", clean=True)
        background.at_end.append(late.close)
        kept = late.wait_for(lambda one: one.topic == STATUS, "the retained status")
        assert kept.retain
        assert kept.json["state"] == "offline"


@pytest.mark.interop
@pytest.mark.kills
def test_a_kill_gives_the_will(
    tmp_path: Path, background: Background, plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    with mosquitto(tmp_path) as broker:
        listener = PahoListener(broker.port, STATUS)
        background.at_end.append(listener.close)
        gateway = make_gateway(site({"d1": plant}, broker.port))
        gateway.start()
        listener.wait_for(lambda one: one.json["state"] == "online", "birth")
        gateway.kill()
        said = listener.wait_for(lambda one: one.json["state"] == "offline", "will").json
        assert said["reason"] == "connection lost"
        assert said["gateway"] == "gw"


@pytest.mark.kills
@pytest.mark.parametrize("case", ["refused", "held", "frozen"])
def test_a_stop_while_the_broker_does_not_answer(
    case: str, tmp_path: Path, background: Background, plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    with mosquitto(tmp_path) as broker:
        wire = Wire(background, broker.port)
        wire.start()
        gateway = make_gateway(site({"d1": plant}, wire.port, scan={"fast": "10ms"}))
        gateway.start()
        gateway.await_connected()
        if case == "refused":
            wire.stop()
            until(lambda: gateway.uplink()["state"] != "up", "the uplink to go")
        elif case == "held":
            wire.hold()
            until(lambda: gateway.uplink()["in_flight"] > 8, "messages on their way")
        else:
            broker.freeze()
            until(lambda: gateway.uplink()["in_flight"] > 8, "messages on their way")
        try:
            code, took_s = gateway.stop()
        finally:
            if case == "frozen":
                broker.thaw()
        assert code == 0
        print(f"{case}: {took_s:.1f} s")


@pytest.mark.kills
@pytest.mark.parametrize("case", ["silent", "refused"])
def test_a_stop_while_the_device_is_dead(
    case: str, tmp_path: Path, background: Background, plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    with mosquitto(tmp_path) as broker:
        gateway = make_gateway(site({"d1": plant}, broker.port))
        gateway.start()
        gateway.await_connected()
        until(lambda: gateway.points()["d1/count"]["quality"] == "good", "values")
        if case == "silent":
            plant.is_silent = True
        else:
            plant.stop()
        until(lambda: gateway.points()["d1/count"]["quality"].startswith("bad/comm-lost"), "bad values")
        assert gateway.points()["d1/count"]["value"] is None
        assert gateway.get("/healthz").code == 200
        assert gateway.stop()[0] == 0


@pytest.mark.kills
def test_a_stop_at_the_very_start(make_gateway: Callable[..., Gateway], plant: Plant) -> None:
    gateway = make_gateway(site({"d1": plant}, dead_port()))
    gateway.launch()
    gateway.await_log("HTTP service listens")
    assert gateway.stop()[0] == 0


# Starting


@pytest.mark.kills
def test_it_starts_without_plant_and_broker_and_tells(
    make_gateway: Callable[..., Gateway], background: Background
) -> None:
    plant = new_plant(background)
    plant.stop()
    gateway = make_gateway(site({"d1": plant}, dead_port()))
    gateway.start()
    until(lambda: gateway.points()["d1/count"]["quality"].startswith("bad/comm-lost"), "bad values")
    point = gateway.points()["d1/count"]
    assert point["value"] is None
    link = gateway.link("d1")
    assert link["state"] != "up"
    assert "nothing listens there" in link["reason"]
    up = gateway.uplink()
    assert up["state"] != "up"
    assert "nothing listens there" in up["reason"]
    assert gateway.get("/healthz").code == 200
    assert b"gateway_" in gateway.get("/metrics").body
    plant.start()
    until(lambda: gateway.points()["d1/count"]["quality"] == "good", "values once the plant is there")
    assert gateway.stop()[0] == 0
    assert gateway.log.count("link is down") == 2


@pytest.mark.kills
def test_unresolvable_hosts_do_not_stop_it(make_gateway: Callable[..., Gateway], plant: Plant) -> None:
    config = site({"d1": plant}, 1883)
    config["uplinks"]["broker"]["url"] = "mqtt://no-such-host.invalid:1883"
    config["links"]["d1"]["host"] = "no-such-host.invalid:502"
    gateway = make_gateway(config)
    gateway.start()
    until(lambda: gateway.uplink()["reason"], "a reason", within_s=30)
    assert gateway.stop()[0] == 0


@pytest.mark.kills
def test_logs_are_for_people_where_standard_error_is_not_the_journal(
    make_gateway: Callable[..., Gateway], plant: Plant
) -> None:
    gateway = make_gateway(site({"d1": plant}, dead_port()), env={"JOURNAL_STREAM": "8:1"})
    gateway.launch()
    gateway.await_log("link is down")
    assert gateway.stop()[0] == 0
    lines = gateway.log.splitlines()
    assert any(" WARNING link is down" in line for line in lines)
    assert any(" INFO    gateway runs  gateway=" in line and " points=7 " in line for line in lines)


def drain(datagrams: socket.socket) -> None:
    """Read until nothing comes for its timeout, which is raised."""
    while True:
        datagrams.recv(4096)


@pytest.mark.kills
def test_systemd_hears_that_it_is_ready_alive_and_ending(
    tmp_path: Path, make_gateway: Callable[..., Gateway], plant: Plant
) -> None:
    """The watchdog's 1 s and SIGSTOP: what is stopped does not say that it is alive."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        gateway = make_gateway(site({"d1": plant}, dead_port()), env=env)
        gateway.start()
        told = [systemd.recv(4096).decode() for _ in range(3)]
        assert min(told) == "READY=1"
        alive = sorted(told)[1:]
        assert all(message.startswith("WATCHDOG=1") for message in alive)
        assert any(
            "\nSTATUS=links " in message and "uplinks 0 of 1 up, backlog" in message for message in alive
        )
        process = gateway.running
        process.send_signal(signal.SIGSTOP)
        systemd.settimeout(1)
        with pytest.raises(TimeoutError):
            drain(systemd)
        process.send_signal(signal.SIGABRT)
        process.send_signal(signal.SIGCONT)
        # Its other threads run while it looks at them: that may end the dump, and the process, early.
        assert process.wait(20) in {-signal.SIGABRT, -signal.SIGSEGV}
        assert "Fatal Python error: Aborted" in gateway.log


@pytest.mark.kills
def test_a_journal_that_cannot_be_opened_is_said_in_one_line(
    tmp_path: Path, make_gateway: Callable[..., Gateway], plant: Plant
) -> None:
    gateway = make_gateway(site({"d1": plant}, dead_port()))
    gateway.state.parent.mkdir(exist_ok=True)
    gateway.state.write_text("a file where the directory should be")
    gateway.launch()
    code = gateway.wait()
    assert code in {1, 2}
    assert "state" in gateway.log
    assert len(gateway.log.splitlines()) <= 4, gateway.log
    elsewhere = make_gateway(
        site({"d1": plant}, dead_port(), journal={"directory": "/proc/nowhere"}), name="other"
    )
    elsewhere.launch()
    assert elsewhere.wait() == 1
    assert "/proc/nowhere" in elsewhere.log
    assert "cannot open the journal" in elsewhere.log
    assert len(elsewhere.log.splitlines()) == 1, elsewhere.log


@pytest.mark.kills
def test_two_gateways_do_not_share_a_journal(
    make_gateway: Callable[..., Gateway], plant: Plant, tmp_path: Path
) -> None:
    first = make_gateway(site({"d1": plant}, dead_port(), journal={"directory": str(tmp_path / "shared")}))
    first.start()
    second = make_gateway(
        site({"d1": plant}, dead_port(), journal={"directory": str(tmp_path / "shared")}), name="second"
    )
    second.launch()
    assert second.wait() == 1
    assert str(tmp_path / "shared") in second.log
    assert first.get("/healthz").code == 200
    assert first.stop()[0] == 0


@pytest.mark.kills
def test_a_taken_http_port_is_said_in_one_line(make_gateway: Callable[..., Gateway], plant: Plant) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        gateway = make_gateway(site({"d1": plant}, dead_port(), http={"listen": f"127.0.0.1:{port}"}))
        gateway.launch()
        assert gateway.wait() == 1
        assert f"cannot listen on 127.0.0.1:{port}" in gateway.log
        assert "Address already in use" in gateway.log
        assert "http: listen" in gateway.log


# Reloading


@pytest.mark.interop
@pytest.mark.kills
def test_a_reload_restarts_only_what_changed(
    tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    plants = {name: new_plant(background) for name in ("d1", "d2")}
    third = new_plant(background)
    with mosquitto(tmp_path) as broker:
        listener = PahoListener(broker.port, "plant/#", "changed/#", STATUS)
        background.at_end.append(listener.close)
        config = site(plants, broker.port)
        config["publish"].append({"uplink": "broker", "topic": "plant/{device}/{tag}"})
        # one tag that never changes: said once, and again only where its link was restarted
        for device in config["devices"].values():
            device["tags"]["still"] = {"at": "hr:100", "type": "uint16", "scan": "fast"}
        gateway = make_gateway(config)
        gateway.start()
        until(lambda: len(listener.on("plant/d2")) > 20, "values")
        births = len(listener.on(STATUS))

        config["devices"]["d1"]["tags"]["still"]["deadband"] = 5
        gateway.configure(config)
        assert "links_restarted=1 uplinks_restarted=0" in gateway.reload()
        until(lambda: plants["d1"].accepted == 2, "the link to come back")
        assert plants["d2"].accepted == 1

        config["links"]["d3"] = {**config["links"]["d1"], "host": f"127.0.0.1:{third.port}"}
        config["devices"]["d3"] = {"link": "d3", "unit": 1, "tags": counting_tags("fast")}
        gateway.configure(config)
        assert "links_restarted=0 uplinks_restarted=0" in gateway.reload()
        until(lambda: len(listener.on("plant/d3")) > 5, "values of the new device")

        config["publish"][0]["topic"] = "changed/{device}"
        gateway.configure(config)
        assert "links_restarted=0 uplinks_restarted=0" in gateway.reload()
        until(lambda: len(listener.on("changed/d2")) > 5, "values on the new topic")
        assert len(listener.on(STATUS)) == births

        config["uplinks"]["broker"]["keep_alive"] = "33s"
        gateway.configure(config)
        assert "links_restarted=0 uplinks_restarted=1" in gateway.reload()
        until(lambda: len(listener.on(STATUS)) >= births + 2, "goodbye and birth")
        assert listener.on(STATUS)[-1].json["state"] == "online"
        heard = len(listener.on("changed/d2"))
        until(lambda: len(listener.on("changed/d2")) > heard + 5, "values over the new uplink")

        del config["devices"]["d1"], config["links"]["d1"]
        gateway.configure(config)
        assert "links_restarted=1 uplinks_restarted=0" in gateway.reload()
        assert "d1/count" not in gateway.points()

        assert "configuration is unchanged" in gateway.reload()
        assert gateway.stop()[0] == 0
        assert (plants["d1"].accepted, plants["d2"].accepted, third.accepted) == (2, 1, 1)
        assert len(listener.on("plant/d2/still")) == 1, "an unchanged value was reported again"
        counts = counts_of(listener, "plant/d2") + counts_of(listener, "changed/d2")
        assert counts == list(range(1, len(counts) + 1)), "a scan of a link that did not change is missing"
        assert gateway.log.count("task crashed") == 0


@pytest.mark.interop
@pytest.mark.kills
def test_a_reload_keeps_the_backlog_also_of_what_was_on_its_way(
    tmp_path: Path, background: Background, plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    with mosquitto(tmp_path, "max_queued_messages 0") as broker:
        listener = PahoListener(broker.port, "plant/#")
        background.at_end.append(listener.close)
        wire = Wire(background, broker.port)
        wire.start()
        gateway = make_gateway(config := site({"d1": plant}, wire.port))
        gateway.start()
        until(lambda: len(listener.on("plant/d1")) > 5, "values")
        wire.stop()  # what goes out now reaches nobody
        until(lambda: gateway.uplink()["backlog"] > 50, "a backlog")
        wire.start()
        wire.hold()
        wire.target = dead_port()
        config["uplinks"]["broker"]["keep_alive"] = "33s"
        gateway.configure(config)
        assert "uplinks_restarted=1" in gateway.reload()
        backlog = gateway.uplink()["backlog"]
        assert backlog > 50
        wire.target = broker.port
        wire.release()
        gateway.await_connected()
        silent = wire_swallows(wire, gateway)
        config["uplinks"]["broker"]["keep_alive"] = "34s"
        gateway.configure(config)
        assert "uplinks_restarted=1" in gateway.reload()
        wire.is_swallowing = False
        wire.cut()
        gateway.await_connected()
        until(lambda: gateway.uplink()["backlog"] < 10, "the backlog to go")
        assert gateway.stop()[0] == 0
        counts = counts_of(listener, "plant/d1")
        assert counts == list(range(1, len(counts) + 1)), "values are missing"
        assert silent > 8


@pytest.mark.interop
@pytest.mark.kills
def test_a_topic_that_changes_leaves_nothing_behind(
    tmp_path: Path, background: Background, plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    with mosquitto(tmp_path, "max_queued_messages 0") as broker:
        listener = PahoListener(broker.port, "plant/#", "changed/#")
        background.at_end.append(listener.close)
        wire = Wire(background, broker.port)
        wire.start()
        gateway = make_gateway(config := site({"d1": plant}, wire.port))
        gateway.start()
        until(lambda: len(listener.on("plant/d1")) > 5, "values")
        wire_swallows(wire, gateway)
        until(lambda: gateway.uplink()["backlog"] > 50, "values that wait behind it")
        config["publish"][0]["topic"] = "changed/{device}"
        gateway.configure(config)
        assert "rules_leaving=1" in gateway.reload()
        wire.is_swallowing = False
        wire.cut()
        gateway.await_connected()
        until(lambda: len(listener.on("changed/d1")) > 20, "values on the new topic")
        until(lambda: gateway.uplink()["backlog"] < 10, "the backlog to go")
        assert gateway.stop()[0] == 0
        counts = counts_of(listener, "plant/d1") + counts_of(listener, "changed/d1")
        assert sorted(counts) == list(range(1, len(counts) + 1)), "values are missing"


def wire_swallows(wire: Wire, gateway: Gateway) -> int:
    """From now on nothing gets through either way; returns once much is on its way, and how much."""
    wire.is_swallowing = True
    return until(
        lambda: gateway.uplink()["in_flight"] if gateway.uplink()["in_flight"] > 8 else 0, "messages"
    )


@pytest.mark.kills
def test_a_wrong_configuration_is_refused_whole_and_the_old_one_stays(
    make_gateway: Callable[..., Gateway], plant: Plant
) -> None:
    gateway = make_gateway(config := site({"d1": plant}, dead_port()))
    gateway.start()
    until(lambda: gateway.points()["d1/count"]["quality"] == "good", "values")
    wrong = json.loads(json.dumps(config))
    wrong["devices"]["d1"]["tags"]["count"]["scan"] = "nosuch"
    wrong["devices"]["d1"]["tags"]["r2"]["at"] = "hr:70000"
    wrong["uplinks"]["broker"]["ca"] = "missing.pem"
    gateway.configure(wrong)
    gateway.reload()
    for fact in ("found no scan class 'nosuch'", "70000", "missing.pem"):
        gateway.await_log(fact)
    assert gateway.log.count("the new configuration is wrong, the old one stays") >= 3
    (gateway.config_dir / "gateway.yaml").write_text("version: [")
    assert "the old one stays" in gateway.reload()
    (gateway.config_dir / "bad.pem").write_text("no certificate")
    tls = json.loads(json.dumps(config))
    tls["uplinks"]["broker"] |= {"url": "mqtts://127.0.0.1:1", "ca": "bad.pem"}
    gateway.configure(tls)
    said = gateway.reload()
    assert "the old one stays" in said
    assert "bad.pem" in said
    (gateway.config_dir / "gateway.yaml").unlink()
    assert "the old one stays" in gateway.reload()
    before = plant.counts[1]
    until(lambda: plant.counts[1] > before + 3, "reading to go on")
    assert plant.accepted == 1
    assert gateway.stop()[0] == 0


@pytest.mark.kills
def test_a_rule_that_goes_leaves_its_backlog_and_says_so(
    make_gateway: Callable[..., Gateway], plant: Plant
) -> None:
    block = {"full": "block", "max": "1MB"}
    config = site({"d1": plant}, dead_port())
    config["publish"].append(
        {"uplink": "broker", "topic": "second/{device}", "report": {"on": "scan"}, "buffer": block}
    )
    gateway = make_gateway(config)
    gateway.start()
    until(lambda: gateway.uplink()["backlog_bytes"] > 5_000, "a backlog")
    gone = config["publish"].pop()
    gateway.configure(config)
    said = gateway.reload()
    assert "a rule is gone, and what it has kept is not delivered yet" in gateway.log
    assert "second/{device}" in gateway.log
    assert "rules_leaving=1" in said
    assert gateway.stop()[0] == 0
    gateway.start()
    assert gateway.log.count("a rule that is no longer configured") == 1, gateway.log
    assert gateway.uplink()["backlog_bytes"] > 0, "the backlog of the other rule"
    config["publish"].append(gone)
    gateway.configure(config)
    gateway.reload()
    assert gateway.stop()[0] == 0
    gateway.start()
    assert "no longer configured" not in gateway.log
    assert gateway.stop()[0] == 0

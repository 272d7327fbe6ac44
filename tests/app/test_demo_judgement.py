"""What the demo counts and how it judges: gaps, repetitions, and a set-point's way there and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.app.demo import ports
from gateway.app.demo.mqtt_client import Message
from gateway.app.demo.ports import DemoPorts, demo_config, settle
from gateway.app.demo.tally import Tally
from gateway.app.demo.write_back import ANSWER_TIMEOUT_NS, MOVE_TIMEOUT_NS, Step, WriteBack, next_value
from gateway.core.errors import GatewayError

MS_NS = 1_000_000


def message(topic: str, content: object, *, retained: bool = False) -> Message:
    payload = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Message(f"plant/hall/{topic}", payload, 1, retained, False)


def scan(number: int, *, epoch: int = 1, device: str = "boiler", part: int | None = None) -> Message:
    fields = {"v": {"x": 1}, "e": epoch, "n": number}
    return message(device, fields if part is None else {**fields, "p": part})


def test_values_are_counted_and_kept() -> None:
    tally = Tally(site="hall")
    assert tally.take(message("boiler/water_temp", {"v": 65.2, "q": "good"})) == "boiler/water_temp"
    assert tally.take(message("boiler/pressure", {"v": None, "q": "bad/comm-lost"})) == "boiler/pressure"
    assert tally.take(scan(1)) is None
    assert (tally.messages, tally.scans, len(tally.tags), tally.good) == (3, 1, 2, 1)


def test_commands_answers_old_copies_and_other_topics_are_not_values() -> None:
    tally = Tally(site="hall")
    tally.take(message("boiler/setpoint/set", {"v": 75}))
    tally.take(message("boiler/setpoint/ack", {"outcome": "verified"}))
    tally.take(message("boiler/water_temp", {"v": 1}, retained=True))
    tally.take(Message("gateway/demo/status", b'{"v": 1}', 1, False, False))
    assert (tally.messages, tally.tags) == (0, {})
    tally.take(message("boiler/water_temp", b"\xff"))
    tally.take(message("boiler/water_temp", {"value": 1}))
    assert tally.unreadable == 2


def test_gaps_are_numbers_missing_over_all_devices_of_an_epoch() -> None:
    tally = Tally(site="hall")
    for one in (
        scan(5),
        scan(7, device="tank"),
        scan(6, device="meter"),
        scan(10),
        scan(1, epoch=2),
        scan(2, epoch=2),
    ):
        tally.take(one)
    assert (tally.epochs, tally.gaps, tally.duplicates) == (2, 2, 0)


def test_a_gap_that_is_filled_later_is_none_and_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.app.demo.tally.AHEAD_MAX", 10)
    monkeypatch.setattr("gateway.app.demo.tally.IDENTITIES_MAX", 10)
    tally = Tally(site="hall")
    for number in (1, 2, 5, 4):
        tally.take(scan(number))
    assert tally.gaps == 1
    tally.take(message("boiler/x", {"v": 1, "e": 1, "n": 3}))
    assert tally.gaps == 0, "one numbering over topics of scans and of single values"
    for number in range(8, 100):
        tally.take(scan(number))
    assert tally.gaps == 2
    assert len(tally._identities) == 10
    assert len(tally._numbers[1]._ahead) <= 10


def test_a_repetition_is_the_same_topic_epoch_number_and_part() -> None:
    tally = Tally(site="hall")
    for one in (scan(5), scan(5, part=1), scan(5, device="tank"), scan(5, epoch=2)):
        tally.take(one)
    assert tally.duplicates == 0
    tally.take(scan(5, part=1))
    assert tally.duplicates == 1


class Way:
    """A set-point on its way, fed by hand."""

    def __init__(self) -> None:
        self.tally = Tally(site="hall")
        self.tally.take(message("boiler/water_temp", {"v": 65.0}))
        self.write_back = WriteBack(
            tally=self.tally, value_c=75.0, id="demo-1", now_ns=0, wall_ms=1_777_636_800_000
        )

    def hear(self, topic: str, content: object, *, at_ms: int, retained: bool = False) -> None:
        one = message(topic, content, retained=retained)
        tag = self.tally.take(one)
        self.write_back.on_message(one, tag=tag, now_ns=at_ms * MS_NS)

    def answer(self, outcome: str, *, at_ms: int, **more: object) -> None:
        self.hear("boiler/setpoint/ack", {"id": "demo-1", "outcome": outcome, **more}, at_ms=at_ms)


def test_the_way_of_a_setpoint() -> None:
    way = Way()
    one = way.write_back
    assert one.topic == "plant/hall/boiler/setpoint/set"
    assert json.loads(one.payload) == {"id": "demo-1", "v": 75.0, "t": 1_777_636_800_000, "ttl": 5}
    way.answer("accepted", at_ms=2)
    way.answer("sent", at_ms=4)
    assert one.step is Step.ASKED
    way.answer("verified", at_ms=23)
    assert one.step is Step.ANSWERED
    assert not one.is_verified
    way.hear("boiler/setpoint", {"v": 65.0}, at_ms=500)
    assert one.step is Step.ANSWERED, "the old value is not the new one"
    way.hear("boiler/setpoint", {"v": 75.0}, at_ms=812)
    assert one.step is Step.RETURNED
    way.hear("boiler/water_temp", {"v": 64.0}, at_ms=900)
    assert one.step is Step.RETURNED, "away from the set-point is not towards it"
    way.hear("boiler/water_temp", {"v": 65.6}, at_ms=4000)
    assert one.step is Step.MOVED
    assert one.describe() == "set-point 75.0 °C verified 23 ms, back 812 ms, water 65.0 to 65.6 °C"


def test_the_value_may_come_back_before_the_answer() -> None:
    way = Way()
    way.hear("boiler/setpoint", {"v": 75.0}, at_ms=10)
    assert way.write_back.step is Step.ASKED
    way.answer("verified", at_ms=12)
    assert way.write_back.step is Step.RETURNED


@pytest.mark.parametrize("outcome", ["rejected", "expired", "unknown", "whatever"])
def test_any_other_end_is_a_failure_with_its_reason(outcome: str) -> None:
    way = Way()
    way.answer(outcome, at_ms=5, reason="interlock is open")
    assert way.write_back.step is Step.FAILED
    assert outcome in way.write_back.describe()
    assert "interlock is open" in way.write_back.describe()


def test_answers_to_others_and_old_copies_are_not_ours() -> None:
    way = Way()
    way.hear("boiler/setpoint/ack", {"id": "other", "outcome": "verified"}, at_ms=5)
    way.hear("boiler/setpoint/ack", {"id": "demo-1", "outcome": "verified"}, at_ms=5, retained=True)
    assert way.write_back.step is Step.ASKED
    way.hear("boiler/setpoint/ack", b"nonsense", at_ms=6)
    assert way.write_back.step is Step.FAILED


def test_what_does_not_come_is_given_up() -> None:
    way = Way()
    way.write_back.on_time(ANSWER_TIMEOUT_NS)
    assert way.write_back.step is Step.ASKED
    way.write_back.on_time(ANSWER_TIMEOUT_NS + 1)
    assert "no final answer" in way.write_back.failure

    way = Way()
    way.answer("verified", at_ms=1)
    way.write_back.on_time(9_000 * MS_NS)
    assert "did not come back" in way.write_back.failure

    way = Way()
    way.answer("verified", at_ms=1)
    way.hear("boiler/setpoint", {"v": 75.0}, at_ms=2)
    way.write_back.on_time(MOVE_TIMEOUT_NS + 1)
    assert "did not follow" in way.write_back.failure


def test_the_next_value_differs_from_the_present_one() -> None:
    assert [next_value(current) for current in (65.0, 75.0, 30, 90, None)] == [75.0, 65.0, 75.0, 65.0, 65.0]


def test_free_ports_mean_the_configuration_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_is_free", lambda _port: True)
    place = settle(demo_config(), copy_to=tmp_path / "copy")
    assert (place.config, place.ports, place.remark) == (demo_config(), DemoPorts(), "")


def test_a_busy_port_means_a_copy_with_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_is_free", lambda port: port != 18830)
    place = settle(demo_config(), copy_to=tmp_path / "copy")
    assert place.config == tmp_path / "copy"
    assert "18830" in place.remark
    text = (place.config / "gateway.yaml").read_text()
    for port, before in zip(
        (place.ports.modbus, place.ports.mqtt, place.ports.http), (15020, 18830, 18080), strict=True
    ):
        assert f"127.0.0.1:{port}" in text
        assert f"127.0.0.1:{before}" not in text
    assert "127.0.0.1:15020" in (demo_config() / "gateway.yaml").read_text(), "the original is left alone"


def test_a_configuration_without_these_ports_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_is_free", lambda _port: False)
    (tmp_path / "gateway.yaml").write_text('http: {listen: "127.0.0.1:18080"}\n')
    with pytest.raises(GatewayError, match=r"127\.0\.0\.1:15020"):
        settle(tmp_path, copy_to=tmp_path / "copy")

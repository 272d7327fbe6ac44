"""The live table at fixed sizes, as text."""

from __future__ import annotations

import io
import itertools

import msgspec
import pytest
from rich.console import Console

from gateway.api.source import DeviceStatus, LinkStatus, Points, PointView, ServerStatus, Status, UplinkStatus
from gateway.app.table import ASCII, TableView, count, duration, glyphs_for, rate, size
from tests.api.fake_source import plant_points, plant_status, point

SECOND_NS = 1_000_000_000


def draw(view: TableView, *, width: int = 80, height: int = 24, has_colour: bool = False) -> str:
    console = Console(
        width=width,
        height=height,
        file=io.StringIO(),
        record=True,
        force_terminal=has_colour,
        color_system="truecolor" if has_colour else None,
        legacy_windows=False,
    )
    console.print(view)
    return console.export_text(styles=has_colour)


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip("\n").split("\n")]


def fed(points: list[PointView] | None = None, status: Status | None = None, *, now_ns: int = 0) -> TableView:
    view = TableView()
    feed(view, points, status, now_ns=now_ns)
    return view


def feed(
    view: TableView, points: list[PointView] | None = None, status: Status | None = None, *, now_ns: int
) -> None:
    points = plant_points() if points is None else points
    view.update(
        points=Points(epoch=3, counter=9, points=points), status=status or plant_status(), now_ns=now_ns
    )


PICTURE_80_BY_26 = """\
 demo  plant · up 42 s · 17 points 14 good 1 uncertain 2 bad

 tag               value       unit  quality         age
 boiler/burner          45.1   %     good          0.2 s
 boiler/water_temp      65.2   °C    good          0.2 s
 boiler/pressure         1.582 bar   good          0.2 s
 boiler/state        heating         good          0.2 s
 boiler/flame        on              good          0.2 s
 boiler/setpoint        65.0   °C    good          0.2 s
 boiler/low_water    off             good          0.2 s
 tank/level             55.57  %     good          0.2 s
 tank/inflow             —     m3/h  comm-lost      14 s
 tank/outflow           24.36  m3/h  out-of-range  0.2 s
 tank/hours           4711     h     good          8.0 s
 meter/u1              230.87  V     good          0.2 s
 meter/i1                8.123 A     good          0.2 s
 meter/cos_phi           0.943       good          0.2 s
 meter/energy        18342.3   kWh   good          7.1 s
 meter/serial        EM340-07        good          7.1 s
 meter/frequency         —     Hz    not-yet-read      —

 link    ● plc up 127.0.0.1:15020  14 requests/s  66 points/s  2 timeouts  tank…
 uplink  ● local up 127.0.0.1:18830  82 messages/s  backlog 3  in flight 3/20
 journal ● ok 1.2 MB of 500.0 MB  epoch 3  committed 409
 notice  tank: ir:1..2 answers illegal data address"""


def test_the_whole_picture() -> None:
    assert lines_of(draw(fed(), height=26)) == PICTURE_80_BY_26.split("\n")


SIZES = list(itertools.product([20, 40, 80, 120, 200], [5, 10, 24, 40]))


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("copies", [0, 1, 20])
def test_it_fits_any_terminal(width: int, height: int, copies: int) -> None:
    points = [
        msgspec.structs.replace(one, name=f"{one.name}{copy}")
        for copy in range(copies)
        for one in plant_points()
    ]
    view = fed(points)
    for event in range(5):
        view.note(f"event {event} " + "x" * 200)
    lines = lines_of(draw(view, width=width, height=height))
    assert max(len(line) for line in lines) <= width
    if height >= 10:  # below that a table is not what one needs; the screen crops
        assert len(lines) <= height


def test_rows_that_do_not_fit_are_counted_and_those_not_good_are_shown() -> None:
    text = draw(fed(), height=18)
    assert "… 8 more, all good" in text
    for name in ("tank/inflow", "tank/outflow", "meter/frequency"):
        assert name in text
    points = [point(f"dead/{index}", None, quality="bad/comm-lost") for index in range(50)]
    assert "of them not good" in draw(fed(points), height=24)


def test_a_wide_terminal_takes_two_columns_before_it_hides_rows() -> None:
    points = [point(f"pump-{index:02}/speed", float(index), unit="rpm") for index in range(28)]
    text = draw(fed(points), width=120, height=24)
    assert "more" not in text
    assert "pump-00/speed" in lines_of(text)[3]
    assert any("pump-27/speed" in line and "pump-1" in line for line in lines_of(text))


def test_what_changed_is_marked_for_a_moment_even_without_colour() -> None:
    view = fed([point("a/x", 1.5), point("a/y", True), point("a/z", 3, text="on hold"), point("a/s", 7)])
    assert not set("▲▼◆") & set(draw(view))
    after = [point("a/x", 1.4), point("a/y", False), point("a/z", 4, text="go"), point("a/s", 7)]
    feed(view, after, now_ns=SECOND_NS)
    rows = {line.split()[0]: line for line in lines_of(draw(view)) if " a/" in line}
    assert "▼ 1.4" in rows["a/x"]
    assert "◆ off" in rows["a/y"]
    assert "◆ go" in rows["a/z"]
    assert not set("▲▼◆") & set(rows["a/s"])
    feed(view, after, now_ns=2 * SECOND_NS)
    assert not set("▲▼◆") & set(draw(view))


def test_a_bad_value_is_a_dash_in_red_with_its_reason_and_never_the_old_value() -> None:
    view = fed([point("a/x", 77.7)])
    feed(view, [point("a/x", 77.7, quality="bad/comm-lost")], now_ns=SECOND_NS)
    text = draw(view)
    assert "77.7" not in text
    assert "comm-lost" in text
    coloured = draw(view, has_colour=True)
    assert "\x1b[31mcomm-lost" in coloured
    assert "\x1b[31m—" in coloured


def test_decimals_do_not_jump_and_hide_the_noise_of_float32() -> None:
    view = fed([point("a/x", 1.5820000171661377), point("a/y", 230.8699951171875), point("a/z", 65.0)])
    feed(view, [point("a/x", 1.5), point("a/y", 231.0), point("a/z", 65.25)], now_ns=SECOND_NS)
    text = draw(view)
    assert "1.500" in text
    assert "231.00" in text
    assert "65.25" in text


def test_decimal_points_stand_in_one_column() -> None:
    lines = [line for line in lines_of(draw(fed(), height=40)) if "/" in line and " good " in line]
    columns = {line.index(".", 18) for line in lines if line[18:30].count(".") == 1}
    assert len(columns) == 1


def test_a_gateway_that_does_not_answer_makes_nothing_look_fresh() -> None:
    view = fed()
    view.lose("http://127.0.0.1:8080/v1/points: Connection refused", now_ns=30 * SECOND_NS)
    text = draw(view, height=26)
    assert "NO ANSWER for 30 s" in text
    assert " good " not in text.split("\n", 1)[1]
    assert "no answer" in text
    assert "30 s" in next(line for line in text.split("\n") if "boiler/burner" in line)


def test_links_that_are_down_stand_out_and_come_first_when_there_is_no_room() -> None:
    links = tuple(
        LinkStatus(name=f"plc{index}", driver="modbus", peer=f"10.0.0.{index}:502", state="up")
        for index in range(30)
    )
    links += (
        LinkStatus(
            name="dead",
            driver="modbus",
            peer="10.0.0.99:502",
            state="down",
            reason="connection refused",
            devices=(DeviceStatus(name="p1", state="demoted", reason="no answer 3 times"),),
        ),
    )
    text = draw(fed(status=plant_status(links=links)), width=100)
    assert "dead down 10.0.0.99:502  connection refused" in text
    assert "p1 demoted no answer 3 times" in text
    assert "more links and uplinks" in text


def test_an_uplink_that_is_down_shows_its_backlog_and_since_when() -> None:
    uplink = UplinkStatus(
        name="cloud",
        kind="mqtt",
        peer="broker:8883",
        state="connecting",
        reason="host unreachable",
        backlog=12_345,
        backlog_age_s=7300.0,
        quarantined_total=2,
    )
    text = draw(fed(status=plant_status(uplinks=(uplink,))), width=120)
    assert "cloud connecting broker:8883  host unreachable  backlog 12.3 k since 2.0 h  2 quarantined" in text


def test_a_server_shows_who_asks_and_why_it_is_down() -> None:
    up = ServerStatus(
        name="hmi", driver="modbus", address="0.0.0.0:502", state="up", points=12, connections=3,
        connections_limit=64, requests_total=7, exceptions_total={"2": 4, "11": 1}, refused_total=2,
    )  # fmt: skip
    down = ServerStatus(
        name="bus", driver="modbus", address="/dev/ttyS9", state="down", reason="no such port"
    )
    text = draw(fed(status=plant_status(servers=(up, down))), width=120)
    expected = (
        "hmi up 0.0.0.0:502  clients 3/64  12 points  7 requests  5 refused requests  2 refused clients"
    )
    assert expected in text
    assert "bus down /dev/ttyS9  no such port  0 points  0 requests" in text


def test_events_with_a_key_replace_each_other() -> None:
    view = fed()
    view.note("first")
    view.note("writing", key="w")
    view.note("verified", key="w")
    text = draw(view)
    assert "writing" not in text
    assert "first" in text
    assert "verified" in text


def test_plain_lines_say_what_is_new_and_nothing_twice() -> None:
    view = fed(
        [point("a/x", 1.5, unit="bar", changed=1), point("a/y", None, quality="bad/comm-lost", changed=1)]
    )
    view.note("hello")
    first = view.plain_lines(limit=10)
    assert first[0].endswith("14/17 points good, plc up, local up backlog 3")
    assert first[1:] == ["  a/x 1.5 bar good", "  a/y — bad/comm-lost", "  hello"]
    assert len(view.plain_lines(limit=10)) == 1
    feed(view, [point(f"b/{index}", 1, changed=2) for index in range(5)], now_ns=SECOND_NS)
    assert view.plain_lines(limit=2)[-1] == "  … 3 more changed"


def test_before_the_first_answer_it_says_that_it_waits() -> None:
    assert "waiting" in draw(TableView())


def test_no_points_is_said() -> None:
    assert "no points are configured" in draw(fed([]))


def test_a_terminal_without_unicode_gets_plain_signs() -> None:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert glyphs_for(console) is ASCII
    view = TableView(glyphs=ASCII)
    feed(view, [point("a/x", None, unit="°C", quality="bad/comm-lost")], now_ns=0)
    assert draw(view).isascii()


@pytest.mark.parametrize(
    ("function", "argument", "text"),
    [
        (duration, 0.04, "0.0 s"),
        (duration, 59.4, "59 s"),
        (duration, 3600.0, "60 min"),
        (duration, 86_400.0, "24.0 h"),
        (duration, 864_000.0, "10 d"),
        (rate, 0.44, "0.4"),
        (rate, 12.4, "12"),
        (count, 9999, "9999"),
        (count, 12_345, "12.3 k"),
        (count, 4_500_000, "4.5 M"),
        (size, 0, "0 B"),
        (size, 1_250_000, "1.2 MB"),
        (size, 5 * 10**12, "5.0 TB"),
    ],
)
def test_numbers_for_people(function, argument, text) -> None:  # type: ignore[no-untyped-def]  # parametrized
    assert function(argument) == text

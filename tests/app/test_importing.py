"""Importers: small files in the shape of other programs, what comes of them, and what they cannot carry.

`tests/cases/import/NAME/` holds `input.*`, the files expected and `remarks.txt`. To write them anew:
`python -m tests.app.test_importing`, and read the difference.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.modbus.importing.basket import Basket, name_of
from drivers.modbus.importing.csv_table import COLUMNS
from drivers.modbus.importing.fields import number_of
from gateway.app.cli import cli
from gateway.app.importing.command import faults_of, texts
from gateway.app.importing.formats import FORMATS
from gateway.app.kinds import kinds
from gateway.config.draft import Draft, flow
from gateway.config.load import load
from gateway.config.reader import read as read_yaml
from gateway.config.tree import Place, plain
from gateway.config.values import is_name
from gateway.core.errors import ConfigError

CASES: Final = Path(__file__).parents[1] / "cases" / "import"
NAMES: Final = sorted(path.name for path in CASES.iterdir())
KINDS: Final = {"wb": "wb-mqtt-serial"}


def draft_of(kind: str, text: str | bytes) -> Draft:
    return FORMATS[kind].read(text.encode() if isinstance(text, str) else text, "input")


def tags_of(draft: Draft) -> dict[str, dict[str, object]]:
    devices = (*draft.devices.values(), *draft.templates.values())
    return {name: tag.keys for device in devices for name, tag in device.tags.items()}


def remarks_of(draft: Draft) -> list[str]:
    return [str(remark) for remark in draft.remarks]


def result(name: str) -> dict[str, str]:
    """Names of the files that belong to a case → what they should hold."""
    source = next((CASES / name).glob("input.*"))
    kind = name.partition("-")[0]
    draft = FORMATS[KINDS.get(kind, kind)].read(source.read_bytes(), source.name)
    said = "".join(f"{remark}\n" for remark in draft.remarks)
    return {**texts(draft, driver="modbus"), "remarks.txt": said}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_program_becomes_what_is_expected(name: str) -> None:
    found = result(name)

    files = [path for path in (CASES / name).rglob("*") if path.is_file() and path.stem != "input"]
    assert found == {str(path.relative_to(CASES / name)): path.read_text() for path in files}
    del found["remarks.txt"]
    assert faults_of(found) == []


def test_every_format_has_a_case() -> None:
    assert {KINDS.get(name.partition("-")[0], name.partition("-")[0]) for name in NAMES} == set(FORMATS)


# The command


def run(*arguments: str | Path) -> tuple[int, str, str]:
    found = CliRunner().invoke(cli, ["import", *map(str, arguments)])
    return found.exit_code, found.stdout, found.stderr


def test_a_site_is_written_and_passes_the_check(tmp_path: Path) -> None:
    code, out, said = run("telegraf", CASES / "telegraf-register/input.conf", "--out", tmp_path / "site")

    assert (code, out) == (0, "")
    assert "input.conf:23:5: 'odd' is left out: its registers do not follow each other" in said
    assert "carried over: 1 link, 1 device, 9 tags, 2 remarks" in said
    checked = CliRunner().invoke(cli, ["check", str(tmp_path / "site")])
    assert checked.exit_code == 0, checked.output


def test_a_template_becomes_a_map_that_a_site_uses(tmp_path: Path) -> None:
    assert run("wb-mqtt-serial", CASES / "wb-template/input.json", "--out", tmp_path)[0] == 0
    main = tmp_path / "gateway.yaml"
    main.write_text(
        "version: 1\ngateway: {name: here}\nlinks: {a: {driver: modbus, host: 192.0.2.1}}\n"
        "devices: {relay: {link: a, unit: 1, use: relay-x}}\n"
    )

    assert set(load(main, kinds()).devices["relay"].tags) == {"K1", "supply-voltage", "Brightness"}


def test_without_out_it_is_printed_and_can_be_piped() -> None:
    code, out, _ = run("csv", CASES / "csv-site/input.csv")

    assert (code, out.rstrip()) == (0, (CASES / "csv-site/gateway.yaml").read_text().rstrip())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("mine")

    code, _, _ = run("csv", CASES / "csv-site/input.csv", "--out", tmp_path)

    assert code != 0
    assert (tmp_path / "gateway.yaml").read_text() == "mine"


def test_where_nothing_can_be_carried_over_the_exit_code_is_1(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,address\nx,nowhere\n")

    code, out, said = run("csv", tmp_path / "a.csv", "--out", tmp_path / "site")

    assert (code, out) == (1, "")
    assert "a.csv:2:1: 'x' is left out" in said
    assert "no tag could be carried over" in said
    assert not (tmp_path / "site").exists()


def test_what_still_has_to_be_put_right_by_hand_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text(
        "[[inputs.modbus]]\nslave_id = 300\n"
        'holding_registers = [{name = "a", data_type = "INT16", address = [1]}]\n'
    )

    code, out, said = run("telegraf", tmp_path / "a.conf")

    assert code == 0
    assert 'at: "hr:1"' in out
    assert "gateway.yaml:6:50: found '', expected the path of a serial port" in said
    assert "gateway.yaml:11:11: found the number 300, expected at most 255" in said
    assert "(to be put right by hand)" in said


@pytest.mark.parametrize(
    ("kind", "text", "fault"),
    [
        ("csv", "a;b\n1;2\n", "input:1:1: found no header"),
        ("csv", b"name\0,address", "input:1:1: found a zero byte"),
        ("telegraf", "[[inputs", "input:1:"),
        ("telegraf", "a" + ".a" * 5000 + "=1", "input:1:1: found more than"),
        ("telegraf", "a=" + "[" * 50_000, "input:1:1: found too many levels"),
        ("thingsboard", "[" * 50_000, "input:1:"),
        ("homeassistant", "[" * 50_000, "input:1:"),
        ("telegraf", b"\xff", "input:1:1: found the byte 0xff, expected UTF-8"),
        ("thingsboard", '{"master":\n {"slaves": [}}', "input:2:14: found '}', expected a value"),
        ("thingsboard", "[]", "input:1:1: found no mapping"),
        ("thingsboard", '{"a": "\\ud800"}', "input:1:7: found a wrong escape in text"),
        ("wb-mqtt-serial", "{% macro x() %}", "input:1:2: found '%', expected a key in double quotes"),
        ("wb-mqtt-serial", '{"a": 1} x', "input:1:10: found text behind the end"),
        ("homeassistant", "", "input:1:1: found nothing, expected modbus:"),
    ],
)
def test_a_file_that_is_none_of_that_format_is_refused_with_its_place(
    kind: str, text: str | bytes, fault: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        draft_of(kind, text)

    assert str(caught.value).startswith(fault)


# CSV


def test_every_column_is_in_the_documentation() -> None:
    text = (CASES.parents[2] / "docs" / "importing.md").read_text()

    for ours, words in COLUMNS.items():
        assert f"| `{ours}` | {', '.join(words)} |" in text


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_is_read_with_any_separator(mark: str) -> None:
    text = "Name,Address,Type\npower,ir:52,float32\n".replace(",", mark)

    assert tags_of(draft_of("csv", text)) == {"power": {"at": "ir:52", "type": "float32"}}


def test_decimal_commas_and_a_file_that_is_no_utf_8() -> None:
    draft = draft_of("csv", "name;address;type;unit;scale\nt;hr:1;int16;°C;0,1\n".encode("latin-1"))

    assert tags_of(draft) == {"t": {"at": "hr:1", "type": "int16", "scale": 0.1, "unit": "°C"}}
    assert remarks_of(draft) == [
        "input:1:1: the text is no UTF-8; it is read as Latin-1: look at units and names"
    ]


@pytest.mark.parametrize(
    ("address", "table", "at"),
    [
        ("40001", "", "hr:0"),
        ("400001", "", "hr:0"),
        ("30010", "", "ir:9"),
        ("10001", "", "di:0"),
        ("00001", "", "co:0"),
        ("7", "", "hr:7"),
        ("0x10", "", "hr:16"),
        ("7", "4", "ir:7"),
        ("7", "Holding Register", "hr:7"),
        ("12", "coil", "co:12"),
        ("ir:3", "", "ir:3"),
    ],
)
def test_addresses_of_a_table(address: str, table: str, at: str) -> None:
    draft = draft_of("csv", f"name,address,table,type\nx,{address},{table},int16\n")

    assert tags_of(draft)["x"]["at"] == at


def test_what_a_number_may_mean_two_ways_is_said_once() -> None:
    draft = draft_of("csv", "name,address,type\na,1,int16\nb,2,float32\nc,4,float32\n")

    assert remarks_of(draft) == [
        "input:2:1: addresses without a table are taken for holding registers, counted from 0",
        "input:3:1: no order of bytes for values of several registers: ABCD is taken; compare values",
    ]


def test_two_lines_of_one_name_get_two_names_and_a_remark() -> None:
    draft = draft_of("csv", "name,address,type\na,hr:1,int16\na,hr:2,int16\n")

    assert set(tags_of(draft)) == {"a", "a-2"}
    assert remarks_of(draft) == ["input:3:1: a tag 'a' is there already: this one is called 'a-2'"]


# The others


def test_telegrafs_fixed_point_types_are_whole_numbers_of_as_many_registers() -> None:
    fields = ", ".join(
        f'{{name="{kind.lower()}{count}", data_type="{kind}", scale=1.0, address={list(range(count))}}}'
        for kind in ("FIXED", "UFIXED", "FLOAT32")
        for count in (1, 2, 4)
    )
    draft = draft_of(
        "telegraf",
        f'[[inputs.modbus]]\ncontroller = "tcp://h:1"\nslave_id = 1\nholding_registers = [{fields}]',
    )

    assert {name: keys["type"] for name, keys in tags_of(draft).items()} == {
        **{f"fixed{count}": f"int{16 * count}" for count in (1, 2, 4)},
        **{f"{kind}{count}": f"uint{16 * count}" for kind in ("ufixed", "float32") for count in (1, 2, 4)},
    }


def test_thingsboards_writes_make_the_tag_that_is_read_writable() -> None:
    slave = (
        '{"master": {"slaves": [{"host": "h", "port": 502, "unitId": 1, "wordOrder": "BIG", "timeseries": ['
        '{"tag": "level", "type": "16int", "functionCode": 3, "address": 1}], "rpc": ['
        '{"tag": "setLevel", "type": "16int", "functionCode": 6, "address": 1}]}]}}'
    )

    draft = draft_of("thingsboard", slave)

    assert tags_of(draft) == {"level": {"at": "hr:1", "type": "int16", "write": {}}}
    assert not draft.remarks


@pytest.mark.parametrize(
    ("byte", "word", "order"),
    [
        ("BIG", "BIG", None),
        ("BIG", "LITTLE", "CDAB"),
        ("LITTLE", "BIG", "BADC"),
        ("LITTLE", "LITTLE", "DCBA"),
    ],
)
def test_thingsboards_orders(byte: str, word: str, order: str | None) -> None:
    draft = draft_of(
        "thingsboard",
        f'{{"master": {{"slaves": [{{"host": "h", "unitId": 1, "byteOrder": "{byte}", "wordOrder": "{word}", '
        '"timeseries": ['
        '{"tag": "a", "type": "32float", "functionCode": 3, "objectsCount": 2, "address": 1}]}]}}',
    )

    assert tags_of(draft)["a"].get("order") == order


@pytest.mark.parametrize(
    ("kind", "count", "ours"),
    [("int", 2, "int32"), ("uint", 4, "uint64"), ("float", 1, "float16"), ("uint16", 1, "uint16")],
)
def test_home_assistants_type_with_a_count(kind: str, count: int, ours: str) -> None:
    text = f"modbus: [{{host: h, sensors: [{{name: a, address: 1, data_type: {kind}, count: {count}}}]}}]"

    assert tags_of(draft_of("homeassistant", text))["a"]["type"] == ours


def test_an_entity_of_home_assistant_whose_slave_is_a_secret_is_left_out() -> None:
    text = "modbus: [{host: h, sensors: [{name: a, address: 1, slave: !secret s}, {name: b, address: 1}]}]"

    draft = draft_of("homeassistant", text)

    assert set(tags_of(draft)) == {"b"}
    assert "input:1:30: 'a' is left out: its slave is not known" in remarks_of(draft)


@pytest.mark.parametrize(
    ("kind", "text", "remark"),
    [
        (
            "thingsboard",
            (
                '{"master": {"slaves": [{"host": "h", "deviceName": "d", "unitId": "${U}",'
                '"timeseries": [{"tag": "a", "type": "16int", "functionCode": 3, "address": 1}]}]}}'
            ),
            "input:1:24: 'd' is left out: it has no unitId",
        ),
        (
            "telegraf",
            '[[inputs.modbus]]\ncontroller="tcp://h:1"\ncoils=[{name="a", address=[0]}]\n',
            "input:1:1: 'modbus' is left out: it has no slave_id",
        ),
        (
            "telegraf",
            (
                '[[inputs.modbus]]\ncontroller="tcp://h:1"\nconfiguration_type="metric"\n'
                '[[inputs.modbus.metric]]\nfields=[{name="a", register="coil", address=0}]\n'
            ),
            "input:4:1: a request without slave_id is left out",
        ),
        (
            "csv",
            "name,address,slave,host\na,co:1,one,h\n",
            "input:2:1: 'a' is left out: found slave 'one', expected a number",
        ),
    ],
)
def test_a_slave_is_never_guessed(kind: str, text: str, remark: str) -> None:
    draft = draft_of(kind, text)

    assert not draft.tag_count
    assert remark in remarks_of(draft)


def test_the_title_of_a_template_of_wb_mqtt_serial_is_translated() -> None:
    text = (
        '{"title": "t", "device": {"id": "x", "translations": {"en": {"t": "Thermostat X"}},'
        ' "channels": [{"name": "a", "address": 1}]}}'
    )

    draft = draft_of("wb-mqtt-serial", text)

    assert draft.templates["x"].comment == "Thermostat X"
    assert not draft.remarks


@pytest.mark.parametrize(
    ("channel", "keys"),
    [
        (
            '"reg_type": "input", "format": "string", "string_data_size": 6',
            {"at": "ir:5", "type": "string", "length": 6, "encoding": "utf-16"},
        ),
        ('"reg_type": "holding_multi", "readonly": true', {"at": "hr:5", "type": "uint16"}),
        (
            '"reg_type": "holding_single", "type": "switch", "on_value": 7',
            {"at": "hr:5", "type": "uint16", "enum": {0: "off", 7: "on"}, "write": {"function": "single"}},
        ),
        (
            '"reg_type": "input", "enum": [1, 2], "enum_titles": ["one", "two"]',
            {"at": "ir:5", "type": "uint16", "enum": {1: "one", 2: "two"}},
        ),
    ],
)
def test_channels_of_wb_mqtt_serial(channel: str, keys: dict[str, object]) -> None:
    draft = draft_of(
        "wb-mqtt-serial",
        f'{{"device": {{"id": "x", "channels": [{{"name": "a", "address": 5, {channel}}},]}}}} // end',
    )

    assert tags_of(draft)["a"] == keys
    assert not draft.remarks
    assert faults_of(texts(draft, driver="modbus")) == []


# What all of them share

_SCALARS: Final = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=12)
_FLOATS: Final = st.floats(allow_nan=False, allow_infinity=False)


@given(st.recursive(_SCALARS | _FLOATS, lambda one: st.lists(one, max_size=4), max_leaves=6))
@example(["on", "1e3", "0x10", "2024-01-01", "~", "a: b", "- a", "{", "#", "null", "1_000", "\x85", "é", ""])
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back_as_it_was(value: object) -> None:
    node, faults = read_yaml(f"a: {flow(value)}\n".encode(), "x")

    assert not faults
    assert node is not None
    assert plain(node) == {"a": value}


@given(st.text(max_size=80))
def test_every_name_is_legal(text: str) -> None:
    assert is_name(name_of(text, "tag"))


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("0x1F", 31), ("-0x1", -1), ("1.5", 1.5), ("", None), ("a", None), ("inf", None),
     ("nan", None), ("9" * 50, None), (True, None), (None, None)],
)  # fmt: skip
def test_numbers_of_other_programs(text: object, number: object) -> None:
    assert number_of(text) == number


def test_remarks_are_in_the_order_of_the_file() -> None:
    basket = Basket("a file", "x")
    basket.remark(Place("x", 9, 1), "late")
    basket.remark(Place("x", 2, 1), "early")

    assert remarks_of(basket.close()) == ["x:2:1: early", "x:9:1: late"]


_KEYS: Final = st.sampled_from(
    ["master", "slaves", "server", "devices", "timeseries", "rpc", "tag", "type", "functionCode", "address",
     "ports", "device", "channels", "name", "reg_type", "format", "slave_id", "unitId", "host", "port",
     "modbus", "sensors", "switches", "climates", "covers", "slave", "data_type", "scale", "offset", "verify",
     "inputs", "request", "fields", "controller", "holding_registers", "scan_interval", "virtual_count"]
)  # fmt: skip
_VALUES: Final = (
    st.none() | st.booleans() | st.integers(-5, 70_000) | _FLOATS
    | st.sampled_from(["int", "16int", "u16", "holding", "coil", "0x10", "1:2:3", "float32", "serial", ""])
)  # fmt: skip
_TREES: Final = st.recursive(
    _VALUES,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(_KEYS, one, max_size=5),
    max_leaves=25,
)


@given(_TREES)
@settings(max_examples=300, deadline=None)
def test_no_tree_however_odd_breaks_an_importer(tree: object) -> None:
    """Whatever the shape: a draft that can be written, or a ConfigError."""
    text = flow(tree)
    for kind in ("thingsboard", "wb-mqtt-serial", "homeassistant"):
        try:
            draft = draft_of(kind, f"{text}\n")
        except ConfigError:
            continue
        for made in texts(draft, driver="modbus").values():
            _, faults = read_yaml(made.encode(), "x")
            assert not faults


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_an_importer(kind: str, data: bytes) -> None:
    with suppress(ConfigError):
        draft_of(kind, data)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_no_damage_breaks_an_importer(name: str, data: st.DataObject) -> None:
    """Real files with a piece cut out or put in elsewhere."""
    good = next((CASES / name).glob("input.*")).read_bytes()
    start, end, to = (data.draw(st.integers(0, len(good))) for _ in range(3))
    bad = good[:start] + good[max(start, end) :]
    bad = bad[:to] + good[start : start + 30] + bad[to:]
    kind = name.partition("-")[0]
    try:
        draft = draft_of(KINDS.get(kind, kind), bad)
    except ConfigError:
        return
    for text in texts(draft, driver="modbus").values():
        _, faults = read_yaml(text.encode(), "x")
        assert not faults


def write_cases() -> None:
    """Write what is expected of every case."""
    for name in NAMES:
        for file, text in result(name).items():
            (CASES / name / file).parent.mkdir(exist_ok=True)
            (CASES / name / file).write_text(text)


if __name__ == "__main__" and os.environ.get("CI") is None:
    write_cases()

"""Scalars, places, and that no text at all brings the reader down."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.load import check
from gateway.config.reader import DEPTH_MAX, FAULTS_MAX, FILE_BYTES_MAX, read
from gateway.config.scalars import BadScalar, clip, resolve
from gateway.config.tree import Mapping, Scalar, place_of, plain
from tests.config.kinds import kinds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # YAML 1.2.2 §10.3.2, the table of the core schema
        ("null", None), ("Null", None), ("NULL", None), ("~", None), ("", None),
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False), ("FALSE", False),
        ("0", 0), ("-19", -19), ("+12", 12), ("0o14", 12), ("0x3A", 58),
        ("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("+12e03", 12000.0), ("-2E+05", -200000.0),
        (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf),
        # text, whatever YAML 1.1 made of it
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("1:20", "1:20"),
        ("2001-12-14", "2001-12-14"), ("1_000", "1_000"), ("0b1", "0b1"), ("tRue", "tRue"),
        ("10.0.0.1", "10.0.0.1"),
        ("-", "-"), (".", "."), ("hr:109", "hr:109"), ("200ms", "200ms"), ("0x", "0x"),
    ],
)  # fmt: skip
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_not_a_number_is_a_number() -> None:
    found = resolve(".nan")
    assert isinstance(found, float)
    assert math.isnan(found)


@pytest.mark.parametrize("text", ["007", "00", "-01", "00.5", "010e2", "+08"])
def test_leading_zeros_are_refused(text: str) -> None:
    with pytest.raises(BadScalar, match="leading zero"):
        resolve(text)


def test_an_endless_number_is_refused() -> None:
    for text in ("9" * 5000, "0x" + "f" * 5000, "1." + "0" * 5000):
        with pytest.raises(BadScalar, match="characters"):
            resolve(text)


def test_every_key_and_value_knows_its_place() -> None:
    node, faults = read("a: 1\nb:\n  - x\n  - {c: 'd', é: [1, 2]}\n".encode(), "f.yaml")
    assert not faults
    assert isinstance(node, Mapping)
    assert plain(node) == {"a": 1, "b": ["x", {"c": "d", "é": [1, 2]}]}
    assert str(place_of(node, ("a",))) == "f.yaml:1:4"
    assert str(place_of(node, ("b", 1, "c"))) == "f.yaml:4:9"
    assert str(place_of(node, ("b", 1, "é", 1))) == "f.yaml:4:21"
    assert str(place_of(node, ("b", 1, "missing"))) == "f.yaml:4:5"


def test_both_parsers_of_pyyaml_give_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = list(Path(__file__).parents[2].glob("configs/**/*.yaml"))
    samples += Path(__file__).parents[1].glob("cases/config/*/gateway.yaml")
    assert len(samples) > 20
    fast = [read(path.read_bytes(), "f") for path in samples]
    monkeypatch.delattr(yaml, "CBaseLoader")
    for path, (node, faults) in zip(samples, fast, strict=True):
        slow, slow_faults = read(path.read_bytes(), "f")
        assert (node is None) == (slow is None), path
        if node is not None and slow is not None:
            assert plain(node) == plain(slow), path
            assert _places(node) == _places(slow), path
            assert faults == slow_faults, path


def _places(node: object) -> list[str]:
    if isinstance(node, Scalar):
        return [str(node.place)]
    if isinstance(node, Mapping):
        own = [str(place) for place in node.places.values()]
        return own + [place for child in node.items.values() for place in _places(child)]
    return [place for child in node.items for place in _places(child)]  # type: ignore[attr-defined]  # a Sequence


def test_a_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    node, faults = read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "f")
    assert not faults
    assert node is not None
    assert plain(node) == {"a": 1, "b": 2}


def test_what_is_not_utf8_is_pointed_at() -> None:
    node, faults = read(b"a: 1\nb: caf\xe9\n", "f")
    assert node is None
    assert [str(fault) for fault in faults] == ["f:2:7: found the byte 0xe9, expected text in UTF-8"]


def test_depth_size_and_faults_are_bounded() -> None:
    node, faults = read(b"[" * (DEPTH_MAX + 1), "f")
    assert node is None
    assert "levels" in str(faults[-1])
    node, faults = read(b" " * (FILE_BYTES_MAX + 1), "f")
    assert node is None
    assert "bytes" in str(faults[0])
    node, faults = read(b"- 01\n" * (FAULTS_MAX + 5), "f")
    assert node is None
    assert len(faults) == FAULTS_MAX


def test_messages_carry_no_control_characters_and_no_passwords() -> None:
    assert clip("a\x1b[31m\n") == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}"
    assert clip("mqtt://joe:secret@broker") == "mqtt://***@broker"
    assert len(clip("x" * 1000)) == 60


YAMLISH = st.text(
    st.sampled_from(list("ab:- \n\t'\"[]{},&*!|>#%@`?<~0.1${}/\\x\u00e9\x00\x85")), max_size=200
)
SECTIONS = st.sampled_from(
    "links scan templates devices uplinks publish commands include http journal gateway version".split()
)
KEYS = st.sampled_from(
    "driver host link unit tags use defaults at type kind url topic match uplink a every write range enum "
    "scan fields report attributes invalid scale forbid bit order deadband buffer rule".split()
) | st.just(1)
WORDS = st.sampled_from("modbus mqtt a co:0 hr:1 */* 1s {tag} mqtt://a float32 2% a/{device} uint16".split())
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


LINE = re.compile(r"[^:]+:[0-9]+:[0-9]+: found .+, expected .+", re.DOTALL)


def is_line(text: str) -> bool:
    """`file:line:column: found …, expected …`."""
    return LINE.fullmatch(text) is not None


@given(st.one_of(st.binary(max_size=200), YAMLISH.map(str.encode)))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_tree_or_faults(data: bytes) -> None:
    node, faults = read(data, "f")
    assert all(is_line(str(fault)) for fault in faults)
    if node is not None:
        plain(node)


@given(st.dictionaries(SECTIONS, VALUES, max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_tree_gives_a_site_or_faults(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "gateway": {"name": "g"}, **data}, allow_unicode=True))
    report = check(path, kinds())
    assert (report.site is None) == bool(report.errors)
    assert all(is_line(line) for line in (*report.errors, *report.warnings))

"""Topic templates, their filters and their way back."""

from __future__ import annotations

import pytest

from gateway.translate.faults import RuleError
from gateway.translate.topic import TopicTemplate, check_topic

NAMES = {"site": "north", "gateway": "gw1", "device": "pump-07", "tag": "sp", "link": "plc1"}


def test_a_topic_is_rendered_as_utf8() -> None:
    topic = TopicTemplate("plant/{site}/{device}-{link}/{tag}")
    assert topic.render(NAMES | {"tag": "Drück"}) == "plant/north/pump-07-plc1/Drück".encode()
    assert topic.names == ("site", "device", "link", "tag")


@pytest.mark.parametrize(
    ("template", "constants", "expected"),
    [
        ("plant/{site}/{device}/{tag}/set", ("site",), "plant/north/+/+/set"),
        ("{gateway}/{device}.{tag}/set", ("gateway",), "gw1/+/set"),
        ("{gateway}/set", ("gateway",), "gw1/set"),
    ],
)
def test_what_varies_is_a_wildcard_level(template: str, constants: tuple[str, ...], expected: str) -> None:
    assert TopicTemplate(template).filter({name: NAMES[name] for name in constants}) == expected


def test_a_template_finds_its_parts_again() -> None:
    pattern = TopicTemplate("a.c/{site}/{device}/{device}-{tag}").pattern({"site": "n+"})
    found = pattern.fullmatch("a.c/n+/p-1/p-1-sp")
    assert found
    assert found.groupdict() == {"device": "p-1", "tag": "sp"}
    assert not pattern.fullmatch("abc/n+/p-1/p-1-sp")
    assert not pattern.fullmatch("a.c/n+/p-1/p-2-sp")


@pytest.mark.parametrize(
    "text", ["", "/a", "a/", "a//b", "a/+/b", "a/#", "a\0", "{tag", "tag}", "{}", "{nope}"]
)
def test_a_faulty_template_is_found(text: str) -> None:
    assert {problem.path for problem in check_topic(text)} == {("topic",)}
    with pytest.raises(RuleError):
        TopicTemplate(text)


def test_an_attribute_may_be_named_and_have_levels() -> None:
    topic = TopicTemplate("p/{area}/{tag}", attributes=["area"])
    assert topic.render(NAMES | {"area": "hall/1"}) == b"p/hall/1/sp"
    with pytest.raises(RuleError, match="empty level"):
        topic.render(NAMES | {"area": "hall//1"})
    with pytest.raises(RuleError, match=r"\{area\}, which pump-07/sp does not have"):
        topic.render(NAMES)

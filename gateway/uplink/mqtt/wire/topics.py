"""Topic Names and Topic Filters (MQTT 5.0 §4.7, §4.8.2): what may be published to and subscribed to."""

from __future__ import annotations

from gateway.uplink.mqtt.wire.terms import STRING_BYTES_MAX


def name_fault(topic: bytes) -> str:
    """What is wrong with a Topic Name: "" for nothing (§4.7.1, §4.7.3, §1.5.4)."""
    if not topic:
        return "an empty topic name, expected at least one character (MQTT 5.0 section 4.7.3)"
    if len(topic) > STRING_BYTES_MAX:
        return f"{len(topic)} bytes, expected at most {STRING_BYTES_MAX} (MQTT 5.0 section 4.7.3)"
    if b"+" in topic or b"#" in topic:
        return "a wildcard, expected a topic name without + and # (MQTT 5.0 section 4.7.1)"
    if b"\0" in topic:
        return "U+0000, expected a topic name without it (MQTT 5.0 section 4.7.3)"
    try:
        topic.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"ill-formed UTF-8 ({error.reason}) (MQTT 5.0 section 1.5.4)"
    return ""


def filter_fault(topic_filter: str) -> str:
    """What is wrong with a Topic Filter, shared or not: "" for nothing (§4.7.1, §4.7.3, §4.8.2)."""
    levels = topic_filter.split("/")
    if levels[0] == "$share":
        if len(levels) < 3 or not levels[1] or "+" in levels[1] or "#" in levels[1]:
            return "a share without name and filter, expected $share/NAME/FILTER (MQTT 5.0 section 4.8.2)"
        levels = levels[2:]
        if levels == [""]:
            return "a share without a filter, expected $share/NAME/FILTER (MQTT 5.0 section 4.8.2)"
    if not topic_filter:
        return "an empty topic filter, expected at least one character (MQTT 5.0 section 4.7.3)"
    if "\0" in topic_filter:
        return "U+0000, expected a topic filter without it (MQTT 5.0 section 4.7.3)"
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return "# inside, expected it alone as the last level (MQTT 5.0 section 4.7.1.2)"
    if any("+" in level and level != "+" for level in levels):
        return "+ beside other characters, expected it alone in its level (MQTT 5.0 section 4.7.1.3)"
    return ""


def is_shared(topic_filter: str) -> bool:
    """Whether it is a Shared Subscription (§4.8.2)."""
    return topic_filter.startswith("$share/")


def has_wildcard(topic_filter: str) -> bool:
    """Whether it matches more than one topic (§4.7.1)."""
    return "+" in topic_filter or "#" in topic_filter

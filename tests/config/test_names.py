"""Names: what may be one, as a key and as a value."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.config.model import Name
from gateway.config.values import NAME_SIZE_MAX, is_name


def is_taken(value: object) -> bool:
    """Whether a field that holds a name takes it."""
    try:
        TypeAdapter(Name).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("a", True), ("pump-07.speed_2", True), ("Größe", True), ("7", True), ("x" * NAME_SIZE_MAX, True),
        ("x" * (NAME_SIZE_MAX + 1), False), ("", False), ("_a", False), ("-a", False), ("a b", False),
        ("a/b", False), ("a+", False), ("a\n", False), ("{a}", False),
    ],
)  # fmt: skip
def test_a_name_is_one_as_a_key_and_as_a_value(value: str, is_one: bool) -> None:
    assert is_name(value) is is_one
    assert is_taken(value) is is_one

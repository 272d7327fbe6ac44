"""The schema in the repository is that of the models, and the examples are valid under it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gateway.config.reader import read
from gateway.config.schema import schema, schema_text
from gateway.config.tree import plain
from tests.config.kinds import kinds

CONFIGS = Path(__file__).parents[2] / "configs"
CASES = Path(__file__).parents[1] / "cases" / "config"


def test_the_schema_in_the_repository_is_fresh() -> None:
    assert (CONFIGS / "gateway.schema.json").read_text() == schema_text(kinds()), "run `gateway schema`"


def test_the_schema_is_the_same_each_time() -> None:
    assert schema_text(kinds()) == schema_text(kinds())


def test_every_key_that_users_write_is_explained() -> None:
    for name, definition in schema(kinds())["$defs"].items():
        for key, one in _properties(definition):
            assert "description" in one or "$ref" in one or key in {"raw", "eu", "word", "byte"}, (
                f"{name}.{key}"
            )


def _properties(definition: Any) -> list[tuple[str, Any]]:
    found = list(definition.get("properties", {}).items())
    for choice in definition.get("anyOf", ()):
        found += _properties(choice)
    return found


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("**/*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    assert faults_of(path) == []


@pytest.mark.parametrize(
    "case",
    [
        "unknown-section",
        "unknown-key-near-name",
        "link-values",
        "tag-types",
        "version-unknown",
        "scan-classes",
    ],
)
def test_faulty_files_are_not_valid(case: str) -> None:
    assert faults_of(CASES / case / "gateway.yaml")


def faults_of(path: Path) -> list[str]:
    node, _ = read(path.read_bytes(), path.name)
    assert node is not None
    document = json.loads(json.dumps(plain(node)))  # as an editor sees it: keys are text
    root = schema(kinds())
    return list(_Validator(root).faults(document, root, "$"))


class _Validator:
    """As much of JSON Schema 2020-12 as our schema uses; an unknown keyword fails the test."""

    KNOWN = frozenset(
        "$schema $defs $ref title description default type properties additionalProperties required items "
        "enum const anyOf oneOf not pattern propertyNames minimum maximum minItems maxItems minLength "
        "maxLength".split()
    )
    TYPES: ClassVar[dict[str, Any]] = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
        "null": type(None),
    }  # fmt: skip

    def __init__(self, root: Any) -> None:
        self.root = root

    def faults(self, value: Any, one: Any, at: str) -> list[str]:
        if isinstance(one, bool):
            return [] if one else [f"{at}: refused"]
        assert set(one) <= self.KNOWN, set(one) - self.KNOWN
        found: list[str] = []
        if "$ref" in one:
            found += self.faults(value, self.root["$defs"][one["$ref"].rpartition("/")[2]], at)
        found += self.choices(value, one, at)
        if "type" in one:
            types = one["type"] if isinstance(one["type"], list) else [one["type"]]
            if not any(self.is_type(value, name) for name in types):
                return [*found, f"{at}: {value!r} is no {types}"]
        if isinstance(value, dict):
            found += self.mapping(value, one, at)
        elif isinstance(value, list):
            found += [
                f
                for n, item in enumerate(value)
                for f in self.faults(item, one.get("items", True), f"{at}[{n}]")
            ]
            if not one.get("minItems", 0) <= len(value) <= one.get("maxItems", len(value)):
                found.append(f"{at}: {len(value)} items")
        elif isinstance(value, str):
            if "pattern" in one and not re.search(one["pattern"], value):
                found.append(f"{at}: {value!r} !~ {one['pattern']}")
            if not one.get("minLength", 0) <= len(value) <= one.get("maxLength", len(value)):
                found.append(f"{at}: length of {value!r}")
        elif self.is_type(value, "number") and not one.get("minimum", value) <= value <= one.get(
            "maximum", value
        ):
            found.append(f"{at}: {value} out of bounds")
        return found

    def is_type(self, value: Any, name: str) -> bool:
        return isinstance(value, self.TYPES[name]) and (name == "boolean" or not isinstance(value, bool))

    def choices(self, value: Any, one: Any, at: str) -> list[str]:
        found: list[str] = []
        if "enum" in one and value not in one["enum"]:
            found.append(f"{at}: {value!r} not in {one['enum']}")
        if "const" in one and value != one["const"]:
            found.append(f"{at}: {value!r} is not {one['const']!r}")
        if "anyOf" in one and all(self.faults(value, choice, at) for choice in one["anyOf"]):
            found.append(
                f"{at}: none of anyOf: {[self.faults(value, choice, at) for choice in one['anyOf']]}"
            )
        if "oneOf" in one and sum(not self.faults(value, choice, at) for choice in one["oneOf"]) != 1:
            found.append(f"{at}: not one of oneOf")
        if "not" in one and not self.faults(value, one["not"], at):
            found.append(f"{at}: is what it must not be")
        return found

    def mapping(self, value: dict[str, Any], one: Any, at: str) -> list[str]:
        found = [f"{at}: no {key}" for key in one.get("required", ()) if key not in value]
        for key, child in value.items():
            if "propertyNames" in one:
                found += self.faults(key, one["propertyNames"], f"{at}.{key}")
            inner = one.get("properties", {}).get(key, one.get("additionalProperties", True))
            found += self.faults(child, inner, f"{at}.{key}")
        return found

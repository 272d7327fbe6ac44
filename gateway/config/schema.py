"""JSON Schema of the whole file, made from the models, so that editors complete and explain what users write.

A schema sees one file at a time: references, templates and topics are checked by `check`. As templates may
give what a device does not say, no key of a device or tag is required, and each may be null, which removes a
template's.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from gateway.config.journal import JournalSection
from gateway.config.kinds import DriverModels, Kinds, ServerModels
from gateway.config.model import Model
from gateway.config.models import Commands, GatewaySection, HttpSection, ScanSection
from gateway.config.publish import Publish
from gateway.config.repeat import REPEAT_SCHEMA
from gateway.config.values import DURATION_SCHEMA, NAME

Schema = dict[str, Any]
DIALECT: Final = GenerateJsonSchema.schema_dialect  # https://json-schema.org/draft/2020-12/schema
_NAME_PATTERN: Final = r"^[^\s/+#{}]{1,128}$"  # wider than NAME: what \w means differs between editors
_TAG_NAME_PATTERN: Final = r"^([^\s/+#{}]|\{n\}){1,128}$"
_REFERENCE: Final = "#/$defs/"


def schema(kinds: Kinds) -> Schema:
    """The schema of gateway.yaml and of the files it includes, JSON Schema 2020-12."""
    named: dict[str, list[type[Model]]] = {
        "link": [link for models in kinds.drivers.values() for link in _links(models)],
        "device": [models.device for models in kinds.drivers.values()],
        "tag": [models.tag for models in kinds.drivers.values()],
        "uplink": list(kinds.uplinks.values()),
    }
    served = [models.server for models in kinds.drivers.values() if models.server is not None]
    named["exposure"] = [model for one in served for model in (one.exposure, one.point)]
    single: list[type[Model]] = [GatewaySection, HttpSection, JournalSection, ScanSection, Publish, Commands]
    every = single + [model for models in named.values() for model in models]
    _, generated = models_json_schema([(model, "validation") for model in every], by_alias=True)
    definitions: Schema = {name: _tidy(one) for name, one in generated["$defs"].items()}
    for name in _reachable(definitions, [_ref(model) for model in named["device"] + named["tag"]]):
        _loosen(definitions[name])
    for model in named["tag"]:
        definitions[model.__name__]["properties"]["repeat"] = REPEAT_SCHEMA
    definitions["scan"] = {"anyOf": [dict(DURATION_SCHEMA), {"const": "continuous"}, _ref(ScanSection)]}
    definitions["template"] = {
        "anyOf": [_device(definitions, models.device, models.tag, ()) for models in _drivers(kinds)]
    }
    definitions["device"] = {
        "anyOf": [_device(definitions, models.device, models.tag, ("use",)) for models in _drivers(kinds)]
    }
    definitions["exposure"] = {"anyOf": [_exposure(definitions, one) for one in served]}
    properties = _sections(named)
    wanted = _reachable(definitions, properties)
    return {
        "$schema": DIALECT,
        "title": "Edge gateway configuration",
        "description": "gateway.yaml and the files it includes. `gateway check` finds what a schema "
        "cannot see.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": {name: definitions[name] for name in sorted(wanted)},
    }


def schema_text(kinds: Kinds) -> str:
    """The schema as the file configs/gateway.schema.json holds it; the same for the same models."""
    return json.dumps(schema(kinds), indent=2, ensure_ascii=False) + "\n"


def _drivers(kinds: Kinds) -> Iterable[Any]:
    return kinds.drivers.values()


def _sections(named: dict[str, list[type[Model]]]) -> Schema:
    return {
        "version": {"const": 1, "description": "Version of this format."},
        "gateway": _ref(GatewaySection),
        "include": {
            "description": "Files with further sections, relative to this one; `*` is any name.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        },
        "http": _ref(HttpSection),
        "journal": _ref(JournalSection),
        "links": _named("Links: one wire, one queue, one owner.", _any(named["link"])),
        "scan": _named("Scan classes: how often tags are read.", {"$ref": f"{_REFERENCE}scan"}),
        "templates": _named("What equal devices share.", {"$ref": f"{_REFERENCE}template"}),
        "devices": _named("Devices and their tags.", {"$ref": f"{_REFERENCE}device"}),
        "uplinks": _named("Where values go and commands come from.", _any(named["uplink"])),
        "publish": _listed("Which tags go where and how; every rule that matches fires.", Publish),
        "commands": _listed("Where commands come from and where their results go.", Commands),
        "expose": {
            "description": "Which points show on which server, and where.",
            "type": ["array", "null"],
            "items": {"$ref": f"{_REFERENCE}exposure"},
        },
    }


def _ref(model: type[Model]) -> Schema:
    return {"$ref": f"{_REFERENCE}{model.__name__}"}


def _any(models: list[type[Model]]) -> Schema:
    """One of the kinds; `driver` or `kind` is a constant in each, which tells them apart."""
    return _ref(models[0]) if len(models) == 1 else {"oneOf": [_ref(model) for model in models]}


def _named(description: str, item: Schema) -> Schema:
    return {
        "description": description,
        "type": ["object", "null"],
        "propertyNames": {"pattern": _NAME_PATTERN},
        "additionalProperties": item,
    }


def _listed(description: str, model: type[Model]) -> Schema:
    return {"description": description, "type": ["array", "null"], "items": _ref(model)}


def _links(models: DriverModels) -> list[type[Model]]:
    return [models.link] if models.server is None else [models.link, models.server.link]


def _exposure(definitions: Schema, models: ServerModels) -> Schema:
    """An entry of `expose` with its points."""
    result: Schema = copy.deepcopy(definitions[models.exposure.__name__])
    result["properties"]["points"] = {
        "description": "Points by device/tag; `*` is any text, with `stride` between their addresses.",
        "type": "object",
        "additionalProperties": _ref(models.point),
    }
    result["required"] = [*result.get("required", ()), "points"]
    return result


def _device(definitions: Schema, device: type[Model], tag: type[Model], keys: tuple[str, ...]) -> Schema:
    """A device with what templates add: `tags`, `defaults` and, in a device, `use`."""
    result: Schema = copy.deepcopy(definitions[device.__name__])
    reference = _ref(tag)
    extra: Schema = {
        "use": {"type": "string", "description": "Name of the template."},
        "defaults": {**reference, "description": "What tags say that do not say it themselves."},
        "tags": {
            "description": "Tags by name; null removes a tag of the template.",
            "type": ["object", "null"],
            "propertyNames": {"pattern": _TAG_NAME_PATTERN},
            "additionalProperties": {"anyOf": [reference, {"type": "null"}]},
        },
    }
    if not keys:
        del extra["use"]
    result["properties"] = {**extra, **result["properties"]}
    return result


def _reachable(definitions: Schema, start: Any) -> set[str]:
    """Names of the definitions that `start` refers to, directly or through others."""
    names: set[str] = set()
    waiting = [start]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
            name = str(one.get("$ref", "")).removeprefix(_REFERENCE)
            if name in definitions and name not in names:
                names.add(name)
                waiting.append(definitions[name])
    return names


def _loosen(definition: Schema) -> None:
    """Nothing required, and null allowed: a template may give it, and null removes what it gives."""
    definition.pop("required", None)
    for key, one in definition.get("properties", {}).items():
        definition["properties"][key] = _nullable(one)


def _nullable(one: Schema) -> Schema:
    rest = {key: value for key, value in one.items() if key in {"description", "default"}}
    inner = {key: value for key, value in one.items() if key not in rest}
    choices = list(inner["anyOf"]) if set(inner) == {"anyOf"} else [inner]
    if {"type": "null"} not in choices:
        choices.append({"type": "null"})
    return {"anyOf": choices, **rest}


def _tidy(one: Any) -> Any:
    """Without the generated titles, which repeat the key, and without null defaults, which say nothing."""
    if isinstance(one, list):
        return [_tidy(item) for item in one]
    if not isinstance(one, dict):
        return one
    tidy: Schema = {}
    for key, value in one.items():
        if key == "properties":
            tidy[key] = {name: _tidy(item) for name, item in value.items()}
        elif key == "pattern" and value == NAME:
            tidy[key] = _NAME_PATTERN
        elif (key == "title" and isinstance(value, str)) or (key == "default" and value is None):
            continue
        else:
            tidy[key] = _tidy(value)
    return tidy

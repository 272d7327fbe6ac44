"""Tables of keys for docs/configuration.md, made from the models: key, default, what it is."""

from __future__ import annotations

from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.config.model import Model

_REQUIRED: Final = "required"


def key_table(model: type[Model]) -> str:
    """A Markdown table of the keys of a model, in the order of the model."""
    lines = ["| key | default | what it is |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{field.alias or name}` | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return _REQUIRED
    if field.default is PydanticUndefined or field.default in (None, ""):
        return ""
    return f"`{_text(field.default)}`"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return str(value)

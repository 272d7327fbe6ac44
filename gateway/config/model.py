"""What every section that users write is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gateway.config.values import NAME, NAME_SIZE_MAX, fault
from gateway.core.errors import Problem

Name = Annotated[str, Field(pattern=NAME, max_length=NAME_SIZE_MAX)]


PLACEHOLDERS: Final = ("site", "gateway", "device", "tag", "link", "template", "unit", "scan")


"""What every topic may name; `unit` is the device's number on its link. A device's `attributes`
come on top."""


ModelT = TypeVar("ModelT", bound=BaseModel)


class Model(BaseModel):
    """Strict, frozen, knows its keys; `problems` says what single fields cannot show."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    def problems(self) -> Iterable[Problem]:
        """Faults between fields, with paths from this model on."""
        return ()


class NotYet(msgspec.Struct, frozen=True):
    """`Annotated[Literal[…], NotYet(("thin",), "…")]`: words that users know and that are not there yet."""

    words: tuple[str, ...]
    expected: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def refuse(value: object) -> object:
            if value in self.words:
                raise fault(f"'{value}', which is not there yet", self.expected)
            return value

        return core_schema.no_info_before_validator_function(refuse, handler(source))


def defaults(model: type[ModelT]) -> Callable[[], ModelT]:
    """For `Field(default_factory=…)`: a nested section that the user did not write."""
    return lambda: model.model_validate({})

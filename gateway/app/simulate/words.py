"""What people type to a running simulator: `fault unit=3,kind=drop`, `clear 1`, `set pump-07/speed 12`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from drivers.modbus.simulator.faults import Faults, parse
from drivers.modbus.simulator.units import Units
from gateway.config.scalars import choice
from gateway.core.point import Value

HELP: Final = "fault RULE · clear [NUMBER] · faults · set DEVICE/TAG VALUE · release DEVICE/TAG · quit"


class Quit(Exception):
    """Somebody wants the end."""


class Words:
    """Carries out one line after another; every line gets an answer."""

    def __init__(self, faults: Faults, units: Iterable[Units]) -> None:
        self._faults: Final = faults
        self._units: Final = tuple(units)

    def obey(self, line: str) -> str:
        """What was done, or what is wrong with the line; "" for an empty one. Raises `Quit`."""
        verb, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        try:
            match verb:
                case "":
                    return ""
                case "fault":
                    number = self._faults.add(parse(rest))
                    return f"fault {number}: {self._faults.rules[-1].fault}"
                case "clear":
                    return f"{self._faults.clear(_number(rest))} gone"
                case "faults":
                    listed = [
                        f"{rule.number}: {rule.fault} (struck {rule.struck})" for rule in self._faults.rules
                    ]
                    return "; ".join(listed) or "no faults"
                case "set":
                    name, _, text = rest.partition(" ")
                    value = _value(text.strip())
                    self._of(name).hold(name, value)
                    return f"{name} = {value!r}, until `release {name}`"
                case "release":
                    self._of(rest).release(rest)
                    return f"{rest} moves again"
                case "help" | "?":
                    return HELP
                case "quit" | "exit":
                    raise Quit
                case _ if "=" in line:
                    return self.obey(f"fault {line}")
                case _:
                    known = ("fault", "clear", "faults", "set", "release", "quit")
                    return f"found {verb!r}, expected {choice(verb, known)}"
        except ValueError as error:
            return str(error)

    def _of(self, name: str) -> Units:
        known = [
            found for units in self._units for registers in units.units.values() for found in registers.items
        ]
        for units in self._units:
            if any(name in registers.items for registers in units.units.values()):
                return units
        raise ValueError(f"found no {name!r}, expected {choice(name, known)}")


def _number(text: str) -> int | None:
    if not text or text == "all":
        return None
    if not text.isdecimal():
        raise ValueError(f"found {text!r}, expected the number of a fault, or nothing for all")
    return int(text)


def _value(text: str) -> Value:
    """JSON where it is: 12, 1.5, true; else text."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"found {text!r}, expected a number, true, false or a text")

"""Conversions of units: every pair back and forth, and values that pint 0.25 gives for the same."""

from __future__ import annotations

import math

import pytest

from gateway.core.point import ValueType
from gateway.translate.expression import Kind, compile_expression
from gateway.translate.expression_inverse import invert
from gateway.translate.units import QUANTITIES, UnitError, conversion


@pytest.mark.parametrize(
    ("value", "source", "target", "result"),
    [
        (14.7, "psi", "bar", 1.0135293220957495),
        (98.6, "°F", "°C", 37.00000000000006),
        (-40.0, "°C", "°F", -40.000000000000064),
        (300.0, "K", "°F", 80.32999999999997),
        (1.0, "atm", "psi", 14.695948775513447),
        (2.5, "kgf/cm²", "bar", 2.4516625000000003),
        (10.0, "gal", "L", 37.85411783999999),
        (100.0, "gal/min", "m³/h", 22.712470703999994),
        (500.0, "ft³/min", "L/s", 235.97372159999992),
        (6.0, "ft", "m", 1.8287999999999998),
        (3.0, "lb", "g", 1360.7771100000002),
        (50.0, "lbf", "N", 222.41108076302504),
        (1.5, "kWh", "MJ", 5.3999999999999995),
        (60.0, "mi/h", "km/h", 96.56064),
        (7.0, "oz", "kg", 0.19844666187500004),
    ],
)
def test_values_of_a_library_that_nobody_here_wrote(
    value: float, source: str, target: str, result: float
) -> None:
    made = compile_expression(conversion(source, target), value=Kind.FLOAT)
    assert math.isclose(made.call(value), result, rel_tol=1e-13)


def test_every_pair_there_and_back() -> None:
    for units in QUANTITIES.values():
        for source in units:
            for target in units:
                there = compile_expression(conversion(source, target), value=Kind.FLOAT)
                back = invert(there, into=ValueType.FLOAT)
                assert back is not None
                for value in (0.0, -40.0, 123.456):
                    found = back(there.call(value))
                    assert isinstance(found, float)
                    assert math.isclose(found, value, rel_tol=1e-12, abs_tol=1e-9), (source, target)


def test_what_ends_meet_exactly() -> None:
    for value, source, target, result in (
        (212.0, "°F", "°C", 100.0), (-40.0, "°F", "°C", -40.0), (25.0, "°C", "K", 298.15),
        (1.0, "in", "mm", 25.4), (90.0, "rpm", "Hz", 1.5), (1.0, "bar", "kPa", 100.0),
        (3.6, "km/h", "m/s", 1.0),
    ):  # fmt: skip
        found = compile_expression(conversion(source, target), value=Kind.FLOAT).call(value)
        assert math.isclose(found, result, rel_tol=1e-15), (source, target, found)
    assert conversion("bar", "bar") == "value"


def test_units_that_are_not_there_or_not_of_one_kind() -> None:
    with pytest.raises(UnitError, match="did you mean 'bar'"):
        conversion("psi", "baar")
    with pytest.raises(UnitError, match="from: found the unit 'cal'"):
        conversion("cal", "J")
    with pytest.raises(UnitError, match="to: found 'm' for 'psi', expected one of Pa"):
        conversion("psi", "m")

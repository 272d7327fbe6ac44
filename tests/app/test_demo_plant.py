"""The simulated plant obeys physics, whatever happens to its set-points."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.demo.plant import AMBIENT_C, Boiler, BoilerState, Meter, Plant, Tank


def silence(_sigma: float) -> float:
    return 0.0


def noise_of(seed: int):  # type: ignore[no-untyped-def]  # a closure over one generator
    source = random.Random(seed)
    return lambda sigma: source.gauss(0.0, sigma)


def numbers(part: Boiler | Tank | Meter) -> list[float]:
    found: list[float] = []
    for value in msgspec.structs.astuple(part):
        found += value if isinstance(value, tuple) else [value] if isinstance(value, (int, float)) else []
    return [float(number) for number in found]


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    moves=st.lists(
        st.tuples(
            st.floats(30.0, 90.0), st.floats(0.0, 1.0), st.booleans(), st.booleans(), st.floats(0.0, 400.0)
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_hours_of_anything_stay_finite_and_within_bounds(
    seed: int, moves: list[tuple[float, float, bool, bool, float]]
) -> None:
    plant, noise = Plant(), noise_of(seed)
    for setpoint, valve, pump, circulation, seconds in moves:
        plant.boiler.setpoint_c, plant.boiler.pump = setpoint, circulation
        plant.tank.valve, plant.tank.pump_enabled = valve, pump
        plant.step(seconds, noise)
        for part in (plant.boiler, plant.tank, plant.meter):
            assert all(math.isfinite(number) for number in numbers(part)), part
        assert 0.0 <= plant.tank.level <= 1.0
        assert 0.0 <= plant.boiler.burner <= 1.0
        assert AMBIENT_C - 1 <= plant.boiler.water_c <= Boiler.LIMIT_C + 5
        assert -1.0 <= plant.meter.cos_phi <= 1.0
        assert all(200.0 < volt < 250.0 for volt in plant.meter.volts)
        assert plant.meter.p_kw >= 0.0


@given(
    water=st.floats(25.0, 100.0),
    burner=st.floats(0.2, 1.0),
    state=st.sampled_from(list(BoilerState)),
    load=st.floats(0.6, 1.4),
    pump=st.booleans(),
)
def test_water_warms_exactly_when_more_heat_goes_in_than_out(
    water: float, burner: float, state: BoilerState, load: float, pump: bool
) -> None:
    boiler = Boiler(water_c=water, setpoint_c=water, burner=burner, state=state, load=load, pump=pump)
    boiler._sequence(0.01)
    boiler._modulate(0.01)
    balance_kw = boiler.heat_kw - boiler.loss_kw
    before = boiler.water_c
    boiler.step(0.05, silence)
    assert boiler.loss_kw >= 0.0
    assert boiler.heat_kw >= 0.0
    if abs(balance_kw) > 5.0:  # the burner's ramp moves by less than that within a step
        assert (boiler.water_c > before) == (balance_kw > 0.0)


def test_energy_of_a_run_is_what_the_water_gained_and_lost() -> None:
    boiler = Boiler(setpoint_c=75.0)
    began, into_kj = boiler.water_c, 0.0
    for _ in range(1200):
        boiler.step(0.05, silence)
        # What a step used: the flame after the step's own modulation, the loss before the water moved.
        into_kj += (boiler.heat_kw - _loss_before(boiler)) * 0.05
    assert into_kj == pytest.approx((boiler.water_c - began) * Boiler.HEAT_KJ_PER_K, rel=0.01)
    assert boiler.water_c > began + 5.0


def _loss_before(boiler: Boiler) -> float:
    rise = (boiler.heat_kw - boiler.loss_kw) * 0.05 / Boiler.HEAT_KJ_PER_K
    return boiler.loss_kw - boiler.LOSS_KW_PER_K * boiler.load * rise


def test_the_boiler_reaches_a_new_setpoint_and_holds_it() -> None:
    plant = Plant()
    plant.step(60.0, noise_of(1))
    plant.boiler.setpoint_c = 75.0
    before = plant.boiler.water_c
    plant.step(10.0, noise_of(2))
    assert plant.boiler.water_c > before + 1.0, "a viewer must see it move within seconds"
    plant.step(240.0, noise_of(3))
    assert plant.boiler.water_c == pytest.approx(75.0, abs=1.0)


def test_a_boiler_below_its_setpoint_purges_before_it_ignites() -> None:
    boiler = Boiler(water_c=40.0, setpoint_c=60.0, state=BoilerState.STANDBY, burner=0.0)
    seen = [boiler.state]
    for _ in range(200):
        boiler.step(0.05, silence)
        if boiler.state is not seen[-1]:
            seen.append(boiler.state)
    assert seen == [BoilerState.STANDBY, BoilerState.PURGE, BoilerState.IGNITION, BoilerState.HEATING]


def test_overheated_water_trips_the_limiter_and_the_flame_goes_out() -> None:
    boiler = Boiler(water_c=Boiler.LIMIT_C + 1, setpoint_c=90.0)
    boiler.step(0.05, silence)
    assert boiler.state is BoilerState.FAULT
    assert boiler.heat_kw == 0.0


@given(level=st.floats(0.0, 2.0), stem=st.floats(0.0, 1.0), pump=st.booleans())
def test_the_level_follows_the_flows(level: float, stem: float, pump: bool) -> None:
    tank = Tank(level_m=level, stem=stem, valve=stem, pump_running=pump, pump_enabled=pump)
    balance = tank.inflow_m3h - tank.outflow_m3h
    running = tank.pump_running
    tank.step(0.05, silence)
    if tank.pump_running == running and abs(balance) > 0.1 and 0.01 < level < 1.99:
        assert (tank.level_m > level) == (balance > 0.0)


def test_the_pump_starts_high_stops_low_and_counts_its_hours() -> None:
    tank = Tank(level_m=0.9, valve=0.5, stem=0.5)
    began, levels, was = tank.pump_s, list[tuple[bool, float]](), tank.pump_running
    for _ in range(40_000):
        tank.step(0.05, silence)
        if tank.pump_running != was:
            was = tank.pump_running
            levels.append((was, tank.level))
    starts = [level for running, level in levels if running]
    stops = [level for running, level in levels if not running]
    assert starts
    assert stops
    assert all(level == pytest.approx(Tank.START_LEVEL, abs=0.01) for level in starts)
    assert all(level == pytest.approx(Tank.STOP_LEVEL, abs=0.01) for level in stops)
    assert tank.pump_s > began


def test_the_meter_feels_the_pump_start() -> None:
    plant = Plant()
    plant.tank.level_m, plant.tank.valve = 1.29, 1.0
    plant.step(0.05, silence)
    calm_kw, calm_v = plant.meter.p_kw, plant.meter.volts[0]
    while not plant.tank.pump_running:
        plant.step(0.05, silence)
        calm_kw, calm_v = min(calm_kw, plant.meter.p_kw), plant.meter.volts[0]
    inrush_kw = plant.meter.p_kw
    plant.step(0.3, silence)
    assert plant.meter.volts[0] < calm_v - 0.3
    plant.step(5.0, silence)
    assert inrush_kw > plant.meter.p_kw > calm_kw + 1.0
    before = plant.meter.energy_kwh
    plant.step(3600.0, silence)
    assert before + 1.0 < plant.meter.energy_kwh < before + 6.0


def test_three_hours_untouched_stay_plausible() -> None:
    plant = Plant()
    plant.step(3 * 3600.0, noise_of(11))
    assert plant.boiler.water_c == pytest.approx(plant.boiler.setpoint_c, abs=1.5)
    assert 0.3 < plant.tank.level < 0.75
    assert plant.boiler.state is BoilerState.HEATING


def test_the_same_seed_gives_the_same_plant() -> None:
    one, other = Plant(), Plant()
    one.step(100.0, noise_of(7))
    other.step(100.0, noise_of(7))
    assert one == other

"""A small plant as pure dynamics: a hot water boiler, a tank, and the power meter that feeds both.

No clock, no I/O and no randomness of its own: the caller gives the time step and a source of noise, so a run
with the same seed repeats itself. Units are in the names; temperatures are °C.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

Noise: TypeAlias = Callable[[float], float]
"""`noise(sigma)`: one sample of a normal distribution around 0."""

# Longer steps are cut into these: the dynamics stay stable whatever the clock of the caller does.
STEP_S_MAX: Final = 0.1

AMBIENT_C: Final = 20.0


class BoilerState(enum.IntEnum):
    """The burner's sequence, as the boiler reports it."""

    OFF = 0
    PURGE = 1
    IGNITION = 2
    HEATING = 3
    STANDBY = 4
    FAULT = 5


class Boiler(msgspec.Struct, kw_only=True):
    """Water heated by a modulating burner, cooled by the building it heats."""

    setpoint_c: float = 65.0
    water_c: float = 65.0
    burner: float = 0.45  # 0..1 of full power
    state: BoilerState = BoilerState.HEATING
    state_s: float = 0.0  # time spent in this state
    pump: bool = True
    pressure_bar: float = 1.5
    fill_bar: float = 1.2  # cold pressure of the closed circuit; it seeps away slowly and is topped up
    load: float = 1.0  # what the building asks for, around 1
    integral: float = 0.45  # of the PI controller, in burner output

    BURNER_KW = 60.0
    BURNER_MIN = 0.2  # a gas burner cannot burn lower than this: below it, it stops
    LOSS_KW_PER_K = 0.6  # to the building, pump running
    STANDING_LOSS_KW_PER_K = 0.02  # through the insulation, pump stopped
    HEAT_KJ_PER_K = 90.0  # 15 litres in the boiler, the iron around it, and the primary loop
    HYSTERESIS_K = 4.0
    LIMIT_C = 105.0  # safety limiter
    PURGE_S = 3.0
    IGNITION_S = 1.5
    GAIN_PER_K = 0.12
    RESET_S = 25.0
    RAMP_PER_S = 0.12  # the gas valve needs some 8 s from end to end

    @property
    def flame(self) -> bool:
        return self.state is BoilerState.HEATING

    @property
    def low_water(self) -> bool:
        return self.pressure_bar < 0.8

    @property
    def heat_kw(self) -> float:
        """What the flame puts into the water."""
        return self.burner * self.BURNER_KW if self.flame else 0.0

    @property
    def loss_kw(self) -> float:
        """What leaves the water."""
        per_k = self.LOSS_KW_PER_K * self.load if self.pump else self.STANDING_LOSS_KW_PER_K
        return per_k * (self.water_c - AMBIENT_C)

    def step(self, dt_s: float, noise: Noise) -> None:
        self._sequence(dt_s)
        self._modulate(dt_s)
        self.water_c += (self.heat_kw - self.loss_kw) * dt_s / self.HEAT_KJ_PER_K
        # The load wanders like an Ornstein-Uhlenbeck process with a time constant of two minutes.
        self.load += (1.0 - self.load) * dt_s / 120.0 + noise(0.012) * math.sqrt(dt_s)
        self.load = min(max(self.load, 0.6), 1.4)
        self.fill_bar -= 2e-6 * dt_s
        if self.fill_bar < 0.9:
            self.fill_bar = 1.2
        # An expansion vessel: pressure follows the water's expansion, a few seconds late.
        target_bar = self.fill_bar + 0.0085 * max(self.water_c - AMBIENT_C, 0.0)
        self.pressure_bar += (target_bar - self.pressure_bar) * min(dt_s / 4.0, 1.0)

    def _enter(self, state: BoilerState) -> None:
        self.state, self.state_s = state, 0.0

    def _sequence(self, dt_s: float) -> None:
        self.state_s += dt_s
        wanted = self.pump and self.water_c < self.setpoint_c - self.HYSTERESIS_K / 2
        if self.water_c > self.LIMIT_C or self.low_water:
            if self.state is not BoilerState.FAULT:
                self._enter(BoilerState.FAULT)
        elif self.state is BoilerState.FAULT:
            if self.water_c < self.LIMIT_C - 20.0:
                self._enter(BoilerState.STANDBY)
        elif self.state in {BoilerState.OFF, BoilerState.STANDBY}:
            if wanted:
                self._enter(BoilerState.PURGE)
        elif self.state is BoilerState.PURGE:
            if self.state_s >= self.PURGE_S:
                self._enter(BoilerState.IGNITION)
        elif self.state is BoilerState.IGNITION:
            if self.state_s >= self.IGNITION_S:
                self.burner = self.integral = self.BURNER_MIN
                self._enter(BoilerState.HEATING)
        elif self.water_c > self.setpoint_c + self.HYSTERESIS_K:
            self._enter(BoilerState.STANDBY)

    def _modulate(self, dt_s: float) -> None:
        """PI with conditional integration, then the valve's own ramp."""
        if not self.flame:
            self.burner = 0.0
            return
        error = self.setpoint_c - self.water_c
        wanted = self.GAIN_PER_K * error + self.integral
        saturated = (wanted > 1.0 and error > 0.0) or (wanted < self.BURNER_MIN and error < 0.0)
        if not saturated:
            self.integral += self.GAIN_PER_K * error * dt_s / self.RESET_S
        wanted = min(max(wanted, self.BURNER_MIN), 1.0)
        ramp = self.RAMP_PER_S * dt_s
        self.burner += min(max(wanted - self.burner, -ramp), ramp)


class Tank(msgspec.Struct, kw_only=True):
    """Water from a supply through a valve; out by gravity always, and by a pump between two levels."""

    level_m: float = 1.1
    valve: float = 0.45  # 0..1, as commanded
    stem: float = 0.45  # 0..1, where the valve's stem is
    pump_enabled: bool = True
    pump_running: bool = False
    pump_s: float = 4_711 * 3600.0
    supply: float = 1.0  # supply pressure, around 1

    HEIGHT_M = 2.0
    AREA_M2 = 0.35
    INFLOW_M3H_MAX = 45.0
    ORIFICE_M2 = 0.0006
    DISCHARGE = 0.62  # coefficient of a sharp-edged orifice
    PUMP_M3H = 18.0
    START_LEVEL, STOP_LEVEL, HIGH_LEVEL = 0.65, 0.40, 0.90
    STEM_PER_S = 0.08

    @property
    def level(self) -> float:
        """0..1 of the height."""
        return self.level_m / self.HEIGHT_M

    @property
    def high_level(self) -> bool:
        return self.level > self.HIGH_LEVEL

    @property
    def inflow_m3h(self) -> float:
        return 0.0 if self.level_m >= self.HEIGHT_M else self.stem * self.INFLOW_M3H_MAX * self.supply

    @property
    def outflow_m3h(self) -> float:
        """Torricelli through the drain, and the pump."""
        drain = self.DISCHARGE * self.ORIFICE_M2 * math.sqrt(2 * 9.81 * max(self.level_m, 0.0)) * 3600.0
        return drain + (self.PUMP_M3H if self.pump_running else 0.0)

    def step(self, dt_s: float, noise: Noise) -> None:
        travel = self.STEM_PER_S * dt_s
        self.stem += min(max(self.valve - self.stem, -travel), travel)
        self.supply += (1.0 - self.supply) * dt_s / 45.0 + noise(0.006) * math.sqrt(dt_s)
        self.supply = min(max(self.supply, 0.7), 1.3)
        if not self.pump_enabled or self.level < self.STOP_LEVEL:
            self.pump_running = False
        elif self.level > self.START_LEVEL:
            self.pump_running = True
        self.level_m += (self.inflow_m3h - self.outflow_m3h) / 3600.0 * dt_s / self.AREA_M2
        self.level_m = min(max(self.level_m, 0.0), self.HEIGHT_M)
        if self.pump_running:
            self.pump_s += dt_s


class Meter(msgspec.Struct, kw_only=True):
    """Three phases: voltages that sag with the load, currents of two motors, a fan and lights."""

    volts: tuple[float, float, float] = (231.0, 230.2, 231.6)
    amps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    p_kw: float = 0.0
    q_kvar: float = 0.0
    frequency_hz: float = 50.0
    energy_kwh: float = 18_342.0
    lights_kw: float = 1.4
    fan_kw: float = 0.0
    inrush: float = 0.0  # 1 when the tank pump has just started, falling to 0 within a second

    GRID_OHM = 0.12

    @property
    def cos_phi(self) -> float:
        apparent = math.hypot(self.p_kw, self.q_kvar)
        return self.p_kw / apparent if apparent > 1e-6 else 1.0

    def step(self, dt_s: float, noise: Noise, *, boiler: Boiler, tank: Tank, was_running: bool) -> None:
        self.inrush = max(self.inrush * math.exp(-dt_s / 0.4) - 1e-9, 0.0)
        if tank.pump_running and not was_running:
            self.inrush = 1.0
        # The combustion fan's power grows with the cube of its speed; it also runs to purge.
        speed = 1.0 if boiler.state is BoilerState.PURGE else 0.3 + 0.7 * boiler.burner
        running = boiler.flame or boiler.state in {BoilerState.PURGE, BoilerState.IGNITION}
        self.fan_kw += ((0.55 * speed**3 if running else 0.0) - self.fan_kw) * min(dt_s / 1.5, 1.0)
        self.lights_kw += (1.4 - self.lights_kw) * dt_s / 90.0 + noise(0.03) * math.sqrt(dt_s)
        self.lights_kw = min(max(self.lights_kw, 0.8), 2.0)
        circulation_kw = 0.37 if boiler.pump else 0.0
        pump_kw = (2.2 + 5.0 * self.inrush) if tank.pump_running else 0.0
        motors_kw = self.fan_kw + circulation_kw + pump_kw
        self.p_kw = motors_kw + self.lights_kw
        # Motors at cos phi 0.82, starting at about 0.4; lights at 0.97.
        self.q_kvar = motors_kw * 0.70 + pump_kw * self.inrush * 1.6 + self.lights_kw * 0.25
        self._phases(dt_s, noise, three_phase_kw=pump_kw)
        self.frequency_hz += (50.0 - self.frequency_hz) * dt_s / 20.0 + noise(0.004) * math.sqrt(dt_s)
        self.frequency_hz = min(max(self.frequency_hz, 49.5), 50.5)
        self.energy_kwh += self.p_kw * dt_s / 3600.0

    def _phases(self, dt_s: float, noise: Noise, *, three_phase_kw: float) -> None:
        single_kw = max(self.p_kw - three_phase_kw, 0.0)
        factor = self.cos_phi or 1.0
        volts, amps = [], []
        for phase, (share, open_v) in enumerate(((0.42, 231.8), (0.33, 230.9), (0.25, 232.3))):
            kw = three_phase_kw / 3 + single_kw * share
            ampere = kw * 1000.0 / (self.volts[phase] * factor)
            wanted_v = open_v - ampere * self.GRID_OHM
            volts.append(
                self.volts[phase]
                + (wanted_v - self.volts[phase]) * min(dt_s / 0.5, 1.0)
                + noise(0.06) * math.sqrt(dt_s)
            )
            amps.append(ampere)
        self.volts = (volts[0], volts[1], volts[2])
        self.amps = (amps[0], amps[1], amps[2])


class Plant(msgspec.Struct, kw_only=True):
    """The three machines and what connects them."""

    boiler: Boiler = msgspec.field(default_factory=Boiler)
    tank: Tank = msgspec.field(default_factory=Tank)
    meter: Meter = msgspec.field(default_factory=Meter)

    def step(self, dt_s: float, noise: Noise) -> None:
        """Let `dt_s` seconds (≥ 0) pass."""
        while dt_s > 0.0:
            part_s = min(dt_s, STEP_S_MAX)
            dt_s -= part_s
            was_running = self.tank.pump_running
            self.boiler.step(part_s, noise)
            self.tank.step(part_s, noise)
            self.meter.step(part_s, noise, boiler=self.boiler, tank=self.tank, was_running=was_running)

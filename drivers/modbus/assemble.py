"""From the configuration of one link and its devices to a driver that runs them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from drivers.modbus import decode, encode, field, planner, transport
from drivers.modbus.config import ModbusDevice
from drivers.modbus.device import CompileDecode, Demotion, Device, Neighbours, Scan
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.identify import Inquiry
from drivers.modbus.link import LINES, ModbusLink
from drivers.modbus.patience import Patience
from drivers.modbus.planner import Block, Plan
from drivers.modbus.scale import POWER_MAX, Scale, ScalePower
from drivers.modbus.scan import Decode
from drivers.modbus.tag import ModbusTag
from drivers.modbus.vigil import Counter, Heartbeat
from drivers.modbus.wire.line import BROADCAST
from drivers.modbus.wire.pdu import ADDRESS_COUNT, Table
from drivers.modbus.write import BitWrite, ByPower, Queue, WriteFunction, WriteTarget
from gateway.config.scalars import choice
from gateway.config.site import DeviceSpec, LinkSpec, ScanClass, TagSpec
from gateway.core.clock import Clock
from gateway.core.errors import Problem
from gateway.core.point import Layout, Value
from gateway.core.ports import Sink
from gateway.flow.schedule import staggered


class ScanParts(msgspec.Struct, frozen=True):
    """One scan class of one device, compiled: what to read, how often, and what it is called."""

    device: DeviceSpec
    scan: ScanClass
    layout: Layout
    plan: Plan
    fields: tuple[field.Field, ...]  # by column


class ScanCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one scan of all devices of a class costs on its link."""

    name: str
    every_ns: int  # 0: continuous
    devices: int
    requests: int
    registers: int
    bits: int
    bytes: int  # both ways, without TCP/IP around them
    wire_ns: int  # what the frames take on a serial line; 0 on a network
    gap_ns: int  # pauses behind the answers, as configured


class LinkParts(msgspec.Struct, frozen=True):
    """Everything of one link that needs no I/O: the layouts, the requests, what they cost, what is wrong."""

    link: LinkSpec
    scans: tuple[ScanParts, ...]
    problems: tuple[Problem, ...]
    tls: ssl.SSLContext | None = None

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """One for each device and scan class."""
        return tuple(parts.layout for parts in self.scans)

    def costs(self) -> list[ScanCost]:
        """One for each scan class: what one scan of all its devices costs."""
        link = _link(self.link)
        classes: dict[str, list[ScanParts]] = {}
        for parts in self.scans:
            if not _is_broadcast(link, parts.device):
                classes.setdefault(parts.scan.name, []).append(parts)
        costs = []
        for name, members in classes.items():
            cost = _sum(planner.cost(one.plan.blocks) for one in members)
            costs.append(
                ScanCost(
                    name=name,
                    every_ns=members[0].scan.every_ns,
                    devices=len(members),
                    requests=cost.requests,
                    registers=cost.registers,
                    bits=cost.bits,
                    bytes=transport.frame_bytes(link, cost),
                    wire_ns=transport.wire_ns(link, cost),
                    gap_ns=cost.requests * link.gap_ns,
                )
            )
        return costs


def compile_link(link: LinkSpec, devices: Sequence[DeviceSpec], scans: Mapping[str, ScanClass]) -> LinkParts:
    """Plan every scan of every device. Faults that only the plan shows are in `problems`."""
    compiled: list[ScanParts] = []
    problems: list[Problem] = []
    plans = _Plans(_link(link))
    for device in devices:
        problems += _write_problems(device)
        problems += _watch_problems(device)
        problems += _broadcast_problems(link, device)
        classes: dict[str, list[TagSpec]] = {}
        for tag in device.tags.values():
            classes.setdefault(tag.model.scan, []).append(tag)
        for name, tags in classes.items():
            tags.sort(key=_place)
            try:
                compiled.append(_compile_scan(plans, device, scans[name], tags))
            except ValueError as error:
                problems.append(Problem(device.path, str(error), "values that can be read as asked for"))
    tls, faults = transport.open_tls(link, _link(link))
    return LinkParts(link, tuple(compiled), (*problems, *faults), tls)


def make_driver(parts: LinkParts, *, sink: Sink, clock: Clock) -> ModbusDriver:
    """The driver of a link; nothing is opened before `run`."""
    link = _link(parts.link)
    devices = _Devices(link)
    decoders = _Decoders()
    by_class: dict[str, list[ScanParts]] = {}
    for part in parts.scans:
        by_class.setdefault(part.scan.name, []).append(part)
    scans: dict[Layout, tuple[Scan, int, int]] = {}
    writes: dict[tuple[str, str], WriteTarget] = {}
    for members in by_class.values():
        for index, part in enumerate(members):
            if _is_broadcast(link, part.device):
                continue  # nobody answers: there is nothing to read
            scan = Scan(
                device=devices.get(part.device),
                layout=part.layout,
                plan=part.plan,
                compile_decode=decoders.of(part.fields),
            )
            first_ns = staggered(
                now_ns=0,
                every_ns=part.scan.every_ns,
                index=index,
                count=len(members),
                over_whole_period=part.scan.spread,
            )
            scans[part.layout] = (scan, part.scan.every_ns, first_ns)
    for part in parts.scans:
        writes.update(write_targets(part))
    return ModbusDriver(
        name=parts.link.name,
        endpoint=transport.make_endpoint(parts.link.name, link, clock=clock, tls=parts.tls),
        session=transport.make_session(link),
        max_in_flight=link.max_in_flight,
        scans=scans,
        writes=writes,
        sink=sink,
        clock=clock,
        timeout_ns=link.timeout_ns,
        gap_ns=link.gap_ns,
        heartbeats=tuple(_heartbeats({part.device.name: part.device for part in parts.scans}.values())),
        inquiries=tuple(
            Inquiry(devices.get(spec))
            for spec in {part.device.name: part.device for part in parts.scans}.values()
            if _device(spec).identify and not _is_broadcast(link, spec)
        ),
    )


def _link(spec: LinkSpec) -> ModbusLink:
    assert isinstance(spec.model, ModbusLink)
    return spec.model


def _device(spec: DeviceSpec) -> ModbusDevice:
    assert isinstance(spec.model, ModbusDevice)
    return spec.model


def _tag(spec: TagSpec) -> ModbusTag:
    assert isinstance(spec.model, ModbusTag)
    return spec.model


def _place(spec: TagSpec) -> tuple[int, int, int]:
    """The order of columns: as the planner reads them, so that most scans need no sorting."""
    tag = _tag(spec)
    return (tag.at.table, tag.at.offset, tag.bit or 0)


# --- reading -----------------------------------------------------------------------------------------------


class _Plans:
    """Fields and plans of one link. Devices of one template share their tags' models, and so theirs too."""

    def __init__(self, link: ModbusLink) -> None:
        self._link: Final = link
        self._known: Final[dict[tuple[Any, ...], tuple[tuple[field.Field, ...], Plan]]] = {}

    def of(self, model: ModbusDevice, tags: Sequence[TagSpec]) -> tuple[tuple[field.Field, ...], Plan]:
        """By column. Raises ValueError where they cannot be read so."""
        link = self._link
        options = planner.Options(
            max_hole=link.max_hole if model.max_hole is None else model.max_hole,
            max_registers=link.max_registers if model.max_registers is None else model.max_registers,
            max_bits=link.max_bits if model.max_bits is None else model.max_bits,
            forbidden=tuple(
                planner.Span(span.table, span.first, span.last - span.first + 1) for span in model.forbid
            ),
        )
        models = [_tag(tag) for tag in tags]
        key = (options, model.shift, *map(id, models))  # they live as long as what is compiled from them
        found = self._known.get(key)
        if found is None:
            fields = tuple(_shifted(tag, model.shift) for tag in tags)
            wanted = [
                planner.Wanted(
                    column=column, table=tag.at.table, start=one.first, count=one.extent, group=tag.atomic
                )
                for column, (tag, one) in enumerate(zip(models, fields, strict=True))
            ]
            found = self._known[key] = fields, planner.make_plan(wanted, options)
        return found


def _compile_scan(plans: _Plans, device: DeviceSpec, scan: ScanClass, tags: Sequence[TagSpec]) -> ScanParts:
    fields, plan = plans.of(_device(device), tags)
    layout = Layout(
        device=device.name,
        scan=scan.name,
        points=[tag.point for tag in tags],
        attributes=device.attributes,
    )
    return ScanParts(device, scan, layout, plan, fields)


def _shifted(tag: TagSpec, shift: int) -> field.Field:
    """The tag's field where the device has it. Raises ValueError where that is no address."""
    one = _tag(tag).field()
    if not shift:
        return one
    if not 0 <= one.first + shift <= one.first + shift + one.extent <= ADDRESS_COUNT:
        raise ValueError(f"{tag.name} at {_tag(tag).at} shifted by {shift}, which is beyond 0 to 65535")
    scale = one.scale
    if isinstance(scale, ScalePower):
        scale = ScalePower(scale.register + shift)
    return msgspec.structs.replace(one, start=one.start + shift, scale=scale)


def _is_broadcast(link: ModbusLink, device: DeviceSpec) -> bool:
    """Whether the device stands for all slaves of a serial line (MODBUS over Serial Line V1.02 §2.2)."""
    return link.transport in LINES and _device(device).unit == BROADCAST


def _broadcast_problems(link: LinkSpec, device: DeviceSpec) -> Iterable[Problem]:
    """All slaves of a line take a write, and none answers."""
    if not _is_broadcast(_link(link), device):
        return
    if _device(device).watch is not None:
        yield Problem((*device.path, "watch"), "watch of unit 0, which answers nothing", "no watch")
    for spec in device.tags.values():
        write = _tag(spec).write
        if write is None:
            found = "a tag of unit 0, which is all slaves of the line and answers nothing"
            yield Problem(spec.path, found, "write: for it, or a unit from 1 to 247 at its device")
        elif write.verify == "readback":
            found = "readback of unit 0, which answers nothing"
            yield Problem((*spec.path, "write", "verify"), found, "verify: none")
        elif _tag(spec).bit is not None and _device(device).bit_write == "rmw":
            found = "a bit of unit 0, whose register cannot be read first"
            yield Problem((*spec.path, "write"), found, "bit_write: mask at the device, or a whole register")


def _sum(costs: Iterable[planner.Cost]) -> planner.Cost:
    return planner.Cost(*(sum(column) for column in zip(*costs, strict=True)))


class _Decoders:
    """Equal blocks of equal devices share one compiled function."""

    def __init__(self) -> None:
        self._known: dict[decode.BlockKey, decode.Decoder] = {}

    def of(self, fields: tuple[field.Field, ...]) -> CompileDecode:
        """What compiles the blocks of one scan."""

        def compile_decode(block: Block) -> tuple[Decode, tuple[int, ...]]:
            own = tuple(fields[column] for column in block.columns)
            decoder = decode.compile_block(
                own, table=block.table, start=block.start, count=block.count, cache=self._known
            )
            return decoder, tuple(place for place, one in enumerate(own) if _is_plain_single(one))

        return compile_decode


def decoders_of(part: ScanParts) -> CompileDecode:
    """What compiles the blocks of one scan, outside a driver."""
    return _Decoders().of(part.fields)


def _is_plain_single(one: field.Field) -> bool:
    return one.type is field.DataType.FLOAT32 and one.scale is None


class _Devices:
    """One `Device` for all scan classes of a device."""

    def __init__(self, link: ModbusLink) -> None:
        self._link = link
        self._known: dict[str, Device] = {}
        self._neighbours = Neighbours()

    def get(self, spec: DeviceSpec) -> Device:
        """The device of this name."""
        device = self._known.get(spec.name)
        if device is None:
            model = _device(spec)
            demotion = Demotion(after=model.demote.after, retry_ns=model.demote.retry_ns)
            device = Device(
                name=spec.name,
                unit=model.unit,
                timeout_ns=self._link.timeout_ns,
                attempts=self._link.attempts,
                demotion=demotion,
                patience=_patience(self._link),
                counter=_counter(spec),
                neighbours=self._neighbours,
            )
            self._known[spec.name] = device
        return device


def _patience(link: ModbusLink) -> Patience | None:
    if link.min_timeout_ns is None:
        return None
    return Patience(least_ns=link.min_timeout_ns, most_ns=link.timeout_ns)


def _counter(spec: DeviceSpec) -> Counter | None:
    watch = _device(spec).watch
    return None if watch is None else Counter(device=spec.name, tag=watch.tag, within_ns=watch.within_ns)


def _heartbeats(devices: Iterable[DeviceSpec]) -> Iterable[Heartbeat]:
    for spec in devices:
        model = _device(spec)
        if model.heartbeat is not None:
            beat = model.heartbeat
            yield Heartbeat(
                device=spec.name,
                unit=model.unit,
                table=beat.at.table,
                start=beat.at.offset,
                every_ns=beat.every_ns,
                first=beat.first,
                last=beat.last,
            )


# --- writing -----------------------------------------------------------------------------------------------


def _watch_problems(device: DeviceSpec) -> Iterable[Problem]:
    watch = _device(device).watch
    if watch is None:
        return
    path = (*device.path, "watch")
    tag = device.tags.get(watch.tag)
    if tag is None:
        yield Problem((*path, "tag"), f"no tag '{watch.tag}'", choice(watch.tag, device.tags))


def _write_problems(device: DeviceSpec) -> Iterable[Problem]:
    """What only tag and device together show."""
    model = _device(device)
    for spec in device.tags.values():
        tag = _tag(spec)
        if tag.write is None:
            continue
        path = (*spec.path, "write")
        if tag.is_part and model.bit_write == "refuse":
            found = f"write for {tag.part_text} of {tag.at}"
            yield Problem(path, found, "bit_write: mask (FC 22) or rmw at the device, or no write")
        function = tag.write.function or model.write_function
        if tag.write.function is None and function == "single" and tag.count > 1:
            found = f"write for {tag.count} registers of a device with write_function: single"
            yield Problem(path, found, "function: multiple here, or no write")


_FUNCTIONS: Final = {function.value: function for function in WriteFunction}
_BIT_WRITES: Final = {how.value: how for how in BitWrite}


def write_targets(part: ScanParts) -> Iterable[tuple[tuple[str, str], WriteTarget]]:
    """(device, tag) → how it is written, for every tag that is."""
    model = _device(part.device)
    for point, one in zip(part.layout.points, part.fields, strict=True):
        tag = _tag(part.device.tags[point.tag])
        if tag.write is None:
            continue
        yield (point.device, point.tag), _target(model, tag, one)


def _target(model: ModbusDevice, tag: ModbusTag, one: field.Field) -> WriteTarget:
    write, table = tag.write, tag.at.table
    assert write is not None  # only writable tags have one
    by_power = None
    if isinstance(one.scale, ScalePower):
        by_power = _by_power(model, tag, one, one.scale)
        one = msgspec.structs.replace(one, scale=None)  # where it is, not how it is scaled
    low, high = tag.write_limits()
    return WriteTarget(
        unit=model.unit,
        table=table,
        start=one.start,
        count=one.count,
        encode=_encoder(one, low=low, high=high),
        decode=_single_decoder(one, table),
        function=_FUNCTIONS[write.function or model.write_function],
        mask=encode.wire_mask(one),
        bit_write=_BIT_WRITES[model.bit_write],
        verify_within_ns=write.within_ns if write.verify == "readback" else 0,
        queue=Queue(write.queue),
        by_power=by_power,
        attempts=write.attempts,
    )


def _by_power(model: ModbusDevice, tag: ModbusTag, one: field.Field, scale: ScalePower) -> ByPower:
    targets: dict[int, WriteTarget] = {}  # at most one for each power there is

    def target(power: int) -> WriteTarget:
        found = targets.get(power)
        if found is None:
            line = Scale.from_factor(10.0**power)
            found = targets[power] = _target(model, tag, msgspec.structs.replace(one, scale=line))
        return found

    factor = field.Field(type=field.DataType.INT16, start=scale.register, order=one.order)
    read = _single_decoder(factor, tag.at.table)

    def power(data: bytes) -> int | None:
        found = read(data)
        return found if isinstance(found, int) and abs(found) <= POWER_MAX else None

    return ByPower(scale.register, power, target)


def _encoder(one: field.Field, *, low: float | None, high: float | None) -> Callable[[Value], bytes]:
    return lambda value: encode.encode(one, value, low=low, high=high)


def _single_decoder(one: field.Field, table: Table) -> Callable[[bytes], Value]:
    decoder = decode.compile_block([one], table=table, start=one.start, count=one.count)
    return lambda data: decoder(data)[0][0]

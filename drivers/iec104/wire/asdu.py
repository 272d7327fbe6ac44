"""Application service data units (IEC 60870-5-101 §7.1 with the sizes of -104) to columns and back.

One ASDU is one `Asdu`, however many objects share it: addresses, and one column for each field of its type.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from drivers.iec104.wire.elements import LAYOUTS, SEGMENT
from drivers.iec104.wire.terms import ASDU_SIZE_MAX, OBJECTS_MAX, TYPE_NAMES, Cause, TypeId
from gateway.core.errors import LocalProtocolError, RemoteProtocolError

_NEGATIVE: Final = 0x40
_TEST: Final = 0x80
_CAUSE_MASK: Final = 0x3F
_SQ: Final = 0x80


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Octets of the variable parts; -104 fixes them at 2, 2 and 3 (clause 9.5). Raises LocalProtocolError.

    `asdu`: the most that one ASDU may have, up to 249.
    """

    cause: int = 2
    common_address: int = 2
    object_address: int = 3
    asdu: int = ASDU_SIZE_MAX

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("cause", self.cause, 1, 2),
            ("common_address", self.common_address, 1, 2),
            ("object_address", self.object_address, 1, 3),
            ("asdu", self.asdu, 32, ASDU_SIZE_MAX),
        ):
            if not low <= value <= high:
                raise LocalProtocolError(f"sizes.{name}: found {value}, expected {low} to {high} octets")


class Asdu(msgspec.Struct, frozen=True, gc=False):
    """One ASDU. `addresses`: of its objects, in order; with `sequence` (SQ = 1) a range counting up by one.

    `columns`: one tuple for each field that `LAYOUTS` names for the type, as long as `addresses`; octets with
    several bits are whole numbers, times are octets for `timetag`. `raw`: the objects of a type that has no
    layout here, as octets; then addresses and columns are empty and `count` is what the ASDU says.
    """

    type_id: int
    cause: int
    common_address: int
    addresses: tuple[int, ...] | range = ()
    columns: tuple[tuple[Any, ...], ...] = ()
    negative: bool = False  # P/N
    test: bool = False  # T
    originator: int = 0
    sequence: bool = False  # SQ
    raw: bytes | None = None
    count: int = 0  # of `raw` only

    def column(self, field: str) -> tuple[Any, ...]:
        """The values of one field. Raises KeyError where the type has none of this name."""
        layout = SEGMENT if self.type_id == TypeId.F_SG_NA_1 else LAYOUTS.get(self.type_id)
        if layout is None or field not in layout.fields:
            raise KeyError(f"{TYPE_NAMES.get(self.type_id, self.type_id)} has no field {field}")
        return self.columns[layout.fields.index(field)]


def confirmation(request: Asdu, *, negative: bool = False, cause: int | None = None) -> Asdu:
    """The mirror of a command: same objects, originator and test bit (IEC 60870-5-101 §7.2.3).

    `cause`: by default the confirmation of an activation or deactivation. Raises LocalProtocolError for
    another cause.
    """
    if cause is None:
        answers: dict[int, int] = {
            Cause.ACTIVATION: Cause.ACTIVATION_CONFIRMATION,
            Cause.DEACTIVATION: Cause.DEACTIVATION_CONFIRMATION,
        }
        cause = answers.get(request.cause)
        if cause is None:
            raise LocalProtocolError(f"confirmation: found cause {request.cause}, expected 6 or 8; name one")
    return msgspec.structs.replace(request, cause=cause, negative=negative)


class Codec:
    """Octets to `Asdu` and back for one set of sizes; compiled once, holds no state."""

    def __init__(self, sizes: Sizes | None = None) -> None:
        sizes = sizes or Sizes()
        self.sizes: Final = sizes
        self._has_originator: Final = sizes.cause == 2
        self._head: Final = struct.Struct(
            "<BBB" + ("B" if self._has_originator else "") + ("B" if sizes.common_address == 1 else "H")
        )
        self.head_size: Final = self._head.size
        self._address_size: Final = sizes.object_address
        self._address_max: Final = (1 << 8 * sizes.object_address) - 1
        self._common_max: Final = (1 << 8 * sizes.common_address) - 1
        address = {1: "B", 2: "H", 3: "HB"}[sizes.object_address]
        self._plans: Final = {
            int(type_id): (struct.Struct("<" + address + layout.format), struct.Struct("<" + layout.format))
            for type_id, layout in LAYOUTS.items()
        }
        self._segment: Final = struct.Struct("<" + address + SEGMENT.format)
        self._wide: Final = sizes.object_address == 3

    def decode(self, data: bytes) -> Asdu:
        """One ASDU, whole. Raises RemoteProtocolError where its length does not fit what it says it holds."""
        head = self._head
        if len(data) < head.size:
            raise RemoteProtocolError(f"ASDU: found {len(data)} octets, expected {head.size} at least")
        if len(data) > self.sizes.asdu:
            raise RemoteProtocolError(f"ASDU: found {len(data)} octets, expected {self.sizes.asdu} at most")
        if self._has_originator:
            type_id, qualifier, cause, originator, common_address = head.unpack_from(data)
        else:
            type_id, qualifier, cause, common_address = head.unpack_from(data)
            originator = 0
        count = qualifier & OBJECTS_MAX
        sequence = qualifier >= _SQ
        body = data[head.size :]
        plan = self._plans.get(type_id)
        raw = None
        addresses: tuple[int, ...] | range
        columns: tuple[tuple[Any, ...], ...]
        if plan is None:
            if type_id == TypeId.F_SG_NA_1:
                addresses, columns = self._decode_segment(body, count, sequence)
            else:
                addresses, columns, raw = (), (), body
        elif sequence:
            addresses, columns = self._decode_sequence(type_id, plan[1], body, count)
        else:
            addresses, columns = self._decode_objects(type_id, plan[0], body, count)
        return Asdu(
            type_id,
            cause & _CAUSE_MASK,
            common_address,
            addresses,
            columns,
            cause & _NEGATIVE != 0,
            cause >= _TEST,
            originator,
            sequence,
            raw,
            0 if raw is None else count,
        )

    def encode(self, asdu: Asdu) -> bytes:
        """Octets of one ASDU. Raises LocalProtocolError for what does not fit its fields or the sizes."""
        if asdu.raw is not None:
            count, body = asdu.count, asdu.raw
        else:
            count = len(asdu.addresses)
            try:
                body = self._encode_body(asdu, count)
            except (struct.error, OverflowError, ValueError, TypeError) as error:
                raise LocalProtocolError(f"{_name(asdu.type_id)}: {error}") from error
        if not 0 <= count <= OBJECTS_MAX:
            raise LocalProtocolError(
                f"{_name(asdu.type_id)}: found {count} objects, expected {OBJECTS_MAX} at most"
            )
        for name, value, limit in (
            ("type", asdu.type_id, 0xFF),
            ("cause", asdu.cause, _CAUSE_MASK),
            ("originator", asdu.originator, 0xFF if self._has_originator else 0),
            ("common address", asdu.common_address, self._common_max),
        ):
            if not 0 <= value <= limit:
                raise LocalProtocolError(f"{_name(asdu.type_id)}: found {name} {value}, expected 0..{limit}")
        cause = asdu.cause | (_NEGATIVE if asdu.negative else 0) | (_TEST if asdu.test else 0)
        qualifier = count | (_SQ if asdu.sequence else 0)
        middle = (asdu.originator,) if self._has_originator else ()
        data = self._head.pack(asdu.type_id, qualifier, cause, *middle, asdu.common_address) + body
        if len(data) > self.sizes.asdu:
            raise LocalProtocolError(
                f"{_name(asdu.type_id)}: found {len(data)} octets for {count} objects, "
                f"expected {self.sizes.asdu} at most: ask `room`"
            )
        return data

    def room(self, type_id: int, *, sequence: bool = False) -> int:
        """How many objects of this type fit one ASDU. Raises LocalProtocolError for a type without layout."""
        plan = self._plans.get(type_id)
        if plan is None:
            raise LocalProtocolError(f"{_name(type_id)}: expected a type whose objects have a fixed size")
        space = self.sizes.asdu - self.head_size - (self._address_size if sequence else 0)
        size = plan[1].size if sequence else plan[0].size
        return min(OBJECTS_MAX, space // size) if size else OBJECTS_MAX

    def segment_room(self) -> int:
        """How many octets of a file one segment can have (F_SG_NA_1)."""
        return self.sizes.asdu - self.head_size - self._segment.size

    # --- objects -------------------------------------------------------------------------------------------

    def _decode_objects(
        self, type_id: int, plan: struct.Struct, body: bytes, count: int
    ) -> tuple[tuple[int, ...], tuple[tuple[Any, ...], ...]]:
        if len(body) != count * plan.size:
            raise _wrong_length(type_id, len(body), count * plan.size, count)
        if not count:
            return (), ((),) * len(LAYOUTS[type_id].fields)
        if count == 1:
            row = plan.unpack(body)
            if self._wide:
                return (row[0] | row[1] << 16,), tuple((value,) for value in row[2:])
            return (row[0],), tuple((value,) for value in row[1:])
        columns = tuple(zip(*plan.iter_unpack(body), strict=True))
        if self._wide:
            low, high = columns[0], columns[1]
            return tuple(one | other << 16 for one, other in zip(low, high, strict=True)), columns[2:]
        return columns[0], columns[1:]

    def _decode_sequence(
        self, type_id: int, plan: struct.Struct, body: bytes, count: int
    ) -> tuple[range, tuple[tuple[Any, ...], ...]]:
        expected = self._address_size + count * plan.size if count else 0
        if len(body) != expected:
            raise _wrong_length(type_id, len(body), expected, count)
        if not count:
            return range(0), ((),) * len(LAYOUTS[type_id].fields)
        first = int.from_bytes(body[: self._address_size], "little")
        if first + count - 1 > self._address_max:
            raise RemoteProtocolError(
                f"{_name(type_id)}: found {count} objects from address {first}, expected the last to be "
                f"{self._address_max} at most"
            )
        if not plan.size:
            return range(first, first + count), ()
        columns = tuple(zip(*plan.iter_unpack(body[self._address_size :]), strict=True))
        return range(first, first + count), columns

    def _decode_segment(
        self,
        body: bytes,
        count: int,
        sequence: bool,  # noqa: FBT001 - as the octet has it
    ) -> tuple[tuple[int, ...], tuple[tuple[Any, ...], ...]]:
        if count != 1 or sequence:
            raise RemoteProtocolError(f"F_SG_NA_1: found {count} objects, SQ {sequence:d}, expected 1 and 0")
        if len(body) < self._segment.size:
            raise _wrong_length(TypeId.F_SG_NA_1, len(body), self._segment.size, 1)
        *address, nof, nos, size = self._segment.unpack_from(body)
        segment = body[self._segment.size :]
        if len(segment) != size:
            raise _wrong_length(TypeId.F_SG_NA_1, len(body), self._segment.size + size, 1)
        where = address[0] | address[1] << 16 if self._wide else address[0]
        return (where,), ((nof,), (nos,), (segment,))

    def _encode_body(self, asdu: Asdu, count: int) -> bytes:
        type_id = asdu.type_id
        if type_id == TypeId.F_SG_NA_1:
            return self._encode_segment(asdu)
        plan = self._plans.get(type_id)
        if plan is None:
            raise ValueError("has no layout here; give its objects as raw")
        fields = LAYOUTS[type_id].fields
        if len(asdu.columns) != len(fields) or any(len(column) != count for column in asdu.columns):
            lengths = [len(column) for column in asdu.columns]
            raise ValueError(f"found columns of {lengths}, expected {count} each of {fields}")
        addresses = asdu.addresses
        if count and not 0 <= min(addresses) <= max(addresses) <= self._address_max:
            raise ValueError(f"found an object address outside 0..{self._address_max}")
        if asdu.sequence:
            if not count:
                return b""
            if tuple(addresses) != tuple(range(addresses[0], addresses[0] + count)):
                raise ValueError("found addresses with gaps, expected them to count up by one for SQ = 1")
            first = addresses[0].to_bytes(self._address_size, "little")
            pack = plan[1].pack
            return first + (b"".join(map(pack, *asdu.columns)) if fields else b"")
        pack = plan[0].pack
        if self._wide:
            high = [address >> 16 for address in addresses]
            return b"".join(map(pack, [address & 0xFFFF for address in addresses], high, *asdu.columns))
        return b"".join(map(pack, addresses, *asdu.columns))

    def _encode_segment(self, asdu: Asdu) -> bytes:
        (where,), ((nof,), (nos,), (segment,)) = asdu.addresses, asdu.columns
        if asdu.sequence or not 0 <= where <= self._address_max:
            raise ValueError(
                f"found address {where}, SQ {asdu.sequence:d}, expected 0..{self._address_max} and 0"
            )
        address = (where & 0xFFFF, where >> 16) if self._wide else (where,)
        return self._segment.pack(*address, nof, nos, len(segment)) + bytes(segment)


def _name(type_id: int) -> str:
    return TYPE_NAMES.get(type_id, f"type {type_id}")


def _wrong_length(type_id: int, found: int, expected: int, count: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"{_name(type_id)}: found {found} octets of objects, expected {expected} for {count} of them"
    )

"""Which requests read a device: as few as allowed, and fewer illegal addresses with everything it refuses.

Pure and immutable: a refused or accepted block makes a new `Plan`. The words:

- *atom*: what is never split: one value, or all fields of one atomic group, first register to last;
- *run*: atoms that overlap (bits of one register are the common case) and so are read together;
- *block*: one request;
- *hole*: registers a refusal has proved to be illegal; *cut*: a place no request may cross.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from drivers.modbus.address import Address
from drivers.modbus.wire import mbap
from drivers.modbus.wire.pdu import ADDRESS_COUNT, READ_BITS_MAX, READ_REGISTERS_MAX, Table

MAX_HOLE_DEFAULT: Final = 8  # registers or bits read in vain between two values
PROBE_INTERVAL_NS: Final = 3600 * 10**9  # how often what was refused is asked for again
_READ_REQUEST_SIZE: Final = mbap.HEADER_SIZE + 5  # bytes
_READ_ANSWER_SIZE: Final = mbap.HEADER_SIZE + 2  # bytes without the data


class Span(msgspec.Struct, frozen=True):
    """A range of one table: `count` items from `start`."""

    table: Table
    start: int
    count: int

    @property
    def end(self) -> int:
        """The first item behind it."""
        return self.start + self.count

    def __str__(self) -> str:
        first = Address(self.table, self.start)
        return str(first) if self.count == 1 else f"{first}..{self.end - 1}"


class Wanted(msgspec.Struct, frozen=True):
    """One value to read. `column` is the caller's number for it, `count` its registers or bits."""

    column: int
    table: Table
    start: int
    count: int = 1
    group: str | None = None  # fields of one group are read in one request


class Block(msgspec.Struct, frozen=True):
    """One request; `columns` are the fields it reads, by address."""

    table: Table
    start: int
    count: int
    columns: tuple[int, ...]

    @property
    def span(self) -> Span:
        """The range it reads."""
        return Span(self.table, self.start, self.count)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a device and its user allow."""

    max_hole: int = MAX_HOLE_DEFAULT  # unused items between two values that may be read in vain; 0: none
    max_registers: int = READ_REGISTERS_MAX
    max_bits: int = READ_BITS_MAX
    forbidden: tuple[Span, ...] = ()  # never read, not even in vain

    def read_max(self, table: Table) -> int:
        """How many items one request may read."""
        return self.max_bits if table.has_bits else self.max_registers


class _Atom(NamedTuple):
    """Sorted by place: the first three are the key."""

    table: Table
    start: int
    end: int
    columns: tuple[int, ...]

    @property
    def key(self) -> tuple[int, int, int]:
        return self[:3]


class _Split(NamedTuple):
    """A refused block was read in two halves; what is known of them."""

    left: Block
    right: Block
    left_accepted: bool = False
    right_accepted: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one device and scan class, and what refusals taught. Made by `make_plan`."""

    blocks: tuple[Block, ...]  # read these each scan
    probes: tuple[Block, ...]  # read these once, beside the scan: refused before, perhaps legal now
    holes: tuple[Span, ...]
    dead_columns: frozenset[int]  # fields whose address the device refuses: bad/no-such-address
    probed_ns: int
    _options: Options
    _atoms: tuple[_Atom, ...]  # all, sorted
    _dead: frozenset[_Atom]
    _cuts: frozenset[tuple[int, int, int]]  # no block reads an atom below and one at or above such a key
    _splits: tuple[_Split, ...]

    @property
    def is_learning(self) -> bool:
        """Whether `accepted` wants to hear of good answers; while it does not, spare the calls."""
        return bool(self._splits or self.probes)

    def refused(self, block: Block) -> Plan:
        """The device answered a block with illegal data address: narrow it down.

        A block of one atom is the culprit, another one is read in two halves from now on. A block that is no
        longer in the plan changes nothing.
        """
        if block in self.probes:
            return self._after(probes=tuple(probe for probe in self.probes if probe != block))
        if block not in self.blocks:
            return self
        splits = tuple(split for split in self._splits if block not in {split.left, split.right})
        atoms = self._atoms_of(block)
        if len(atoms) > 1:
            left, right = (_block_of(half) for half in (atoms[: len(atoms) // 2], atoms[len(atoms) // 2 :]))
            position = self.blocks.index(block)
            blocks = (*self.blocks[:position], left, right, *self.blocks[position + 1 :])
            return self._after(blocks=blocks, splits=(*splits, _Split(left, right)))
        dead = self._dead | set(atoms)
        blocks = tuple(other for other in self.blocks if other != block)
        return self._after(blocks=blocks, splits=splits, dead=dead)

    def narrower(self, block: Block) -> tuple[Block, ...]:
        """What to read instead of a refused block to find the culprit; empty where it is the block itself.

        Also for a block that is no longer in the plan; fields known to be refused are left out.
        """
        atoms = self._atoms_of(block)
        alive = [atom for atom in atoms if atom not in self._dead]
        if len(atoms) == 1 or not alive:
            return ()
        middle = len(alive) // 2
        return tuple(_block_of(half) for half in (alive[:middle], alive[middle:]) if half)

    def accepted(self, block: Block) -> Plan:
        """The device answered a block with data."""
        if block in self.probes:
            atoms = self._atoms_of(block)
            probes = tuple(probe for probe in self.probes if probe != block)
            return self._after(probes=probes, dead=self._dead - set(atoms), splits=())
        for split in self._splits:
            if block in {split.left, split.right}:
                break
        else:
            return self
        others = tuple(other for other in self._splits if other is not split)
        split = split._replace(
            left_accepted=split.left_accepted or block == split.left,
            right_accepted=split.right_accepted or block == split.right,
        )
        if not (split.left_accepted and split.right_accepted):
            return self._after(splits=(*others, split))
        # Both halves are legal: it is what lies between them, or the size. Never read them together again.
        cut = self._atoms_of(split.right)[0].key
        return self._after(splits=others, cuts=self._cuts | {cut})

    def probe_due(self, now_ns: int) -> bool:
        """Whether refusals taught anything, and an hour has gone since it was last looked at."""
        return self.has_learned and now_ns - self.probed_ns >= PROBE_INTERVAL_NS

    @property
    def has_learned(self) -> bool:
        """Whether it is another plan than without refusals."""
        return bool(self._dead or self._cuts or self._splits)

    def probe(self, now_ns: int) -> Plan:
        """Ask once more for everything that was refused, and together what was cut apart.

        After a reconnect and when `probe_due`: it may be another device, or have refused for a moment only.
        """
        probes = tuple(_block_of((atom,)) for atom in sorted(self._dead))
        return self._after(probes=probes, probed_ns=now_ns, cuts=frozenset(), splits=())

    def _atoms_of(self, block: Block) -> tuple[_Atom, ...]:
        wanted = set(block.columns)
        return tuple(a for a in self._atoms if a.table == block.table and not wanted.isdisjoint(a.columns))

    def _after(
        self,
        *,
        blocks: tuple[Block, ...] | None = None,
        probes: tuple[Block, ...] | None = None,
        dead: frozenset[_Atom] | None = None,
        cuts: frozenset[tuple[int, int, int]] | None = None,
        splits: tuple[_Split, ...] | None = None,
        probed_ns: int | None = None,
    ) -> Plan:
        """Change some things. With no search open, blocks are laid anew: around holes, joined where split."""
        dead = self._dead if dead is None else dead
        cuts = self._cuts if cuts is None else cuts
        splits = self._splits if splits is None else splits
        holes = tuple(Span(atom.table, atom.start, atom.end - atom.start) for atom in sorted(dead))
        if not splits:
            alive = [atom for atom in self._atoms if atom not in dead]
            blocks = _lay(alive, self._options, holes=holes, cuts=cuts)
        return Plan(
            blocks=self.blocks if blocks is None else blocks,
            probes=self.probes if probes is None else probes,
            holes=holes,
            dead_columns=frozenset(column for atom in dead for column in atom.columns),
            probed_ns=self.probed_ns if probed_ns is None else probed_ns,
            _options=self._options,
            _atoms=self._atoms,
            _dead=dead,
            _cuts=cuts,
            _splits=splits,
        )


class Cost(NamedTuple):
    """What one scan costs. Bytes are whole Modbus TCP frames, without TCP/IP around them."""

    requests: int
    registers: int
    bits: int
    request_bytes: int
    answer_bytes: int


def cost(blocks: Iterable[Block]) -> Cost:
    """What reading these blocks once costs."""
    requests = registers = bits = answer_bytes = 0
    for block in blocks:
        requests += 1
        answer_bytes += _READ_ANSWER_SIZE
        if block.table.has_bits:
            bits += block.count
            answer_bytes += (block.count + 7) // 8
        else:
            registers += block.count
            answer_bytes += block.count * 2
    return Cost(requests, registers, bits, requests * _READ_REQUEST_SIZE, answer_bytes)


def make_plan(fields: Sequence[Wanted], options: Options, *, now_ns: int = 0) -> Plan:
    """Lay the fewest blocks that read all fields.

    Raises ValueError, for people, where that is impossible: limits out of range, a field beyond the table's
    end, longer than a request may be, or inside a forbidden range; a group over two tables.
    """
    _check_options(options)
    atoms = tuple(sorted(_atoms(fields)))
    for atom in atoms:
        _check_atom(atom, options)
    blocks = _lay(atoms, options, holes=(), cuts=frozenset())
    return Plan(
        blocks=blocks,
        probes=(),
        holes=(),
        dead_columns=frozenset(),
        probed_ns=now_ns,
        _options=options,
        _atoms=atoms,
        _dead=frozenset(),
        _cuts=frozenset(),
        _splits=(),
    )


def _check_options(options: Options) -> None:
    for name, value, low, high in (
        ("max_hole", options.max_hole, 0, READ_BITS_MAX),
        ("max_registers", options.max_registers, 1, READ_REGISTERS_MAX),
        ("max_bits", options.max_bits, 1, READ_BITS_MAX),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name}: found {value}, expected {low}..{high}")


def _atoms(fields: Sequence[Wanted]) -> list[_Atom]:
    """Fields at the same place, or of one group, are one atom."""
    places: dict[tuple[Table, int, int], list[int]] = {}
    groups: dict[str, list[Wanted]] = {}
    for field in fields:
        if field.group is None:
            places.setdefault((field.table, field.start, field.start + field.count), []).append(field.column)
        else:
            groups.setdefault(field.group, []).append(field)
    atoms = [_Atom(table, start, end, tuple(columns)) for (table, start, end), columns in places.items()]
    for name, members in groups.items():
        tables = {member.table for member in members}
        if len(tables) > 1:
            found = ", ".join(sorted(table.name.lower().replace("_", " ") for table in tables))
            raise ValueError(f"atomic group {name!r}: found {found}, expected all in one table")
        start = min(member.start for member in members)
        end = max(member.start + member.count for member in members)
        columns = tuple(member.column for member in sorted(members, key=lambda member: member.start))
        atoms.append(_Atom(tables.pop(), start, end, columns))
    return atoms


def _check_atom(atom: _Atom, options: Options) -> None:
    span = Span(atom.table, atom.start, atom.end - atom.start)
    if not (0 <= atom.start < atom.end <= ADDRESS_COUNT):
        raise ValueError(f"{span}: found beyond the table, expected all within 0..{ADDRESS_COUNT - 1}")
    if span.count > options.read_max(atom.table):
        unit = "bits" if atom.table.has_bits else "registers"
        limit = options.read_max(atom.table)
        raise ValueError(f"{span}: found {span.count} {unit} that belong together, expected at most {limit}")
    for forbidden in options.forbidden:
        if _overlaps(forbidden, atom.table, atom.start, atom.end):
            raise ValueError(f"{span}: found in the forbidden range {forbidden}; expected outside of it")


def _overlaps(span: Span, table: Table, start: int, end: int) -> bool:
    return span.table == table and span.start < end and start < span.end


def _lay(
    atoms: Sequence[_Atom], options: Options, *, holes: Sequence[Span], cuts: frozenset[tuple[int, int, int]]
) -> tuple[Block, ...]:
    """From the left, each block as long as allowed.

    This is the minimum: runs are disjoint and sorted, and every part of an allowed sequence of runs is
    allowed (it is shorter, with fewer gaps), so a block that ends earlier never lets a later one end later.
    """
    barriers = (*options.forbidden, *holes)
    blocks: list[Block] = []
    run: list[_Atom] = []
    end = 0
    for next_run in _runs(atoms, options, cuts):
        next_end = max(atom.end for atom in next_run)
        if (
            run
            and next_run[0].key not in cuts
            and _may_join(run[0], end, next_run[0], next_end, options, barriers)
        ):
            run += next_run
            end = max(end, next_end)
        else:
            if run:
                blocks.append(_block_of(run))
            run, end = next_run, next_end
    if run:
        blocks.append(_block_of(run))
    return tuple(blocks)


def _runs(
    atoms: Sequence[_Atom], options: Options, cuts: frozenset[tuple[int, int, int]]
) -> list[list[_Atom]]:
    """Atoms that overlap, together; one by one where together they exceed a request."""
    runs: list[list[_Atom]] = []
    end = 0
    for atom in atoms:
        last = runs[-1] if runs else None
        if last and last[0].table == atom.table and atom.start < end and atom.key not in cuts:
            last.append(atom)
            end = max(end, atom.end)
        else:
            runs.append([atom])
            end = atom.end
    return [part for run in runs for part in _parts(run, options)]


def _parts(run: list[_Atom], options: Options) -> list[list[_Atom]]:
    return [run] if _block_of(run).count <= options.read_max(run[0].table) else [[atom] for atom in run]


def _may_join(
    first: _Atom, end: int, next_first: _Atom, next_end: int, options: Options, barriers: Sequence[Span]
) -> bool:
    """Whether one request may read from `first` on to `next_end`, with a gap from `end` to `next_first`."""
    table, gap_end = first.table, next_first.start
    return (
        table == next_first.table
        and max(end, next_end) - first.start <= options.read_max(table)
        and gap_end - end <= options.max_hole
        and not (end < gap_end and any(_overlaps(barrier, table, end, gap_end) for barrier in barriers))
    )


def _block_of(atoms: Sequence[_Atom]) -> Block:
    start = atoms[0].start
    end = max(atom.end for atom in atoms)
    columns = tuple(column for atom in atoms for column in atom.columns)
    return Block(atoms[0].table, start, end - start, columns)

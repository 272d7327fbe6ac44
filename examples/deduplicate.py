"""Drop what a gateway delivers twice, exactly, and say what is missing. Python 3.8+, standard library only.

A gateway repeats what was not acknowledged: after a broken connection, a restart, a power cut. Each message
says which one it is: the gateway's run `e` (epoch), the number `n` (seq) of the record in it, and `p` (part)
where one record became several messages on one topic. A message is (gateway, e, n, topic, p).

    from deduplicate import Deduplicator

    known = Deduplicator.load("known.json")
    if known.accept("gw", topic, payload["e"], payload["n"], payload.get("p", 0)):
        store(topic, payload)
    ...
    known.save("known.json")            # atomically; in the order: store, then save

Feed the gateway's status topic too (`known.status("gw", payload)`, only while it is live, not the retained
copy that a subscription begins with). Its `delivered` lets the state shrink to a few numbers; its `committed`
is what `gaps` measures against.

Save after what you accepted is safely stored: a crash in between shows it to you again. Where even that must
not happen, keep `known.to_json()` in the transaction that stores the values.

As a filter behind any subscriber, lines `retained topic payload`:

    mosquitto_sub -t 'plant/#' -t 'gateway/+/status' -q 1 -F '%r %t %p' \\
        | python3 deduplicate.py --gateway gw --state known.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

FORMAT = 1
RANGES_MAX = 4096  # for each epoch: runs of numbers without a gap between them
OPEN_MAX = 1_000_000  # messages of records that may still have others to come
EPOCHS_MAX = 1024  # for each gateway; a run of the gateway is one
EVERYTHING = 1 << 64  # above every number


class Ranges:
    """A set of whole numbers, kept as runs without gaps: its size is that of the gaps, not of the numbers."""

    def __init__(self, runs: Iterable[Iterable[int]] = ()) -> None:
        self.firsts: list[int] = []
        self.lasts: list[int] = []
        for first, last in runs:
            self.firsts.append(first)
            self.lasts.append(last)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.firsts, number) - 1
        return at >= 0 and number <= self.lasts[at]

    def __len__(self) -> int:
        return len(self.firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(first, self.lasts[at]) for at, first in enumerate(self.firsts)])

    def add(self, number: int) -> bool:
        """Whether it was not in it before."""
        firsts, lasts = self.firsts, self.lasts
        if lasts and lasts[-1] + 1 == number:  # nearly always
            lasts[-1] = number
            return True
        at = bisect_right(firsts, number)
        if at and number <= lasts[at - 1]:
            return False
        touches_below = at > 0 and lasts[at - 1] + 1 == number
        touches_above = at < len(firsts) and firsts[at] == number + 1
        if touches_below and touches_above:
            lasts[at - 1] = lasts.pop(at)
            del firsts[at]
        elif touches_below:
            lasts[at - 1] = number
        elif touches_above:
            firsts[at] = number
        else:
            firsts.insert(at, number)
            lasts.insert(at, number)
        return True

    def drop_first(self) -> None:
        """Forget the lowest run."""
        del self.firsts[0], self.lasts[0]

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """Runs of numbers from `first` to `last` that are not in it."""
        gaps = []
        at = bisect_left(self.lasts, first)
        while at < len(self.firsts) and self.firsts[at] <= last:
            if self.firsts[at] > first:
                gaps.append((first, self.firsts[at] - 1))
            first = self.lasts[at] + 1
            at += 1
        if first <= last:
            gaps.append((first, last))
        return gaps


class Gap:
    """Numbers of one epoch that are on the gateway's disk for good and never came here.

    `is_final`: the broker has acknowledged everything around them, so they will not come by themselves. Not
    final: they wait at the gateway. Where a gateway publishes to several brokers, or not every rule of it is
    subscribed to, there are gaps that are no loss.
    """

    def __init__(self, epoch: int, first: int, last: int, *, is_final: bool) -> None:
        self.epoch, self.first, self.last, self.is_final = epoch, first, last, is_final

    def __repr__(self) -> str:
        state = "lost on the way" if self.is_final else "not delivered yet"
        return f"epoch {self.epoch}: {self.first} to {self.last} {state}"


class _Epoch:
    """One run of a gateway."""

    def __init__(self) -> None:
        self.seen = Ranges()  # records of which at least one message came
        self.settled = 0  # up to here no record has anything more to come
        self.committed = 0  # up to here everything is on the gateway's disk
        self.open: dict[int, set[tuple[str, int]]] = {}  # record above `settled` → its messages seen so far


class Deduplicator:
    """Knows which messages came already. Nothing is dropped that did not come before.

    `one_message`: set it where each record becomes one message, that is: no topic template has `{tag}` in it
    and no driver delivers bursts of events. Then the number alone says it all, and nothing but runs is kept.

    Memory has limits. Beyond them the oldest knowledge is given up and counted in `forgotten`: what it was
    about would be taken for new once more. A duplicate then, never a loss.
    """

    def __init__(
        self,
        *,
        one_message: bool = False,
        ranges_max: int = RANGES_MAX,
        open_max: int = OPEN_MAX,
        epochs_max: int = EPOCHS_MAX,
    ) -> None:
        self.accepted = 0
        self.duplicates = 0
        self.forgotten = 0
        self._one_message = one_message
        self._ranges_max = ranges_max
        self._open_max = open_max
        self._epochs_max = epochs_max
        self._open = 0  # messages in all `open`
        self._gateways: dict[str, dict[int, _Epoch]] = {}

    def accept(self, gateway: str, topic: str, epoch: int, seq: int, part: int = 0) -> bool:
        """Whether this message is new. It is known from then on."""
        known = self._epoch(gateway, epoch)
        is_new_record = known.seen.add(seq)
        if is_new_record and len(known.seen) > self._ranges_max:
            known.seen.drop_first()
            self.forgotten += 1
        if self._one_message:
            return self._count(is_new_record)
        messages = known.open.get(seq)
        if messages is None:
            if seq <= known.settled and not is_new_record:
                return self._count(False)
            messages = known.open[seq] = set()
        if (topic, part) in messages:
            return self._count(False)
        messages.add((topic, part))
        self._open += 1
        if self._open > self._open_max:
            self._forget_open()
        return self._count(True)

    def status(self, gateway: str, payload: dict[str, Any], *, is_retained: bool = False) -> None:
        """The gateway's status message. Other messages, and statuses of other versions, change nothing.

        A retained copy comes ahead of what the broker still keeps for us, so it settles nothing.
        """
        committed, delivered = payload.get("committed"), payload.get("delivered")
        if committed:
            known = self._epoch(gateway, committed[0])
            known.committed = max(known.committed, committed[1])
        if delivered and not is_retained:
            self._settle(gateway, delivered[0], delivered[1])

    def gaps(self, gateway: str) -> list[Gap]:
        """What is missing below the last committed number heard of, epoch by epoch."""
        found = []
        for epoch, known in sorted(self._gateways.get(gateway, {}).items()):
            for first, last in known.seen.missing(1, known.committed):
                if first <= known.settled < last:
                    found.append(Gap(epoch, first, known.settled, is_final=True))
                    first = known.settled + 1
                found.append(Gap(epoch, first, last, is_final=last <= known.settled))
        return found

    # State

    def to_json(self) -> str:
        """Everything it knows."""
        gateways = {
            gateway: {
                str(epoch): {
                    "seen": list(known.seen),
                    "settled": known.settled,
                    "committed": known.committed,
                    "open": [[seq, sorted(messages)] for seq, messages in sorted(known.open.items())],
                }
                for epoch, known in epochs.items()
            }
            for gateway, epochs in self._gateways.items()
        }
        return json.dumps({"format": FORMAT, "forgotten": self.forgotten, "gateways": gateways})

    @classmethod
    def from_json(cls, text: str, **limits: Any) -> Deduplicator:
        """What `to_json` gave. Raises `ValueError` where it is nothing of that kind."""
        made = cls(**limits)
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"found no state of a deduplicator of format {FORMAT}")
        made.forgotten = data["forgotten"]
        for gateway, epochs in data["gateways"].items():
            for epoch, said in epochs.items():
                known = made._epoch(gateway, int(epoch))
                known.seen = Ranges(said["seen"])
                known.settled, known.committed = said["settled"], said["committed"]
                known.open = {seq: {(topic, part) for topic, part in each} for seq, each in said["open"]}
                made._open += sum(len(each) for each in known.open.values())
        return made

    def save(self, path: str) -> None:
        """Replace the file in one step, durably: after a crash it is the old state or this one."""
        beside = path + ".new"
        with open(beside, "w", encoding="utf-8") as file:
            file.write(self.to_json())
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @classmethod
    def load(cls, path: str, **limits: Any) -> Deduplicator:
        """What was saved there; an empty one where nothing was. Raises `ValueError`, `OSError`."""
        try:
            with open(path, encoding="utf-8") as file:
                return cls.from_json(file.read(), **limits)
        except FileNotFoundError:
            return cls(**limits)

    # Inside

    def _count(self, is_new: bool) -> bool:
        if is_new:
            self.accepted += 1
        else:
            self.duplicates += 1
        return is_new

    def _epoch(self, gateway: str, epoch: int) -> _Epoch:
        epochs = self._gateways.setdefault(gateway, {})
        known = epochs.get(epoch)
        if known is None:
            known = epochs[epoch] = _Epoch()
            if len(epochs) > self._epochs_max:
                oldest = min(one for one in epochs if one != epoch)
                self._open -= sum(len(each) for each in epochs.pop(oldest).open.values())
                self.forgotten += 1
        return known

    def _settle(self, gateway: str, epoch: int, seq: int) -> None:
        """Everything up to (epoch, seq) was acknowledged by the broker before the status that says so."""
        for one, known in self._gateways.get(gateway, {}).items():
            if one <= epoch:
                upto = seq if one == epoch else EVERYTHING
                known.settled = max(known.settled, upto)
                for done in [number for number in known.open if number <= upto]:
                    self._open -= len(known.open.pop(done))

    def _forget_open(self) -> None:
        """Half of the oldest, of whichever epoch comes first."""
        for epochs in self._gateways.values():
            for epoch in sorted(epochs):
                opened = epochs[epoch].open
                for seq in sorted(opened)[: max(1, len(opened) // 2)] if opened else ():
                    self._open -= len(opened.pop(seq))
                    self.forgotten += 1
                if self._open <= self._open_max:
                    return


def _filter(lines: Iterable[str], out: TextIO, *, gateway: str, known: Deduplicator) -> None:
    for line in lines:
        retained, topic, payload = line.rstrip("\n").split(" ", 2)
        try:
            said = json.loads(payload)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            out.write(line)  # nothing that can be told apart
        elif "committed" in said:
            known.status(gateway, said, is_retained=retained == "1")
        elif not {"e", "n"} <= set(said) or known.accept(
            gateway, topic, said["e"], said["n"], said.get("p", 0)
        ):
            out.write(line)


def main(arguments: list[str] | None = None) -> int:
    """Lines in, lines out; what was dropped and what is missing goes to standard error. 1: there are gaps."""
    parser = argparse.ArgumentParser(description="Drop what a gateway delivers twice.")
    parser.add_argument("--gateway", required=True, help="its name, for the state")
    parser.add_argument("--state", help="file to remember in; without it only while this runs")
    parser.add_argument("--one-message", action="store_true", help="no topic has {tag} in its template")
    options = parser.parse_args(arguments)
    limits = {"one_message": options.one_message}
    known = Deduplicator.load(options.state, **limits) if options.state else Deduplicator(**limits)
    try:
        _filter(sys.stdin, sys.stdout, gateway=options.gateway, known=known)
    except KeyboardInterrupt:
        pass
    sys.stdout.flush()
    if options.state:
        known.save(options.state)
    gaps = known.gaps(options.gateway)
    sys.stderr.write(f"{known.accepted} new, {known.duplicates} duplicates\n")
    for gap in gaps:
        sys.stderr.write(f"missing: {gap}\n")
    return 1 if gaps else 0


if __name__ == "__main__":
    sys.exit(main())

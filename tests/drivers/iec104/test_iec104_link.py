"""Two sessions over a link that delays and cuts, in virtual time: nothing lost, nothing out of order."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Final

import pytest

from drivers.iec104.wire.asdu import Asdu
from drivers.iec104.wire.events import (
    AcknowledgementDue,
    Confirmed,
    Event,
    Lost,
    NoResponse,
    Received,
    Started,
    Stopped,
)
from drivers.iec104.wire.session import Role, Session, State
from drivers.iec104.wire.settings import Acknowledgement, Settings
from drivers.iec104.wire.terms import OBJECTS_MAX

MS: Final = 1_000_000
EVENTS: Final = 120  # of one run
COMMANDS: Final = 20
GIVE_UP_NS: Final = 3600 * 1000 * MS


class Plant:
    """A controlled station that keeps events until they are acknowledged, and one that takes them.

    The link delivers in order, in pieces of any size, late, and is cut now and then; what is under way at
    a cut arrives in part or not at all. A held link delivers nothing until t1 ends it.
    """

    def __init__(self, seed: int, acknowledgement: Acknowledgement) -> None:
        self.random = random.Random(seed)
        self.now = 0
        self.steps = itertools.count()
        self.agenda: list[tuple[int, int, Callable[[], None]]] = []
        self.link = 0  # counts connections; 0 and negative: none
        self.connections = 0
        self.held = False
        self.ends = {
            Role.CONTROLLING: Session(
                Role.CONTROLLING,
                Settings(k=self.random.randint(1, 12), w=self.random.randint(1, 8), t1_s=4, t2_s=1,
                         t3_s=5, acknowledgement=acknowledgement),
            ),
            Role.CONTROLLED: Session(
                Role.CONTROLLED,
                Settings(k=self.random.randint(1, 20), w=self.random.randint(1, 8), t1_s=4, t2_s=1, t3_s=5),
            ),
        }  # fmt: skip
        self.arrives = dict.fromkeys(Role, 0)  # when the last piece arrives, by sender
        self.buffer: list[int] = []  # events of the controlled station, oldest first, not acknowledged
        self.offered = 0  # how many of the buffer's front are with the session
        self.made = self.commands_made = 0
        self.taken: list[int] = []  # events as the controlling station got them
        self.committed = 0  # ASDUs of this connection that are safe
        self.confirmed: list[int] = []
        self.repeatable: set[int] = set()  # not acknowledged at some cut
        self.commands_taken: list[int] = []
        self.commands_confirmed: list[int] = []
        self.commands_unknown: set[int] = set()
        self.timeouts = 0

    # --- the run -------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.later(0, self.connect)
        self.later(1, self.produce)
        self.later(2, self.command)
        while self.agenda:
            self.now, _, action = heapq.heappop(self.agenda)
            assert self.now < GIVE_UP_NS, "the plant does not come to rest"
            action()
            if self.is_done():
                return

    def is_done(self) -> bool:
        return self.made == EVENTS and not self.buffer and self.commands_made == COMMANDS

    def later(self, delay_ns: int, action: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.now + delay_ns, next(self.steps), action))

    def connect(self) -> None:
        self.connections += 1
        self.link = self.connections
        self.held = False
        self.committed = self.offered = 0
        for role, session in self.ends.items():
            session.connected(self.now)
            self.arrives[role] = self.now
        self.ends[Role.CONTROLLING].start()
        if self.connections < 12 and self.random.random() < 0.8:
            link = self.link
            how = self.cut if self.random.random() < 0.7 else self.hold
            self.later(self.random.randint(1, 3000) * MS, lambda: how() if self.link == link else None)
        self.pump()

    def cut(self) -> None:
        self.link = 0
        for role, session in self.ends.items():
            self.note(role, session.lost(self.now))
        self.later(self.random.randint(1, 500) * MS, self.connect)

    def hold(self) -> None:
        self.held = True

    # --- what the stations do ------------------------------------------------------------------------------

    def produce(self) -> None:
        count = min(self.random.randint(1, 10), EVENTS - self.made)
        self.buffer += range(self.made, self.made + count)
        self.made += count
        self.pump()
        if self.made < EVENTS:
            self.later(self.random.randint(1, 400) * MS, self.produce)

    def command(self) -> None:
        session = self.ends[Role.CONTROLLING]
        if session.state is State.STARTED and session.capacity():
            session.send(Asdu(45, 6, 1, (self.commands_made,), ((1,),)), token=self.commands_made)
            self.commands_made += 1
            self.pump()
            if self.random.random() < 0.2 and session.state is State.STARTED:
                self.commands_unknown.update(session.withdraw())
                session.stop()
                self.pump()
        if self.commands_made < COMMANDS:
            self.later(self.random.randint(1, 1000) * MS, self.command)

    def pump(self) -> None:
        """Everything that can go out does, and timers are set."""
        if not self.link:
            return
        server = self.ends[Role.CONTROLLED]
        while self.offered < len(self.buffer) and server.capacity():
            count = min(self.random.randint(1, 5), len(self.buffer) - self.offered, OBJECTS_MAX)
            chosen = tuple(self.buffer[self.offered : self.offered + count])
            server.send(Asdu(1, 3, 1, chosen, ((1,) * count,)), token=chosen)
            self.offered += count
        for role, session in self.ends.items():
            self.carry(role, b"".join(session.to_send(self.now)))
            deadline_ns = session.deadline_ns()
            if deadline_ns is not None:
                link = self.link
                wait_ns = max(0, deadline_ns - self.now)
                self.later(wait_ns, lambda r=role, n=link: self.expire(r, n))

    def expire(self, role: Role, link: int) -> None:
        session = self.ends[role]
        deadline_ns = session.deadline_ns()
        if self.link != link or deadline_ns is None or deadline_ns > self.now:
            return
        events = session.on_deadline(self.now)
        self.note(role, events)
        if any(isinstance(event, NoResponse) for event in events):
            self.timeouts += 1
            self.cut()
        else:
            self.pump()

    def carry(self, role: Role, stream: bytes) -> None:
        while stream and not self.held:
            size = self.random.choice((1, 5, 40, 400))
            piece, stream = stream[:size], stream[size:]
            at = max(self.arrives[role], self.now + self.random.randint(0, 200) * MS)
            self.arrives[role] = at
            link = self.link
            self.later(at - self.now, lambda p=piece, n=link: self.arrive(role, p, n))

    def arrive(self, sender: Role, piece: bytes, link: int) -> None:
        if self.link != link or self.held:
            return
        other = Role.CONTROLLED if sender is Role.CONTROLLING else Role.CONTROLLING
        self.note(other, self.ends[other].receive(piece, self.now))
        self.pump()

    def commit(self, number: int, link: int) -> None:
        if self.link == link:
            self.committed = max(self.committed, number)
            self.note(Role.CONTROLLING, self.ends[Role.CONTROLLING].acknowledge(self.committed, self.now))
            self.pump()

    # --- what they hear ------------------------------------------------------------------------------------

    def note(self, role: Role, events: list[Event]) -> None:
        for event in events:
            if role is Role.CONTROLLED:
                self.note_controlled(event)
            else:
                self.note_controlling(event)

    def note_controlled(self, event: Event) -> None:
        if isinstance(event, Received):
            self.commands_taken += event.asdu.addresses
        elif isinstance(event, Confirmed):
            for token in event.tokens:
                assert isinstance(token, tuple)
                assert tuple(self.buffer[: len(token)]) == token  # in order, each once
                del self.buffer[: len(token)]
                self.offered -= len(token)
                self.confirmed += token
        elif isinstance(event, Lost):
            sent = [one for token in event.unconfirmed for one in token]
            self.repeatable.update(sent)
            unsent = [one for token in event.unsent for one in token]
            assert self.buffer[: self.offered] == sent + unsent
            self.offered = 0

    def note_controlling(self, event: Event) -> None:
        if isinstance(event, Received):
            self.taken += event.asdu.addresses
            if self.ends[Role.CONTROLLING].settings.acknowledgement is Acknowledgement.BY_OWNER:
                link, number = self.link, event.number
                wait_ns = self.random.randint(0, 1500) * MS
                self.later(wait_ns, lambda: self.commit(number, link))
        elif isinstance(event, Confirmed):
            self.commands_confirmed += event.tokens
        elif isinstance(event, Lost):
            self.commands_unknown.update(event.unconfirmed + event.unsent)
        elif isinstance(event, Stopped):
            link = self.link
            self.later(100 * MS, lambda: self.restart(link))
        else:
            assert isinstance(event, Started | AcknowledgementDue | NoResponse), event

    def restart(self, link: int) -> None:
        if self.link == link:
            self.ends[Role.CONTROLLING].start()
            self.pump()


@pytest.mark.parametrize("acknowledgement", Acknowledgement)
@pytest.mark.parametrize("block", range(10))
def test_every_event_arrives_in_order_and_repeats_only_what_was_unacknowledged(
    block: int, acknowledgement: Acknowledgement
) -> None:
    cuts = timeouts = repeats = 0
    for seed in range(block * 20, block * 20 + 20):
        plant = Plant(seed, acknowledgement)
        plant.run()
        where = f"seed {seed} {acknowledgement.value}"
        assert plant.confirmed == list(range(EVENTS)), where
        firsts = list(dict.fromkeys(plant.taken))
        assert firsts == list(range(EVENTS)), where
        again = [n for n in firsts if plant.taken.count(n) > 1]
        assert set(again) <= plant.repeatable, where
        assert len(plant.commands_taken) == len(set(plant.commands_taken)), where
        assert plant.commands_taken == sorted(plant.commands_taken), where
        assert set(plant.commands_confirmed) <= set(plant.commands_taken), where
        missing = set(range(COMMANDS)) - set(plant.commands_taken)
        under_way = set(range(COMMANDS)) - set(plant.commands_confirmed)
        assert missing <= under_way, where
        cuts += plant.connections - 1
        timeouts += plant.timeouts
        repeats += len(again)
    assert cuts > 20
    assert timeouts > 2
    assert repeats > 0

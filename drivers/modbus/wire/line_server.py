"""A server on a serial line: broadcasts, listen only mode, and the counters that diagnostics read.

MODBUS Application Protocol Specification V1.1b3, clauses 6.8 to 6.10. Framing is not here: the session of the
line tells every frame it found (`answer`, `overheard`) and every fault (`damaged`, `overran`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from drivers.modbus.wire.pdu import (
    ADDRESS_AND_WORD,
    EXCEPTION_FLAG,
    ExceptionCode,
    FunctionCode,
    exception_response,
)
from drivers.modbus.wire.pdu_line import (
    CLEAR_EVENT_LOG,
    ENTERED_LISTEN_ONLY,
    EVENTS_MAX,
    RECEIVED,
    RESTARTED,
    SENT,
    Diagnostic,
)
from drivers.modbus.wire.respond import Answers, Open, Reply

BROADCAST: Final = 0  # the address of all, Serial Line V1.02 §2.2
_WORD: Final = 0xFFFF  # counters begin again at 0 behind it
_COMMUNICATION_ERROR: Final = 1 << 1  # bits of a receive event, clause 6.10
_CHARACTER_OVERRUN: Final = 1 << 4
_LISTENING_ONLY: Final = 1 << 5  # of both kinds of event
_BROADCAST_RECEIVED: Final = 1 << 6
# Bits of a send event by exception code.
_EXCEPTION_SENT: Final = {1: 1, 2: 1, 3: 1, 4: 2, 5: 4, 6: 4, 7: 8}


class UnitState:
    """What one unit counts since it was started, restarted or cleared, and its event log."""

    def __init__(self) -> None:
        self.log = b""  # the newest first, at most EVENTS_MAX
        self.is_listening_only = False
        self.clear(messages=0, damaged=0, overruns=0)

    def clear(self, *, messages: int, damaged: int, overruns: int) -> None:
        """Count on from here: the counts of the line now are this unit's zero."""
        self.since_messages = messages
        self.since_damaged = damaged
        self.since_overruns = overruns
        self.exceptions = 0
        self.processed = 0
        self.unanswered = 0
        self.naks = 0
        self.busy = 0
        self.events = 0
        self.diagnostic_register = 0

    def note(self, event: int) -> None:
        """Put an event before the others; the oldest falls off."""
        self.log = bytes((event,)) + self.log[: EVENTS_MAX - 1]


class LineServer:
    """Answers what comes over a serial line, and counts for functions 8, 11 and 12, each unit apart."""

    def __init__(self, responder: Answers, *, set_delimiter: Callable[[int], None] | None = None) -> None:
        """`set_delimiter(character)`: what ends ASCII frames from now on; None where the line is RTU."""
        self.model: Final = responder.model
        self.messages = 0  # frames with a good check, whoever they were for
        self.damaged_frames = 0
        self.overruns = 0
        self._responder: Final = responder
        self.set_delimiter = set_delimiter  # of the session, which is made after this
        self._units: Final[dict[int, UnitState]] = {}

    def unit(self, unit: int) -> UnitState:
        """What that unit has counted."""
        state = self._units.get(unit)
        if state is None:
            state = self._units[unit] = UnitState()
        return state

    # What the session tells

    def overheard(self) -> None:
        """A good frame that is not for us: another's request, or its answer."""
        self.messages += 1

    def damaged(self) -> None:
        """A frame with a wrong CRC or LRC: whose it was cannot be known, so all units note it."""
        self.damaged_frames += 1
        for state in self._units.values():
            state.note(RECEIVED | _COMMUNICATION_ERROR | _listening(state))

    def overran(self) -> None:
        """Characters were lost because they came faster than they were read."""
        self.overruns += 1
        for state in self._units.values():
            state.note(RECEIVED | _CHARACTER_OVERRUN | _listening(state))

    def answer(self, unit: int, pdu: bytes) -> Reply | None:
        """The answer to a frame; None where there is none: another's unit, a broadcast, listen only mode."""
        self.messages += 1
        if unit == BROADCAST:
            self._broadcast(pdu)
            return None
        if not self.model.has_unit(unit):
            return None
        state = self.unit(unit)
        state.note(RECEIVED | _listening(state))
        reply = self._serve(unit, state, pdu)
        self._count(state, pdu[0], reply)
        if pdu[0] == FunctionCode.DIAGNOSTICS:
            self._carry_out(state, pdu, reply)
        return reply

    # Inside

    def _broadcast(self, pdu: bytes) -> None:
        served = [number for number in range(1, 248) if self.model.has_unit(number)]
        for number in served:
            state = self.unit(number)
            state.note(RECEIVED | _BROADCAST_RECEIVED | _listening(state))
            reply: Reply | None = None
            if pdu[0] == FunctionCode.DIAGNOSTICS:
                reply = self._diagnose(state, pdu)
            elif not state.is_listening_only and self._responder.may_broadcast(pdu):
                reply = self._responder.answer(number, pdu)
            if reply is not None:
                state.processed = state.processed + 1 & _WORD
                if isinstance(reply, Open) or not reply[0] & EXCEPTION_FLAG:
                    state.events = state.events + 1 & _WORD
            state.note(SENT | _listening(state))
            if pdu[0] == FunctionCode.DIAGNOSTICS:
                self._carry_out(state, pdu, reply)

    def _serve(self, unit: int, state: UnitState, pdu: bytes) -> Reply | None:
        function = pdu[0]
        if function == FunctionCode.DIAGNOSTICS:
            return self._diagnose(state, pdu)
        if state.is_listening_only:
            return None
        if function in _FETCHES:
            return self._events(state, pdu)
        return self._responder.answer(unit, pdu)

    def _count(self, state: UnitState, function: int, reply: Reply | None) -> None:
        state.processed = state.processed + 1 & _WORD
        event = SENT | _listening(state)
        if reply is None:
            state.unanswered = state.unanswered + 1 & _WORD
        elif not isinstance(reply, Open) and reply[0] & EXCEPTION_FLAG:
            state.exceptions = state.exceptions + 1 & _WORD
            state.naks = state.naks + (reply[1] == 7) & _WORD
            state.busy = state.busy + (reply[1] == ExceptionCode.SERVER_DEVICE_BUSY) & _WORD
            event |= _EXCEPTION_SENT.get(reply[1], 0)
        elif function not in _FETCHES:
            state.events = state.events + 1 & _WORD
        state.note(event)

    def _events(self, state: UnitState, pdu: bytes) -> bytes:
        if len(pdu) != 1:
            return _refused(pdu)
        status_and_events = bytes((0, 0)) + state.events.to_bytes(2, "big")
        if pdu[0] == FunctionCode.GET_COMM_EVENT_COUNTER:
            return pdu + status_and_events
        messages = (self.messages - state.since_messages & _WORD).to_bytes(2, "big")
        # The receive event of this very request is in the log already.
        body = status_and_events + messages + state.log
        return bytes((pdu[0], len(body))) + body

    def _diagnose(self, state: UnitState, pdu: bytes) -> bytes | None:
        """Clause 6.8.1; the order of the checks is that of figure 18."""
        what = pdu[1] << 8 | pdu[2] if len(pdu) > 2 else -1
        is_restart = what == Diagnostic.RESTART_COMMUNICATIONS_OPTION
        if state.is_listening_only and not is_restart:
            return None
        if what >= 0 and what not in _SUPPORTED - ({3} if self.set_delimiter is None else set()):
            return exception_response(pdu[0], ExceptionCode.ILLEGAL_FUNCTION)
        if what == Diagnostic.RETURN_QUERY_DATA and len(pdu) % 2:
            return pdu
        if len(pdu) != ADDRESS_AND_WORD.size or not _is_data_legal(what, pdu[3], pdu[4]):
            return None if is_restart and state.is_listening_only else _refused(pdu)
        value = self._count_of(state, what)
        if value is not None:
            return pdu[:3] + (value & _WORD).to_bytes(2, "big")
        return None if state.is_listening_only or what == Diagnostic.FORCE_LISTEN_ONLY_MODE else pdu

    def _carry_out(self, state: UnitState, pdu: bytes, reply: Reply | None) -> None:
        """What a diagnostic changes, once it was answered and counted."""
        is_refused = isinstance(reply, bytes) and reply[0] & EXCEPTION_FLAG
        if is_refused or len(pdu) != ADDRESS_AND_WORD.size:
            return
        what = pdu[1] << 8 | pdu[2]
        if not _is_data_legal(what, pdu[3], pdu[4]):
            return
        if what == Diagnostic.RESTART_COMMUNICATIONS_OPTION:
            state.clear(messages=self.messages, damaged=self.damaged_frames, overruns=self.overruns)
            state.is_listening_only = False
            if pdu[3] << 8 | pdu[4] == CLEAR_EVENT_LOG:
                state.log = b""
            state.note(RESTARTED)
        elif state.is_listening_only:
            return
        elif what == Diagnostic.FORCE_LISTEN_ONLY_MODE:
            state.is_listening_only = True
            state.note(ENTERED_LISTEN_ONLY)
        elif what == Diagnostic.CLEAR_COUNTERS_AND_DIAGNOSTIC_REGISTER:
            state.clear(messages=self.messages, damaged=self.damaged_frames, overruns=self.overruns)
        elif what == Diagnostic.CLEAR_OVERRUN_COUNTER_AND_FLAG:
            state.since_overruns = self.overruns
        elif what == Diagnostic.CHANGE_ASCII_INPUT_DELIMITER and self.set_delimiter is not None:
            self.set_delimiter(pdu[3])

    def _count_of(self, state: UnitState, what: int) -> int | None:
        match what:
            case Diagnostic.RETURN_DIAGNOSTIC_REGISTER:
                return state.diagnostic_register
            case Diagnostic.RETURN_BUS_MESSAGE_COUNT:
                return self.messages - state.since_messages
            case Diagnostic.RETURN_BUS_COMMUNICATION_ERROR_COUNT:
                return self.damaged_frames - state.since_damaged
            case Diagnostic.RETURN_BUS_EXCEPTION_ERROR_COUNT:
                return state.exceptions
            case Diagnostic.RETURN_SERVER_MESSAGE_COUNT:
                return state.processed
            case Diagnostic.RETURN_SERVER_NO_RESPONSE_COUNT:
                return state.unanswered
            case Diagnostic.RETURN_SERVER_NAK_COUNT:
                return state.naks
            case Diagnostic.RETURN_SERVER_BUSY_COUNT:
                return state.busy
            case Diagnostic.RETURN_BUS_CHARACTER_OVERRUN_COUNT:
                return self.overruns - state.since_overruns
        return None


_SUPPORTED: Final = frozenset(Diagnostic)
# "Poll commands, or fetch event counter commands" do not count as events, clause 6.9.
_FETCHES: Final = frozenset({FunctionCode.GET_COMM_EVENT_COUNTER, FunctionCode.GET_COMM_EVENT_LOG})


def _listening(state: UnitState) -> int:
    return _LISTENING_ONLY if state.is_listening_only else 0


def _refused(pdu: bytes) -> bytes:
    return exception_response(pdu[0], ExceptionCode.ILLEGAL_DATA_VALUE)


def _is_data_legal(what: int, high: int, low: int) -> bool:
    """Whether the data field is one of those in the tables of clause 6.8.1."""
    if what == Diagnostic.CHANGE_ASCII_INPUT_DELIMITER:
        return low == 0
    return low == 0 and (high == 0 or (what == Diagnostic.RESTART_COMMUNICATIONS_OPTION and high == 0xFF))

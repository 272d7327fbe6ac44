"""A flood of commands: refused with a line in the audit file, bounded, and then counted."""

from __future__ import annotations

from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any
from unittest import mock

from gateway.app.commands import AT_ONCE_MAX, REFUSED_AT_ONCE_MAX, CommandDesk
from gateway.core.command import CommandResult, Outcome
from gateway.translate.command import ParsedCommand, Refusal
from tests.virtual_time import run


class Gate:
    """Writes down what is refused; the rest is obeyed."""

    def __init__(self) -> None:
        self.refused: list[Refusal] = []

    async def refuse(self, refusal: Refusal, *, issuer: str) -> CommandResult:
        self.refused.append(refusal)
        return CommandResult(id=refusal.id or "", outcome=Outcome.REJECTED, reason=refusal.reason)

    async def obey(self, parsed: ParsedCommand, *_rest: object, **_more: object) -> CommandResult:
        return CommandResult(id=parsed.id or "", outcome=Outcome.SENT)


def test_beyond_the_limit_commands_are_refused_and_audited_and_a_flood_is_counted() -> None:
    gate = Gate()
    launched: list[Coroutine[Any, Any, None]] = []
    desk = CommandDesk(
        gatekeeper=gate,  # type: ignore[arg-type]  # a stand-in
        clock=SimpleNamespace(wall_ns=lambda: 0, monotonic_ns=lambda: 0),  # type: ignore[arg-type]  # a stand-in
        launch=lambda _name, work: launched.append(work),
        target_of=lambda _device: None,
        hold=lambda: None,
        release=lambda: None,
    )
    rule = mock.MagicMock()
    said = ParsedCommand(
        device="d", tag="t", value=1, id="a", issued_ns=None, ttl_ns=None, reply_topic=b"ack"
    )
    uplink = mock.MagicMock()
    uplink.name = "u"
    with mock.patch.object(desk, "_understood", return_value=(rule, said)):
        for _ in range(REFUSED_AT_ONCE_MAX + 3):
            desk.on_message(uplink, mock.MagicMock())
    assert len(launched) == desk.under_way == REFUSED_AT_ONCE_MAX
    assert desk.unaudited == uplink.reply.call_count == uplink.session.acknowledge.call_count == 3

    async def main() -> None:
        for work in launched:
            await work

    run(main())
    assert desk.under_way == 0
    assert len(gate.refused) == REFUSED_AT_ONCE_MAX - AT_ONCE_MAX
    assert {(one.target, one.id) for one in gate.refused} == {("d/t", "a")}
    assert "256 commands" in gate.refused[0].reason

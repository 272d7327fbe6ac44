"""Asks a device who it is, once for each connection: behind its values, and not again because of a fault."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from drivers.modbus.device import Device
from drivers.modbus.wire.client import Answer, Event, Refused
from drivers.modbus.wire.pdu import meaning
from drivers.modbus.wire.pdu_identity import (
    OBJECT_NAMES,
    IdentityReader,
    ReadDeviceId,
    report_server_id,
    server_id,
)
from gateway.core.errors import RemoteProtocolError

_log = logging.getLogger("drivers.modbus")

SERVER_ID: Final = "ServerId"


class Inquiry:
    """One device's identification: 43/14 with the regular objects; function 17 where it refuses that."""

    def __init__(self, device: Device) -> None:
        self.device: Final = device
        self.is_due = True
        self._reader = IdentityReader(ReadDeviceId.REGULAR)
        self._asks_server_id = False

    def again(self) -> None:
        """A new connection: it may be another device."""
        self.is_due = True
        self._reader = IdentityReader(ReadDeviceId.REGULAR)
        self._asks_server_id = False

    def request(self) -> bytes:
        """The next request, while it is under way."""
        self.is_due = False
        return (not self._asks_server_id and self._reader.request()) or report_server_id()

    def take(self, event: Event) -> bool:
        """An answer. Whether there is another request to send."""
        if isinstance(event, Answer):
            try:
                return self._understood(event.data)
            except RemoteProtocolError as fault:
                self._give_up(str(fault))
                return False
        if isinstance(event, Refused) and not self._asks_server_id and not self._reader.objects:
            self._asks_server_id = True
            return True
        self._give_up(meaning(event.code) if isinstance(event, Refused) else "no answer that could be used")
        return False

    def _understood(self, data: bytes) -> bool:
        if self._asks_server_id:
            self._tell({SERVER_ID: text_of(server_id(data).data)})
            return False
        self._reader.take(data)
        if self._reader.request() is not None:
            return True
        objects = sorted(self._reader.objects.items())
        self._tell({OBJECT_NAMES.get(key, f"0x{key:02x}"): text_of(value) for key, value in objects})
        return False

    def _tell(self, identity: Mapping[str, str]) -> None:
        if self.device.identity != identity:
            _log.info("device says who it is", extra={"device": self.device.name, **identity})
        self.device.identity = dict(identity)

    def _give_up(self, reason: str) -> None:
        self.device.identity = {}
        _log.info("device does not say who it is", extra={"device": self.device.name, "reason": reason})


def text_of(value: bytes) -> str:
    """ASCII as text without padding, all else as hexadecimal digits."""
    text = value.decode("latin-1").strip(" \0")
    return text if text.isascii() and text.isprintable() else value.hex(" ")

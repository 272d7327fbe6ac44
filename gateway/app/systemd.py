"""What systemd is told."""

from __future__ import annotations

import os
import socket


def notify_systemd(message: str) -> None:
    """sd_notify(3): one datagram to $NOTIFY_SOCKET; nothing where systemd did not ask for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(message.encode(), address)

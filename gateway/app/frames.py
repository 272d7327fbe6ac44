"""`gateway frames LINK`: what goes over a wire of a running gateway, in words."""

from __future__ import annotations

import time
from typing import Final

import click

from gateway.api.source import Frames, FrameView
from gateway.app.watch import GatewayClient, interrupted_by_sigterm

LOOK_S: Final = 0.2
_SIGNS: Final = {"sent": ">", "received": "<", "fault": "!"}


def show_frames(link: str, *, for_s: float, with_hex: bool, url: str) -> int:
    """Print frames as they come until the time is over, Ctrl-C or SIGTERM. Returns the exit code.

    Raises `LinkError` when nothing listens at `url`, `NotAGateway` when it refuses, as for an unknown link.
    """
    client = GatewayClient(url)
    try:
        since = client.watch_frames(link, for_s=for_s).last
        ends_s = time.monotonic() + for_s
        try:
            with interrupted_by_sigterm():
                while time.monotonic() < ends_s:
                    time.sleep(LOOK_S)
                    since = _print(client.frames(link, since=since), since, with_hex=with_hex)
        except KeyboardInterrupt:
            pass
        client.watch_frames(link, for_s=0)
    finally:
        client.close()
    return 0


def _print(answer: Frames, since: int, *, with_hex: bool) -> int:
    if answer.missed:
        click.echo(f"… {answer.missed} frames came too fast to be shown")
    for frame in answer.frames:
        click.echo(_line(frame, with_hex=with_hex))
    return answer.frames[-1].number if answer.frames else since


def _line(frame: FrameView, *, with_hex: bool) -> str:
    digits = f"  [{frame.hex}]" if with_hex and frame.hex else ""
    return f"{frame.time[11:]} {_SIGNS[frame.way]} {frame.text}{digits}"

"""How a running simulator shows itself and hears: a live table with a prompt, or plain lines without one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from gateway.aio.lines_in import on_lines

DRAW_S: Final = 0.25
_TYPED_MAX: Final = 400  # characters
_ENTER, _BACK, _ERASE_LINE = "\r\n", "\x7f\b", "\x15"


class Prompt:
    """A line that is being typed, for a terminal that does not edit lines itself."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self.typed = ""
        self._take: Final = take

    def feed(self, text: str) -> None:
        """Characters as they come."""
        for character in text:
            if character in _ENTER:
                line, self.typed = self.typed, ""
                self._take(line)
            elif character in _BACK:
                self.typed = self.typed[:-1]
            elif character == _ERASE_LINE:
                self.typed = ""
            elif character.isprintable() and len(self.typed) < _TYPED_MAX:
                self.typed += character


@contextlib.contextmanager
def typing(prompt: Prompt) -> Iterator[None]:
    """The terminal hands over every character, and shows none itself."""
    fd, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    loop.add_reader(fd, lambda: prompt.feed(os.read(fd, 1024).decode(errors="replace")))
    try:
        yield
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


async def show(
    draw: Callable[[str | None], object], take: Callable[[str], None], *, console: Console
) -> None:
    """Draw until cancelled, and take lines: typed ones on a terminal, piped ones elsewhere."""
    if not console.is_terminal or console.is_dumb_terminal:
        on_lines(take)
        await asyncio.get_running_loop().create_future()
        return
    prompt = Prompt(take)
    has_input = sys.stdin.isatty()
    if not has_input:
        on_lines(take)
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(Live(console=console, auto_refresh=False, vertical_overflow="crop"))
        if has_input:
            stack.enter_context(typing(prompt))
        while True:
            live.update(draw(prompt.typed if has_input else None), refresh=True)  # type: ignore[arg-type]  # what `draw` gives can be drawn
            await asyncio.sleep(DRAW_S)


def say(text: str) -> None:
    """One plain line at once, whoever reads it."""
    click.echo(text)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()

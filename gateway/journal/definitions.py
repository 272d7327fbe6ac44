"""What a segment defines before it is used: names of streams, and layouts. Each segment reads alone."""

from __future__ import annotations

from gateway.core.errors import ConfigError, InvariantError
from gateway.core.point import Layout
from gateway.disk.log import Log
from gateway.journal import codec
from gateway.journal.codec import Layouts, RecordType
from gateway.journal.placed import LanePlaces


class Definitions:
    """Of the active segment of one lane. For the owner's thread."""

    def __init__(self, log: Log, places: LanePlaces, layouts: Layouts, config_version: str) -> None:
        self.config_version = config_version  # of layouts defined from now on
        self.layout_ids: dict[Layout, bytes] = {}
        self.tags: dict[str, int] = {}
        self._log = log
        self._places = places
        self._layouts = layouts
        self._layout_users: dict[bytes, bytes] = {}  # id → content
        self._names: dict[int, str] = {}  # every tag ever given out in this lane

    def clear(self) -> None:
        """Another segment begins."""
        self.layout_ids.clear()
        self.tags.clear()
        self._layout_users.clear()

    def reserve(self, stream: str) -> int:
        """The stream's tag. Raises `ConfigError` where another one has it."""
        tag = codec.stream_tag(stream)
        if self._names.setdefault(tag, stream) != stream:
            raise ConfigError(f"streams {stream} and {self._names[tag]} have the same checksum: rename one")
        return tag

    def stream(self, stream: str) -> int:
        """Define it; its tag."""
        tag = self.reserve(stream)
        if (active := self._log.active) is not None:
            self._places.book(active).add_stream(tag, active.planned)
        self._log.append(RecordType.STREAM, self._log.end, 0, 0, codec.encode_stream(stream))
        self.tags[stream] = tag
        return tag

    def layout(self, layout: Layout) -> bytes:
        """Define it; its id."""
        content = self._layouts.register(layout)
        layout_id, body = codec.encode_definition(content, self.config_version)
        if self._layout_users.setdefault(layout_id, content) != content:
            raise InvariantError(
                f"{layout!r}: its definition has the checksum of another one; rename its scan class"
            )
        if (active := self._log.active) is not None:
            self._places.book(active).add_layout(layout_id, active.planned)
        self._log.append(RecordType.LAYOUT, self._log.end, 0, 0, body)
        self.layout_ids[layout] = layout_id
        return layout_id

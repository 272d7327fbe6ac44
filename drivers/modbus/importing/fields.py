"""One mapping of a foreign file: what is asked for is read, what nobody asked for gets a remark."""

from __future__ import annotations

from collections.abc import Iterator

from drivers.modbus.importing.basket import Basket
from gateway.config.scalars import shown
from gateway.config.tree import Mapping, Node, Place, Scalar, Sequence, plain


class Fields:
    """Keys of one mapping. `what` names it in remarks."""

    def __init__(self, node: Mapping, basket: Basket, what: str) -> None:
        self.node = node
        self._basket = basket
        self._what = what
        self._asked: set[str] = set()

    @property
    def where(self) -> Place:
        """Where the mapping begins."""
        return self.node.place

    def place(self, key: str) -> Place:
        """Where a key stands, else where the mapping begins."""
        return self.node.places.get(key, self.node.place)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self.node.items

    def value(self, *keys: str) -> object:
        """The first of the keys that is there, without its place; None where none is."""
        self._asked.update(keys)
        for key in keys:
            child = self.node.items.get(key)
            if child is not None:
                return plain(child)
        return None

    def text(self, *keys: str, default: str = "") -> str:
        """Text; numbers count as text."""
        value = self.value(*keys)
        if value is None:
            return default
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value)
        self._wrong(keys, value, "text")
        return default

    def number(self, *keys: str) -> float | int | None:
        """A number, also one in quotes, also hexadecimal."""
        value = self.value(*keys)
        if value is None or value == "":
            return None
        number = number_of(value)
        if number is None:
            self._wrong(keys, value, "a number")
        return number

    def whole(self, *keys: str) -> int | None:
        """A whole number."""
        number = self.number(*keys)
        if number is None or number == int(number):
            return None if number is None else int(number)
        self._wrong(keys, number, "a whole number")
        return None

    def flag(self, key: str, *, default: bool) -> bool:
        """true or false."""
        value = self.value(key)
        return default if value is None else value is True or value in ("true", 1)

    def lists(self, key: str) -> list[Fields]:
        """The mappings in a list, each for itself."""
        self._asked.add(key)
        child = self.node.items.get(key)
        if child is None:
            return []
        if not isinstance(child, Sequence):
            self._wrong((key,), plain(child), "a list")
            return []
        return list(self._of_list(key, child))

    def _of_list(self, key: str, node: Sequence) -> Iterator[Fields]:
        for item in node.items:
            if isinstance(item, Mapping):
                yield Fields(item, self._basket, _name(item, key))
            else:
                self._basket.remark(item.place, f"{key}: found {shown(plain(item))}, expected a mapping")

    def inner(self, key: str) -> Fields | None:
        """The mapping under a key."""
        self._asked.add(key)
        child = self.node.items.get(key)
        if isinstance(child, Mapping):
            return Fields(child, self._basket, f"{self._what} {key}")
        if child is not None and not (isinstance(child, Scalar) and child.value is None):
            self._wrong((key,), plain(child), "a mapping")
        return None

    def node_of(self, key: str) -> Node | None:
        """Whatever is under a key."""
        self._asked.add(key)
        return self.node.items.get(key)

    def ignore(self, *keys: str) -> None:
        """Keys that mean nothing here: how the other program shows a value, or does what we do anyway."""
        self._asked.update(keys)

    def close(self) -> None:
        """A remark for each key that nobody asked for."""
        self._basket.unknown_keys(self.node, self._asked, self._what)

    def _wrong(self, keys: tuple[str, ...], value: object, expected: str) -> None:
        key = next((one for one in keys if one in self.node.items), keys[0])
        self._basket.remark(self.place(key), f"{self._what}: {key} is {shown(value)}, expected {expected}")


def number_of(value: object) -> float | int | None:
    """A number, or text that is one; None for anything else, infinity and what is too long."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        if isinstance(value, str):
            text = value.strip()
            value = int(text, 16) if text.lower().startswith(("0x", "-0x")) else _parsed(text)
        return value if abs(value) < 1e300 else None
    except (ValueError, OverflowError):
        return None


def _parsed(text: str) -> float | int:
    if len(text) > 40:
        raise ValueError("too long")
    try:
        return int(text)
    except ValueError:
        return float(text)


def _name(node: Mapping, key: str) -> str:
    for word in ("name", "tag", "title", "deviceName", "id"):
        child = node.items.get(word)
        if isinstance(child, Scalar) and isinstance(child.value, str):
            return f"'{child.value}'"
    return key

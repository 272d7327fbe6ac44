"""libmodbus through ctypes: its server in a thread, its client as calls. The library comes with mbpoll."""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.peers import require

LOOPBACK = b"127.0.0.1"
ITEMS = 112  # of each table of the server
_ADU_SIZE_MAX = 260


class _Mapping(ctypes.Structure):
    """modbus_mapping_t of libmodbus 3.1."""

    _fields_ = (
        ("nb_bits", ctypes.c_int),
        ("start_bits", ctypes.c_int),
        ("nb_input_bits", ctypes.c_int),
        ("start_input_bits", ctypes.c_int),
        ("nb_input_registers", ctypes.c_int),
        ("start_input_registers", ctypes.c_int),
        ("nb_registers", ctypes.c_int),
        ("start_registers", ctypes.c_int),
        ("tab_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_registers", ctypes.POINTER(ctypes.c_uint16)),
        ("tab_registers", ctypes.POINTER(ctypes.c_uint16)),
    )


def library() -> ctypes.CDLL:
    """The shared library; skips (fails in CI) where it is missing."""
    require("mbpoll")
    path = ctypes.util.find_library("modbus")
    if path is None:
        pytest.skip("libmodbus is not there")
    lib = ctypes.CDLL(path, use_errno=True)
    lib.modbus_new_tcp.restype = ctypes.c_void_p
    lib.modbus_mapping_new.restype = ctypes.POINTER(_Mapping)
    lib.modbus_strerror.restype = ctypes.c_char_p
    return lib


@contextmanager
def server() -> Iterator[int]:
    """ITEMS in each table: coils and inputs every third one on, registers 0, 1, 2 … Yields the port."""
    lib = library()
    context = ctypes.c_void_p(lib.modbus_new_tcp(LOOPBACK, 0))
    # After a request that it refuses for its size libmodbus waits this long and throws away what came.
    lib.modbus_set_response_timeout(context, 0, 1000)
    mapping = lib.modbus_mapping_new(ITEMS, ITEMS, ITEMS, ITEMS)
    for number in range(ITEMS):
        mapping.contents.tab_bits[number] = mapping.contents.tab_input_bits[number] = number % 3 == 0
        mapping.contents.tab_registers[number] = mapping.contents.tab_input_registers[number] = number
    listener = lib.modbus_tcp_listen(context, 1)
    assert listener >= 0
    with socket.socket(fileno=listener) as owned:
        port = owned.getsockname()[1]
        stopping = threading.Event()

        def serve() -> None:
            query = (ctypes.c_uint8 * _ADU_SIZE_MAX)()
            fd = ctypes.c_int(listener)
            while not stopping.is_set():
                if lib.modbus_tcp_accept(context, ctypes.byref(fd)) < 0:
                    return
                while not stopping.is_set():
                    size = lib.modbus_receive(context, query)
                    if size < 0:
                        break
                    if size > 0:
                        lib.modbus_reply(context, query, size, mapping)
                lib.modbus_close(context)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield port
        finally:
            stopping.set()
            socket.create_connection(("127.0.0.1", port)).close()
            thread.join(10)
            lib.modbus_mapping_free(mapping)
            lib.modbus_free(context)


class Client:
    """A client of libmodbus."""

    def __init__(self, port: int, *, unit: int) -> None:
        self._lib = library()
        self._context = ctypes.c_void_p(self._lib.modbus_new_tcp(LOOPBACK, port))
        self._lib.modbus_set_slave(self._context, unit)
        assert self._lib.modbus_connect(self._context) == 0, self.error()

    def error(self) -> str:
        """Why the last call failed."""
        return str(self._lib.modbus_strerror(ctypes.get_errno()).decode())

    def write_and_read(self, *, write_start: int, values: list[int], start: int, count: int) -> list[int]:
        """Function 23."""
        written, found = (ctypes.c_uint16 * len(values))(*values), (ctypes.c_uint16 * count)()
        self._check(
            self._lib.modbus_write_and_read_registers(
                self._context, write_start, len(values), written, start, count, found
            )
        )
        return list(found)

    def report_server_id(self) -> bytes:
        """Function 17."""
        found = (ctypes.c_uint8 * _ADU_SIZE_MAX)()
        size = self._check(self._lib.modbus_report_slave_id(self._context, _ADU_SIZE_MAX, found))
        return bytes(found[:size])

    def mask_write(self, address: int, *, and_mask: int, or_mask: int) -> None:
        """Function 22."""
        self._check(self._lib.modbus_mask_write_register(self._context, address, and_mask, or_mask))

    def read(self, start: int, count: int) -> list[int]:
        """Function 3."""
        found = (ctypes.c_uint16 * count)()
        self._check(self._lib.modbus_read_registers(self._context, start, count, found))
        return list(found)

    def close(self) -> None:
        self._lib.modbus_close(self._context)
        self._lib.modbus_free(self._context)

    def _check(self, result: int) -> int:
        if result < 0:
            raise OSError(self.error())
        return result

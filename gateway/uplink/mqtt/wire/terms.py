"""Words of the standard that every module here uses: protocol versions and control packet types."""

from __future__ import annotations

import enum
from typing import Final


class Version(enum.IntEnum):
    """Protocol Version, the byte in CONNECT (MQTT 5.0 and 3.1.1 §3.1.2.2)."""

    V311 = 4
    V5 = 5


class PacketType(enum.IntEnum):
    """MQTT Control Packet type, the high nibble of the first byte (MQTT 5.0 §2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


PACKET_ID_MAX: Final = 65_535  # Two Byte Integer, zero is not used (MQTT 5.0 §2.2.1)
STRING_BYTES_MAX: Final = 65_535  # UTF-8 Encoded String and Binary Data (MQTT 5.0 §1.5.4, §1.5.6)
VARINT_MAX: Final = 268_435_455  # Variable Byte Integer (MQTT 5.0 §1.5.5), thus of a Remaining Length
PACKET_BYTES_MAX: Final = VARINT_MAX + 5  # with its fixed header

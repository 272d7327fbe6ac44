"""Information elements: what is in one information object of each type, and the bits inside its octets.

Every type of a fixed size is one `struct` format; its fields are the columns of an `Asdu`. Octets with
several meanings stay whole, so that a decoded ASDU encodes to the very same octets, reserved bits included;
the functions and flags here take them apart. Layouts: IEC 60870-5-101 §7.2.6 and §7.3, as found in
Wireshark's dissector, in the type pages of Beckhoff TF6500 and in the description of Apache PLC4X.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from drivers.iec104.wire.terms import TypeId as T

NORMALIZED_UNIT: Final = 32768  # NVA is a fraction F16: its integer is a multiple of 2**-15, §7.2.6.6


class Layout(msgspec.Struct, frozen=True):
    """Fields of one information object, in order, without its address. `format`: of `struct`."""

    format: str
    fields: tuple[str, ...]


class Quality(enum.IntFlag):
    """Quality descriptors: QDS, and the same bits in SIQ, DIQ, SEP and QDP (§7.2.6.1 to §7.2.6.4).

    OV exists in QDS only, EI (elapsed time invalid) in SEP and QDP only.
    """

    OV = 0x01
    EI = 0x08
    BL = 0x10
    SB = 0x20
    NT = 0x40
    IV = 0x80


class CounterFlag(enum.IntFlag):
    """Flags beside the sequence number (0..31) of a binary counter reading (BCR, §7.2.6.9)."""

    CY = 0x20
    CA = 0x40
    IV = 0x80


class DoublePoint(enum.IntEnum):
    """DPI, and DCS of a double command, where 0 and 3 are not permitted (§7.2.6.2, §7.2.6.16)."""

    INTERMEDIATE = 0
    OFF = 1
    ON = 2
    INDETERMINATE = 3


class Step(enum.IntEnum):
    """RCS of a regulating step command; 0 and 3 are not permitted (§7.2.6.17)."""

    LOWER = 1
    HIGHER = 2


class Pulse(enum.IntEnum):
    """QU of a command (§7.2.6.26); 9..15 other predefined functions, 16..31 private."""

    UNSPECIFIED = 0
    SHORT = 1
    LONG = 2
    PERSISTENT = 3


class Freeze(enum.IntEnum):
    """FRZ of a counter interrogation (§7.2.6.23)."""

    READ = 0
    FREEZE = 1
    FREEZE_AND_RESET = 2
    RESET = 3


SPI: Final = 0x01  # of SIQ
SELECT: Final = 0x80  # S/E of SCO, DCO, RCO and QOS: 1 select, 0 execute (§7.2.6.26, §7.2.6.39)
STATE_MASK: Final = 0x03  # of DIQ, DCO, RCO and SEP
QOC_SHIFT: Final = 2  # of QU in a command octet
QOC_MASK: Final = 0x1F
QL_MASK: Final = 0x7F  # of QOS
COUNTER_SEQUENCE_MASK: Final = 0x1F  # of BCR
TRANSIENT: Final = 0x80  # of VTI
STEP_POSITION_MIN: Final = -64
STEP_POSITION_MAX: Final = 63
QOI_STATION: Final = 20  # 21..36 group 1 to 16 (§7.2.6.22)
QCC_GENERAL: Final = 5  # RQT; 1..4 counter group 1 to 4 (§7.2.6.23)
RQT_MASK: Final = 0x3F
FREEZE_SHIFT: Final = 6
TEST_PATTERN: Final = 0x55AA  # FBP of C_TS_NA_1 (§7.2.6.14)


def step_position(vti: int) -> tuple[int, bool]:
    """VTI: position -64..63, and whether the equipment is in a transient state (§7.2.6.5)."""
    value = vti & 0x7F
    return (value - 0x80 if value & 0x40 else value), bool(vti & TRANSIENT)


def vti(position: int, *, transient: bool = False) -> int:
    """The octet of a step position. Raises ValueError outside -64..63."""
    if not STEP_POSITION_MIN <= position <= STEP_POSITION_MAX:
        raise ValueError(
            f"step position: found {position}, expected {STEP_POSITION_MIN}..{STEP_POSITION_MAX}"
        )
    return position & 0x7F | (TRANSIENT if transient else 0)


def normalized(nva: int) -> float:
    """NVA as a fraction, -1 to 1 - 2**-15, exactly."""
    return nva / NORMALIZED_UNIT


def nva(fraction: float) -> int:
    """The nearest NVA. Raises ValueError below -1 or above 1 - 2**-15."""
    found = round(fraction * NORMALIZED_UNIT)
    if not -NORMALIZED_UNIT <= found < NORMALIZED_UNIT:
        raise ValueError(f"normalized value: found {fraction}, expected -1 to {1 - 1 / NORMALIZED_UNIT}")
    return found


def command(state: int, *, pulse: int = Pulse.UNSPECIFIED, select: bool = False) -> int:
    """SCO, DCO or RCO. `state`: 0/1 of a single command, DCS, or RCS. Raises ValueError out of range."""
    if not 0 <= state <= STATE_MASK or not 0 <= pulse <= QOC_MASK:
        raise ValueError(f"command: found state {state} and qualifier {pulse}, expected 0..3 and 0..31")
    return state | pulse << QOC_SHIFT | (SELECT if select else 0)


def counter_interrogation(request: int = QCC_GENERAL, freeze: Freeze = Freeze.READ) -> int:
    """QCC. Raises ValueError for a request outside 0..63."""
    if not 0 <= request <= RQT_MASK:
        raise ValueError(f"RQT: found {request}, expected 0..{RQT_MASK}")
    return request | freeze << FREEZE_SHIFT


# --- layouts -----------------------------------------------------------------------------------------------

_CP16 = ("H", ("elapsed",))
_CP24 = ("3s", ("time",))
_CP56 = ("7s", ("time",))
_PLAIN: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "SP": ("B", ("siq",)),
        "DP": ("B", ("diq",)),
        "ST": ("BB", ("vti", "qds")),
        "BO": ("IB", ("bsi", "qds")),
        "ME_A": ("hB", ("nva", "qds")),
        "ME_B": ("hB", ("sva", "qds")),
        "ME_C": ("fB", ("value", "qds")),
        "IT": ("iB", ("counter", "bcr")),
        "SEP": ("BH", ("sep", "elapsed")),
        "SPE": ("BBH", ("spe", "qdp", "elapsed")),
        "OCI": ("BBH", ("oci", "qdp", "elapsed")),
        "SCO": ("B", ("sco",)),
        "DCO": ("B", ("dco",)),
        "RCO": ("B", ("rco",)),
        "SE_A": ("hB", ("nva", "qos")),
        "SE_B": ("hB", ("sva", "qos")),
        "SE_C": ("fB", ("value", "qos")),
        "CBO": ("I", ("bsi",)),
    }
)


def _layout(name: str, time: tuple[str, tuple[str, ...]] = ("", ())) -> Layout:
    form, fields = _PLAIN[name]
    return Layout(form + time[0], fields + time[1])


LAYOUTS: Final[Mapping[int, Layout]] = MappingProxyType(
    {
        T.M_SP_NA_1: _layout("SP"),
        T.M_SP_TA_1: _layout("SP", _CP24),
        T.M_DP_NA_1: _layout("DP"),
        T.M_DP_TA_1: _layout("DP", _CP24),
        T.M_ST_NA_1: _layout("ST"),
        T.M_ST_TA_1: _layout("ST", _CP24),
        T.M_BO_NA_1: _layout("BO"),
        T.M_BO_TA_1: _layout("BO", _CP24),
        T.M_ME_NA_1: _layout("ME_A"),
        T.M_ME_TA_1: _layout("ME_A", _CP24),
        T.M_ME_NB_1: _layout("ME_B"),
        T.M_ME_TB_1: _layout("ME_B", _CP24),
        T.M_ME_NC_1: _layout("ME_C"),
        T.M_ME_TC_1: _layout("ME_C", _CP24),
        T.M_IT_NA_1: _layout("IT"),
        T.M_IT_TA_1: _layout("IT", _CP24),
        T.M_EP_TA_1: _layout("SEP", _CP24),
        T.M_EP_TB_1: _layout("SPE", _CP24),
        T.M_EP_TC_1: _layout("OCI", _CP24),
        T.M_PS_NA_1: Layout("HHB", ("status", "changes", "qds")),  # SCD: ST and CD, §7.2.6.40
        T.M_ME_ND_1: Layout("h", ("nva",)),
        T.M_SP_TB_1: _layout("SP", _CP56),
        T.M_DP_TB_1: _layout("DP", _CP56),
        T.M_ST_TB_1: _layout("ST", _CP56),
        T.M_BO_TB_1: _layout("BO", _CP56),
        T.M_ME_TD_1: _layout("ME_A", _CP56),
        T.M_ME_TE_1: _layout("ME_B", _CP56),
        T.M_ME_TF_1: _layout("ME_C", _CP56),
        T.M_IT_TB_1: _layout("IT", _CP56),
        T.M_EP_TD_1: _layout("SEP", _CP56),
        T.M_EP_TE_1: _layout("SPE", _CP56),
        T.M_EP_TF_1: _layout("OCI", _CP56),
        T.C_SC_NA_1: _layout("SCO"),
        T.C_DC_NA_1: _layout("DCO"),
        T.C_RC_NA_1: _layout("RCO"),
        T.C_SE_NA_1: _layout("SE_A"),
        T.C_SE_NB_1: _layout("SE_B"),
        T.C_SE_NC_1: _layout("SE_C"),
        T.C_BO_NA_1: _layout("CBO"),
        T.C_SC_TA_1: _layout("SCO", _CP56),
        T.C_DC_TA_1: _layout("DCO", _CP56),
        T.C_RC_TA_1: _layout("RCO", _CP56),
        T.C_SE_TA_1: _layout("SE_A", _CP56),
        T.C_SE_TB_1: _layout("SE_B", _CP56),
        T.C_SE_TC_1: _layout("SE_C", _CP56),
        T.C_BO_TA_1: _layout("CBO", _CP56),
        T.M_EI_NA_1: Layout("B", ("coi",)),
        T.C_IC_NA_1: Layout("B", ("qoi",)),
        T.C_CI_NA_1: Layout("B", ("qcc",)),
        T.C_RD_NA_1: Layout("", ()),
        T.C_CS_NA_1: Layout(*_CP56),
        T.C_TS_NA_1: Layout("H", ("fbp",)),
        T.C_RP_NA_1: Layout("B", ("qrp",)),
        T.C_CD_NA_1: Layout(*_CP16),
        T.C_TS_TA_1: Layout("H7s", ("tsc", "time")),
        T.P_ME_NA_1: Layout("hB", ("nva", "qpm")),
        T.P_ME_NB_1: Layout("hB", ("sva", "qpm")),
        T.P_ME_NC_1: Layout("fB", ("value", "qpm")),
        T.P_AC_NA_1: Layout("B", ("qpa",)),
        T.F_FR_NA_1: Layout("H3sB", ("nof", "lof", "frq")),
        T.F_SR_NA_1: Layout("HB3sB", ("nof", "nos", "lof", "srq")),
        T.F_SC_NA_1: Layout("HBB", ("nof", "nos", "scq")),
        T.F_LS_NA_1: Layout("HBBB", ("nof", "nos", "lsq", "chs")),
        T.F_AF_NA_1: Layout("HBB", ("nof", "nos", "afq")),
        T.F_DR_TA_1: Layout("H3sB7s", ("nof", "lof", "sof", "time")),
        T.F_SC_NB_1: Layout("H7s7s", ("nof", "start", "stop")),
    }
)
SEGMENT: Final = Layout("HBB", ("nof", "nos", "segment"))  # F_SG_NA_1: the third octet counts the segment's

"""Everything that grows with traffic has a limit, a metric and a line in the documentation."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.limits import DOCUMENT, bounds, with_table
from tests.test_architecture import module_name, python_files, tree_of

CONTAINERS = {"deque", "OrderedDict", "Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"}
EXEMPT = {  # what is bounded by something that is counted elsewhere
    "gateway.flow.outbox.Outbox._chunk": "one read of READ_BYTES_MAX, handed out before the next",
    "gateway.journal.jobs.Jobs._waiting": "one piece of thinning for each lane, and only in virtual time",
    "gateway.disk.writer.Writer.latencies_ns": "a ring for percentiles: nothing is lost",
    "gateway.disk.writer.Writer._finished": "groups of the journal's buffer, counted there",
    "gateway.disk.writer.Writer._due": "callbacks of these groups",
    "gateway.disk.writer.Writer._deletions": "segments of the journal, each once",
    "gateway.app.status._Rates._samples": "a ring of seconds: nothing is lost",
    "gateway.app.status._Notices.last": "a ring of what the log has",
    "gateway.uplink.mqtt.uplink.MqttUplink._pending": "the messages of one record",
    "gateway.uplink.mqtt.wire.incoming._Lane.order": "bounded by our Receive Maximum",
    "gateway.uplink.mqtt.wire.outgoing.Outgoing.waiting": "a part of the messages in flight",
    "gateway.core.frames.FrameLog._ring": "a ring for people while they look",
    "drivers.modbus.wire.line_server_session.LineServerSession._slots": "QUEUED_MAX for a connection",
    "drivers.iec104.wire.window.SendWindow.waiting": "queue_max; no driver yet",
    "drivers.iec104.wire.window.SendWindow.in_flight": "k",
    "drivers.iec104.wire.window.ReceiveWindow._arrivals": "UNACKNOWLEDGED_MAX; no driver yet",
    "gateway.app.demo.mqtt_client.MqttClient._messages": "of the demo",
    "gateway.app.simulate.board.Board.latest": "a ring of what the simulator shows last",
}


def container_attributes(tree: ast.Module) -> Iterator[str]:
    """`Class.attribute` of everything made by a call of a container that queues are made of."""
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.ClassDef):
            continue
        for node in ast.walk(owner):
            if isinstance(node, ast.AnnAssign):
                target: ast.expr = node.target
            elif isinstance(node, ast.Assign):
                target = node.targets[0]
            else:
                continue
            if not (isinstance(target, ast.Attribute) and isinstance(node.value, ast.Call)):
                continue
            called = node.value.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in CONTAINERS:
                yield f"{owner.name}.{target.attr}"


def held() -> set[str]:
    """What the bounds say they stand for; a name with a module in it is of a neighbour."""
    found = set()
    for where, bound in bounds().items():
        module = where.rpartition(".")[0]
        for name in bound.holds:
            room = module.rpartition(".")[0] if name.count(".") > 1 else module
            found.add(f"{room}.{name}")
    return found


def test_every_queue_has_a_bound_or_a_reason() -> None:
    queues = {
        f"{module_name(path)}.{attribute}"
        for path in python_files("gateway", "drivers", "firmware_bridge")
        for attribute in container_attributes(tree_of(path))
    }
    assert len(queues) > 15
    missing = sorted(queues - held() - EXEMPT.keys())
    assert not missing, f"give each a `Bound` and a level, or a reason in EXEMPT: {missing}"


def test_what_is_declared_and_what_is_exempt_is_there() -> None:
    text = {module_name(path): path.read_text() for path in python_files("gateway", "drivers")}
    for where in held() | EXEMPT.keys():
        module, _class, attribute = where.rsplit(".", 2)
        assert re.search(rf"\b{attribute}\b", text[module]), where


def test_names_follow_the_rule_and_are_used_once() -> None:
    found = bounds().values()
    names = Counter(name for b in found for name in (b.depth_name, b.limit_name, b.lost_name) if name)
    assert not [name for name, count in names.items() if count > 1]
    for name in names:
        assert re.fullmatch(r"gateway_[a-z0-9_]+", name)
    for bound in found:
        assert not {"tag", "point"} & set(bound.labels)
        assert bound.what
        assert bound.beyond


def test_the_table_is_that_of_the_code() -> None:
    text = DOCUMENT.read_text()
    assert text == with_table(text), "run `python -m tests.limits`"


@pytest.mark.parametrize(
    "source",
    ["self.a: deque[int] = deque()", "self.a = deque(maxlen=3)", "self.a = collections.OrderedDict()"],
)
def test_queues_are_found(source: str) -> None:
    tree = ast.parse(f"class A:\n    def __init__(self):\n        {source}\n")
    assert list(container_attributes(tree)) == ["A.a"]

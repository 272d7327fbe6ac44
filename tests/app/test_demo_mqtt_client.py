"""The demo's witness at the broker: against mosquitto, and against bytes that make no sense."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.demo import broker as brokers
from gateway.app.demo.mqtt_client import Level, Message, MqttClient, _variable_length
from gateway.app.demo.ports import _free_port
from gateway.core.errors import LinkError, RemoteProtocolError
from tests.peers import require


def client_with(data: bytes) -> tuple[MqttClient, socket.socket]:
    """A client whose connection already holds `data`, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    client = MqttClient(host="127.0.0.1", port=1, client_id="x", level=Level.V5)
    client._socket = ours
    client._last_sent_ns = time.monotonic_ns()
    return client, theirs


@pytest.mark.interop
@pytest.mark.parametrize("level", list(Level))
def test_a_message_there_and_back_through_mosquitto(level: Level, tmp_path: Path) -> None:
    require("mosquitto")
    broker = brokers.start(brokers.BrokerKind.MOSQUITTO, directory=tmp_path, port=_free_port())
    try:
        broker.wait_ready()
        reader = MqttClient(host="127.0.0.1", port=broker.port, client_id="reader", level=level)
        writer = MqttClient(host="127.0.0.1", port=broker.port, client_id="writer", level=level)
        for client in (reader, writer):
            client.connect()
        reader.subscribe("a/#")
        payloads = [b"", b"x", b"y" * 200, b"z" * 70_000]
        for payload in payloads:
            writer.publish("a/b", payload)
        found: list[Message] = []
        while len(found) < len(payloads):
            more = reader.messages(wait_s=5.0)
            assert more, "nothing came within 5 s"
            found += more
        assert [message.payload for message in found] == payloads
        assert {(message.topic, message.qos, message.retained) for message in found} == {("a/b", 1, False)}
        reader.close()
        writer.close()
    finally:
        assert broker.child.stop() == 0


def test_nobody_there_is_a_link_error() -> None:
    client = MqttClient(host="127.0.0.1", port=_free_port(), client_id="x")
    with pytest.raises(LinkError, match=r"mqtt://127\.0\.0\.1:\d+: Connection refused"):
        client.connect()


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (bytes.fromhex("2003008700"), LinkError, "refused the connection, reason 0x87"),  # not authorized
        (bytes.fromhex("d000"), LinkError, "no answer"),  # a PINGRESP is no CONNACK
        (bytes.fromhex("90030001 00".replace(" ", "")), RemoteProtocolError, "expected CONNACK"),
        (b"\x20\xff\xff\xff\xff\x7f", RemoteProtocolError, "remaining length"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", LinkError, "no answer|closed"),
        (b"", LinkError, "closed the connection"),
    ],
)
def test_an_answer_that_is_no_welcome(answer: bytes, error: type[Exception], words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def welcome() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)
                if answer:
                    connection.recv(1024)  # stay until the client gives up

        thread = threading.Thread(target=welcome)
        thread.start()
        client = MqttClient(host="127.0.0.1", port=server.getsockname()[1], client_id="x")
        with pytest.raises(error, match=words):
            client.connect(timeout_s=0.3)
        client.close()
        thread.join(5)


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_an_error_of_ours(data: bytes) -> None:
    client, theirs = client_with(data)
    with contextlib.suppress(LinkError, RemoteProtocolError):
        for message in client.messages(wait_s=0):
            assert isinstance(message.topic, str)
    client.close()
    theirs.close()


@given(
    st.text(max_size=20).filter(lambda text: "\x00" not in text), st.binary(max_size=300), st.integers(1, 7)
)
def test_a_publish_is_read_whole_or_in_pieces(topic: str, payload: bytes, piece: int) -> None:
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + b"\x00\x05" + b"\x00" + payload  # packet id 5, no properties
    packet = b"\x32" + _variable_length(len(body)) + body
    client, theirs = client_with(b"")
    found: list[Message] = []
    for start in range(0, len(packet), piece * 50):
        theirs.sendall(packet[start : start + piece * 50])
        found += client.messages(wait_s=0)
    assert found == [Message(topic, payload, 1, False, False)]
    assert theirs.recv(10) == bytes.fromhex("40020005"), "MQTT 5.0 §3.4: PUBACK with its packet identifier"
    client.close()
    theirs.close()


def test_a_publish_shorter_than_it_says_is_refused() -> None:
    client, theirs = client_with(bytes.fromhex("3204 0008 6162".replace(" ", "")))
    with pytest.raises(RemoteProtocolError, match="malformed PUBLISH"):
        client.messages(wait_s=0)
    client.close()
    theirs.close()


def test_a_packet_beyond_the_limit_is_refused_before_it_is_held() -> None:
    client, theirs = client_with(b"\x30\xff\xff\xff\x7f" + b"x" * 100)
    with pytest.raises(RemoteProtocolError, match="expected at most 1048576"):
        client.messages(wait_s=0)
    client.close()
    theirs.close()

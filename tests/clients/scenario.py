"""The test of every Python client: the echo path, then publish/subscribe. Each client has an adapter:

    name                            for the report
    await connect(url)              an open connection, permessage-deflate offered:
        await send(text_or_bytes)
        await receive()             str, bytes, or Closed
        await ping(payload)         returns when the pong has arrived
        await close(code, reason)   returns the Closed that came back
        compressed                  whether the server accepted the compression that was offered
"""

import asyncio
import hashlib
import hmac
import json
import os
import re
from dataclasses import dataclass

URL = os.environ["CORECAST_URL"]
BIG_URL = os.environ["CORECAST_BIG_URL"]
ADMIN_SOCKET = os.environ["CORECAST_ADMIN_SOCKET"]
KEY, SECRET = os.environ["CORECAST_TEST_KEY"].split(":")
ECHO_PATH = "/echo"
MESSAGE_BYTES_MAX = 64 * 1024
BIG_BYTES_MAX = 16 * 1024 * 1024
TIMEOUT_S = 60


@dataclass
class Closed:
    code: int
    reason: str


class Admin:
    """The admin socket: one JSON object a line in each direction."""

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_unix_connection(ADMIN_SOCKET, limit=1 << 20)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def ask(self, *requests):
        self.writer.write(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
        replies = [json.loads(await self.reader.readline()) for _ in requests]
        assert all(reply["ok"] for reply in replies), replies
        return replies


def publish(channel, data):
    return {"command": "publish", "channel": channel, "event": "count", "data": data}


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"{str(found)[:300]!r} is not {str(expected)[:300]!r}")


async def echo(client):
    connection = await client.connect(URL + ECHO_PATH)
    equal(connection.compressed, False)
    # A message that is a request on other paths is echoed too, and no greeting comes before it.
    for text in ["", '{"event":"socket:ping","data":{"id":1}}', "语言 🦀", "*" * 125, "*" * 126, "*" * MESSAGE_BYTES_MAX]:
        await connection.send(text)
        equal(await connection.receive(), text)
    for length in [0, 1, 126, 65_535, MESSAGE_BYTES_MAX]:
        await connection.send(bytes(length))
        equal(await connection.receive(), bytes(length))
    await connection.ping(b"are you there")
    for number in range(1000):
        await connection.send(f"pipelined {number}")
    for number in range(1000):
        equal(await connection.receive(), f"pipelined {number}")
    equal(await connection.close(4321, "enough"), Closed(4321, ""))

    connection = await client.connect(URL + ECHO_PATH)
    await connection.send("*" * (MESSAGE_BYTES_MAX + 1))
    equal((await connection.receive()).code, 1009)

    connection = await client.connect(BIG_URL + ECHO_PATH)
    await connection.send(bytes(BIG_BYTES_MAX))
    equal(await connection.receive(), bytes(BIG_BYTES_MAX))
    equal(await connection.close(1000, ""), Closed(1000, ""))


SOCKET_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{1,20}\.[0-9]{1,20}"


def sign(socket_id, channel, mine):
    """Signs as a backend does for a user who may join `mine` only."""
    # An unchecked socket_id or channel could make this the signature of another channel, or of an HTTP request.
    is_channel = re.fullmatch(r"private-[A-Za-z0-9_=@,.;/-]{0,192}", channel) and channel == mine
    if not re.fullmatch(SOCKET_ID, socket_id) or not is_channel:
        raise PermissionError("refused")
    return KEY + ":" + hmac.new(SECRET.encode(), f"{socket_id}:{channel}".encode(), hashlib.sha256).hexdigest()


def forged(mine):
    """Pairs of a socket_id and a channel that must not be signed for a user who may join `mine` only."""
    request = f"POST\n/apps/1/events\nauth_key={KEY}&auth_timestamp=1&auth_version=1.0&body_md5=0&z="
    ids = ["1234.1234:private-victim", request, "1234.1234\n"]
    return [(socket_id, mine) for socket_id in ids] + [("1234.1234", f"{mine}:private-victim")]


def is_refused(error, call, *arguments):
    try:
        call(*arguments)
    except error:
        return True
    return False


async def channels(client):
    public, private = f"news:{client.name}", f"private-news-{client.name}"
    connection = await client.connect(URL + "/anything")
    equal(connection.compressed, False)

    async def ask(event, data):
        await connection.send(json.dumps({"event": event, "data": data}))

    async def heard():
        message = await connection.receive()
        assert isinstance(message, str), message
        return json.loads(message)

    async def fails(event, code, channel=None):
        reply = await heard()
        equal((reply["event"], reply.get("channel"), reply["data"]["code"]), (event, channel, code))
        return reply["data"]["error"]

    async def fence():
        await ask("socket:ping", {"id": "fence"})
        equal(await heard(), {"event": "socket:pong", "data": {"reply": "fence"}})

    connected = await heard()
    equal(connected["event"], "socket:connected")
    equal(connected["data"]["heart"], {"interval": 30, "timeout": 25})
    socket_id = connected["data"]["socket_id"]

    await ask("socket:subscribe", {"channel": public})
    equal(await heard(), {"event": "socket:subscribed", "channel": public})
    await ask("socket:subscribe", {"channel": private})
    await fails("socket:subscribe.error", "auth_required", private)
    await ask("socket:subscribe", {"channel": private, "auth": f"{KEY}:{'0' * 64}"})
    await fails("socket:subscribe.error", "auth_invalid", private)
    for pair in forged(private):
        assert is_refused(PermissionError, sign, *pair, private), pair
    await ask("socket:subscribe", {"channel": private, "auth": sign(socket_id, private, private)})
    equal(await heard(), {"event": "socket:subscribed", "channel": private})

    async with Admin() as admin:
        replies = await admin.ask(*(publish(public, number) for number in range(1000)))
        assert all(reply["subscribers"] == 1 for reply in replies)
        for number in range(1000):
            equal(await heard(), {"event": "count", "channel": public, "data": number})
        await admin.ask(publish(private, {"to": "members"}))
        equal(await heard(), {"event": "count", "channel": private, "data": {"to": "members"}})

        await ask("socket:unsubscribe", {"channel": public})
        equal(await heard(), {"event": "socket:unsubscribed", "channel": public})
        equal((await admin.ask(publish(public, "unheard")))[0]["subscribers"], 0)
    await fence()
    await connection.ping(b"")

    await ask("socket:unsubscribe", {"channel": public})
    error = await fails("socket:unsubscribe.error", "not_subscribed", public)
    equal(error, "the connection is not subscribed to the channel")
    await ask("socket:subscribe", {"channel": private})
    error = await fails("socket:subscribe.error", "already_subscribed", private)
    equal(error, "the connection is already subscribed to the channel")
    await ask("socket:subscribe", {"channel": "no spaces"})
    await fails("socket:subscribe.error", "invalid_channel", "no spaces")
    await ask("socket:shout", {})
    await fails("socket:error", "unknown_event")
    await connection.send("{")
    await fails("socket:error", "malformed_message")
    await fence()
    equal(await connection.close(1000, "done"), Closed(1000, ""))


async def endings(client):
    async def open_one():
        connection = await client.connect(URL)
        return connection, json.loads(await connection.receive())["data"]["socket_id"]

    connection, _ = await open_one()
    await connection.send(b"binary")
    equal((await connection.receive()).code, 1003)
    connection, _ = await open_one()
    await connection.send("*" * (MESSAGE_BYTES_MAX + 1))
    equal((await connection.receive()).code, 1009)
    connection, socket_id = await open_one()
    async with Admin() as admin:
        await admin.ask({"command": "disconnect", "socket_id": socket_id, "code": 4003, "reason": "banned"})
    equal(await connection.receive(), Closed(4003, "banned"))


async def everything(client):
    passed = 0
    for part in [echo, channels, endings]:
        await asyncio.wait_for(part(client), TIMEOUT_S)
        passed += 1
    print(f"{client.name}: {passed} passed, 0 failed")


def run(client):
    asyncio.run(everything(client))

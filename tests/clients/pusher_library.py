"""pusher (https://github.com/pusher/pusher-http-python), unmodified: publishes, lists, signs."""

import asyncio
import json
import os
import uuid

import pusher
from pusher.errors import PusherBadAuth, PusherBadRequest
from scenario import forged, is_refused
from websockets.asyncio.client import connect

KEY, SECRET = os.environ["CORECAST_TEST_KEY"].split(":")
HOST, PORT = os.environ["CORECAST_HTTP"].split(":")


def library(app_id="1", secret=SECRET):
    return pusher.Pusher(app_id=app_id, key=KEY, secret=secret, ssl=False, host=HOST, port=int(PORT))


class Client:
    """A client of the native protocol, with its socket_id in the spelling that the library requires."""

    async def open(self):
        self.socket = await connect(os.environ["CORECAST_URL"], ping_interval=None, proxy=None)
        bits = uuid.UUID((await self.receive())["data"]["socket_id"]).int
        self.dotted = f"{bits >> 64}.{bits & (1 << 64) - 1}"
        return self

    async def receive(self):
        return json.loads(await self.socket.recv())

    async def subscribe(self, channel, **auth):
        await self.socket.send(json.dumps({"event": "socket:subscribe", "data": {"channel": channel, **auth}}))
        reply = await self.receive()
        assert reply == {"event": "socket:subscribed", "channel": channel}, reply


def refused(kind, call, *args):
    assert is_refused(kind, call, *args), f"not refused: {args}"


async def main():
    backend = library()
    first, second = await Client().open(), await Client().open()
    for client in (first, second):
        await client.subscribe("python-orders")
        # Signed by the library.
        await client.subscribe("private-python", **backend.authenticate("private-python", client.dotted))

    for socket_id, channel in forged("private-python"):
        refused(ValueError, backend.authenticate, channel, socket_id)

    # Objects arrive as objects, strings as strings.
    backend.trigger("python-orders", "paid", {"id": 42})
    backend.trigger(["python-orders"], "said", "hello")
    for client in (first, second):
        assert await client.receive() == {"event": "paid", "channel": "python-orders", "data": {"id": 42}}
        assert await client.receive() == {"event": "said", "channel": "python-orders", "data": "hello"}

    # To all but one.
    backend.trigger("private-python", "typing", {}, first.dotted)
    backend.trigger_batch([
        {"channel": "python-orders", "name": "one", "data": {"n": 1}},
        {"channel": "python-orders", "name": "two", "data": {"n": 2}},
    ])
    assert (await second.receive())["event"] == "typing"
    for client in (first, second):
        assert [(await client.receive())["event"] for _ in range(2)] == ["one", "two"]

    assert backend.channels_info("python-") == {"channels": {"python-orders": {}}}
    info = backend.channel_info("python-orders", ["subscription_count"])
    assert info == {"occupied": True, "subscription_count": 2}, info

    refused(PusherBadRequest, backend.trigger, "python-orders", "socket:ping", {})
    refused(PusherBadAuth, library(secret="other").trigger, "a", "e", {})
    print("pusher (Python): passed")


asyncio.run(main())

"""pusher (https://github.com/pusher/pusher-http-python), unmodified: every method except validate_webhook."""

import asyncio
import base64
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
    master = base64.b64encode(bytes(32)).decode()
    return pusher.Pusher(
        app_id=app_id, key=KEY, secret=secret, ssl=False, host=HOST, port=int(PORT), encryption_master_key_base64=master)


class Client:
    """A client of the native protocol, with its socket_id in the spelling that the library requires."""

    async def open(self):
        self.socket = await connect(os.environ["CORECAST_URL"], ping_interval=None, proxy=None)
        bits = uuid.UUID((await self.receive())["data"]["socket_id"]).int
        self.dotted = f"{bits >> 64}.{bits & (1 << 64) - 1}"
        return self

    async def receive(self):
        return json.loads(await self.socket.recv())

    async def request(self, event, **data):
        await self.socket.send(json.dumps({"event": event, "data": data}))
        return await self.receive()

    async def subscribe(self, channel, **auth):
        reply = await self.request("socket:subscribe", channel=channel, **auth)
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

    # Channels of all kinds, an encrypted one in a batch, and attributes.
    room, sealed = "presence-python", "private-encrypted-python"
    for number, client in enumerate((first, second)):
        auth = backend.authenticate(room, client.dotted, {"user_id": str(number)})
        reply = await client.request("socket:subscribe", channel=room, **auth)
        assert reply["data"]["presence"]["count"] == number + 1, reply
    assert (await first.receive())["event"] == "socket:member_added"
    auth = backend.authenticate(sealed, first.dotted)
    assert auth.pop("shared_secret")
    await first.subscribe(sealed, **auth)
    assert backend.trigger(sealed, "secret", {"n": 1}) == {}
    assert set((await first.receive())["data"]) == {"nonce", "ciphertext"}
    batch = backend.trigger_batch([
        {"channel": sealed, "name": "secret", "data": "s"},
        {"channel": room, "name": "counted", "data": "1", "info": "user_count"},
    ])
    assert batch == {"batch": [{}, {"user_count": 2}]}, batch
    # Channels have no order among them.
    assert {(await first.receive())["event"] for _ in range(2)} == {"secret", "counted"}
    assert (await second.receive())["event"] == "counted"
    backend.trigger("cache-python", "e", "text")
    info = backend.channel_info("cache-python", ["cache"])
    assert not info["occupied"] and info["cache"]["data"] == "text", info
    info = backend.channels_info("presence-python", ["user_count"])
    assert info == {"channels": {room: {"user_count": 2}}}, info
    assert backend.channels_info("python-none") == {"channels": {}}
    info = backend.channel_info(room, ["user_count", "subscription_count"])
    assert info == {"occupied": True, "user_count": 2, "subscription_count": 2}, info
    assert backend.users_info(room) == {"users": [{"id": "0"}, {"id": "1"}]}

    # Users.
    for user in ("42", "user@example.com"):
        client = await Client().open()
        signed = backend.authenticate_user(client.dotted, {"id": user})
        reply = await client.request("socket:signin", **signed)
        assert reply == {"event": "socket:signed_in", "data": {"user_id": user}}, reply
        assert backend.send_to_user(user, "note", {"n": 5}) == {}
        assert await client.receive() == {"event": "note", "data": {"n": 5}}
        assert backend.terminate_user_connections(user) == {}
        await client.socket.wait_closed()
        assert client.socket.close_code == 4000

    for name in ("socket:ping", "pusher:ping", "pusher_internal:x"):
        refused(PusherBadRequest, backend.trigger, "python-orders", name, {})
    refused(PusherBadRequest, backend.users_info, "python-orders")
    refused(PusherBadRequest, backend.channels_info, None, ["user_count"])
    refused(PusherBadAuth, library(secret="other").trigger, "a", "e", {})
    print("pusher (Python): passed")


asyncio.run(main())

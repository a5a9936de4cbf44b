"""pusher (https://github.com/pusher/pusher-http-python), unmodified: it validates the server's webhooks."""

import asyncio
import http.server
import json
import os
import queue
import socket
import threading
import uuid

import pusher
from websockets.asyncio.client import connect

KEY, SECRET = os.environ["CORECAST_TEST_KEY"].split(":")
BACKEND = pusher.Pusher(app_id="1", key=KEY, secret=SECRET)
OTHER = pusher.Pusher(app_id="1", key=KEY, secret="other")
CHANNEL, ROOM, CACHED = "python-hooks", "presence-python-hooks", "cache-python-hooks"
EVENTS = "channel_occupied,channel_vacated,member_added,member_removed,client_event,cache_miss,connected"


class Hooks(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    events = {name: queue.Queue() for name in (CHANNEL, ROOM, CACHED)}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        signed = (self.headers["X-Pusher-Key"], self.headers["X-Pusher-Signature"])
        valid = BACKEND.validate_webhook(*signed, body)
        assert valid and not OTHER.validate_webhook(*signed, body), body
        assert not BACKEND.validate_webhook(*signed, body + " "), body
        for event in valid["events"]:
            # Libraries of other languages fail where these are not strings.
            assert all(isinstance(event.get(member, ""), str) for member in ("data", "user_id", "socket_id")), event
            # Channels of other tests are reported too.
            if event["channel"] in self.events:
                self.events[event["channel"]].put(event)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def configure(urls):
    """Changes the webhooks in the server's configuration."""
    with open(os.environ["CORECAST_TEST_CONFIG"], "w") as file:
        if urls:
            file.write(f'webhook = {json.dumps(urls)}\nwebhook-events = "{EVENTS}"\n')
            file.write(f'[[channel]]\nmatch = "{ROOM}"\nclient-events = "members"\n')
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(os.environ["CORECAST_ADMIN_SOCKET"])
        admin.sendall(b'{"id":1,"command":"reload"}\n')
        reply = json.loads(admin.makefile().readline())
        assert reply["ok"], reply


async def expect(channel, name, **rest):
    event = await asyncio.to_thread(Hooks.events[channel].get, timeout=15)
    assert event == {"name": name, "channel": channel, **rest}, event


async def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hooks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    configure([f"http://127.0.0.1:{server.server_port}/hooks"])

    async with connect(os.environ["CORECAST_URL"], ping_interval=None, proxy=None) as client:
        bits = uuid.UUID(json.loads(await client.recv())["data"]["socket_id"]).int
        dotted = f"{bits >> 64}.{bits & (1 << 64) - 1}"

        async def request(event, **data):
            await client.send(json.dumps({"event": f"socket:{event}", "data": data}))
            await client.recv()

        await request("subscribe", channel=CHANNEL)
        await expect(CHANNEL, "channel_occupied")
        await request("unsubscribe", channel=CHANNEL)
        await expect(CHANNEL, "channel_vacated")

        await request("subscribe", channel=ROOM, **BACKEND.authenticate(ROOM, dotted, {"user_id": "12"}))
        await expect(ROOM, "channel_occupied")
        await expect(ROOM, "member_added", user_id="12")
        await client.send(json.dumps({"event": "client-typing", "channel": ROOM, "data": [1]}))
        await expect(ROOM, "client_event", event="client-typing", data="[1]", socket_id=dotted, user_id="12")
        await request("subscribe", channel=CACHED)
        await expect(CACHED, "channel_occupied")
        await expect(CACHED, "cache_miss")
        await request("unsubscribe", channel=ROOM)
        await expect(ROOM, "member_removed", user_id="12")
        await expect(ROOM, "channel_vacated")
    configure([])
    print("webhooks of pusher (Python): passed")


asyncio.run(main())

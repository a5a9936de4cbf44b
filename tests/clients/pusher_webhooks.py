"""pusher (https://github.com/pusher/pusher-http-python), unmodified: it validates the server's webhooks."""

import asyncio
import http.server
import json
import os
import queue
import socket
import threading

import pusher
from websockets.asyncio.client import connect

KEY, SECRET = os.environ["CORECAST_TEST_KEY"].split(":")
BACKEND = pusher.Pusher(app_id="1", key=KEY, secret=SECRET)
OTHER = pusher.Pusher(app_id="1", key=KEY, secret="other")
CHANNEL = "python-hooks"


class Hooks(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    events = queue.Queue()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        signed = (self.headers["X-Pusher-Key"], self.headers["X-Pusher-Signature"])
        valid = BACKEND.validate_webhook(*signed, body)
        assert valid and not OTHER.validate_webhook(*signed, body), body
        assert not BACKEND.validate_webhook(*signed, body + " "), body
        for event in valid["events"]:
            # Channels of other tests are reported too.
            if event["channel"] == CHANNEL:
                self.events.put(event)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def configure(urls):
    """Changes the webhooks in the server's configuration."""
    with open(os.environ["CORECAST_TEST_CONFIG"], "w") as file:
        file.write(f"webhook = {json.dumps(urls)}\n")
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(os.environ["CORECAST_ADMIN_SOCKET"])
        admin.sendall(b'{"id":1,"command":"reload"}\n')
        reply = json.loads(admin.makefile().readline())
        assert reply["ok"], reply


async def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hooks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    configure([f"http://127.0.0.1:{server.server_port}/hooks"])

    async with connect(os.environ["CORECAST_URL"], ping_interval=None, proxy=None) as client:
        await client.recv()
        for request in ("subscribe", "unsubscribe"):
            await client.send(json.dumps({"event": f"socket:{request}", "data": {"channel": CHANNEL}}))
            await client.recv()
            if request == "subscribe":
                event = await asyncio.to_thread(Hooks.events.get, timeout=15)
                assert event == {"name": "channel_occupied", "channel": CHANNEL}, event
        event = await asyncio.to_thread(Hooks.events.get, timeout=15)
        assert event == {"name": "channel_vacated", "channel": CHANNEL}, event
    configure([])
    print("webhooks of pusher (Python): passed")


asyncio.run(main())

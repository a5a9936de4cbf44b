"""websockets (https://websockets.readthedocs.io) through the scenario."""

import scenario
from scenario import Closed
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


class Connection:
    def __init__(self, socket):
        self.socket = socket
        self.compressed = bool(socket.protocol.extensions)

    async def send(self, message):
        await self.socket.send(message)

    async def receive(self):
        try:
            return await self.socket.recv()
        except ConnectionClosed as closed:
            return Closed(closed.rcvd.code, closed.rcvd.reason)

    async def ping(self, payload):
        await (await self.socket.ping(payload))

    async def close(self, code, reason):
        await self.socket.close(code, reason)
        return await self.receive()


async def open_connection(url):
    # Compression is offered by default; proxies of the environment are ignored.
    return Connection(await connect(url, max_size=None, ping_interval=None, proxy=None))


class Client:
    name = "websockets"
    connect = staticmethod(open_connection)


if __name__ == "__main__":
    scenario.run(Client)

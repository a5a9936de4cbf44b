"""aiohttp (https://docs.aiohttp.org) through the scenario."""

import aiohttp
import scenario
from aiohttp import WSMsgType
from scenario import Closed


class Connection:
    def __init__(self, session, socket):
        self.session, self.socket = session, socket
        self.compressed = bool(socket.compress)

    async def send(self, message):
        await (self.socket.send_str if isinstance(message, str) else self.socket.send_bytes)(message)

    async def receive(self):
        message = await self.socket.receive()
        if message.type == WSMsgType.CLOSE:
            await self.session.close()
            return Closed(message.data, message.extra)
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
        return message.data

    async def ping(self, payload):
        await self.socket.ping(payload)
        message = await self.socket.receive()
        assert message.type == WSMsgType.PONG and message.data == payload, message

    async def close(self, code, reason):
        await self.socket.close(code=code, message=reason.encode())
        await self.session.close()
        return Closed(self.socket.close_code, "")


class Client:
    name = "aiohttp"

    @staticmethod
    async def connect(url):
        session = aiohttp.ClientSession()
        socket = await session.ws_connect(url, compress=15, max_msg_size=0, autoping=False)
        return Connection(session, socket)


if __name__ == "__main__":
    scenario.run(Client)

"""wsproto (https://wsproto.readthedocs.io), a protocol without a network, through the scenario."""

import asyncio
from urllib.parse import urlsplit

import scenario
from scenario import Closed
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Message, Ping, Pong, Request, TextMessage
from wsproto.extensions import PerMessageDeflate


class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.pieces = []

    async def send_event(self, event):
        self.writer.write(self.protocol.send(event))
        await self.writer.drain()

    async def event(self):
        while True:
            for event in self.protocol.events():
                return event
            self.protocol.receive_data(await self.reader.read(1 << 16) or None)

    async def upgrade(self, host, target):
        await self.send_event(Request(host=host, target=target, extensions=[PerMessageDeflate()]))
        accepted = await self.event()
        assert isinstance(accepted, AcceptConnection), accepted
        self.compressed = bool(accepted.extensions)

    async def send(self, message):
        await self.send_event(Message(data=message))

    async def receive(self):
        while True:
            match await self.event():
                case TextMessage() | BytesMessage() as piece:
                    self.pieces.append(piece.data)
                    if piece.message_finished:
                        pieces, self.pieces = self.pieces, []
                        return type(piece.data)().join(pieces)
                case CloseConnection() as close:
                    if self.protocol.state.name == "REMOTE_CLOSING":
                        await self.send_event(close.response())
                    assert await self.reader.read() == b"", "something follows the close frame"
                    self.writer.close()
                    return Closed(close.code, close.reason or "")
                case other:
                    raise AssertionError(other)

    async def ping(self, payload):
        await self.send_event(Ping(payload=payload))
        pong = await self.event()
        assert isinstance(pong, Pong) and pong.payload == payload, pong

    async def close(self, code, reason):
        await self.send_event(CloseConnection(code=code, reason=reason))
        return await self.receive()


class Client:
    name = "wsproto"

    @staticmethod
    async def connect(url):
        parts = urlsplit(url)
        connection = Connection(*await asyncio.open_connection(parts.hostname, parts.port))
        await connection.upgrade(parts.netloc, parts.path or "/")
        return connection


if __name__ == "__main__":
    scenario.run(Client)

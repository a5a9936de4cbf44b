"""RFC 6455, case by case, in the order of the Autobahn TestSuite. This script sends bytes to the echo path and reads the answer
with wsproto. Short cases are sent whole and byte by byte. Cases that only end in a close also run on the
publish/subscribe path.

    tests/clients/run.sh conformance.py                all cases, one line for each section
    tests/clients/run.sh conformance.py --table        the same as a Markdown table
    tests/clients/run.sh conformance.py 6.4.1          cases whose number starts with 6.4.1
"""

import codecs
import os
import socket
import sys
from collections import defaultdict
from dataclasses import dataclass
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, Request, TextMessage
from wsproto.extensions import Extension

SERVER = urlsplit(os.environ["CORECAST_BIG_URL"])
TIMEOUT_S = 30
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX = 16 * 1024 * 1024
MASK = bytes([0x9A, 0x00, 0xFF, 0x31])
# A case of at most this many bytes is also sent byte by byte.
CHOP_MAX = 600


# ---- frames to send


def masked(payload, mask=MASK):
    length = len(payload)
    keys = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(length, "big")


def header(opcode, length, fin=True, rsv=0, mask=True):
    first, bit = fin << 7 | rsv << 4 | opcode, mask << 7
    if length < 126:
        return bytes([first, bit | length])
    if length < 1 << 16:
        return bytes([first, bit | 126]) + length.to_bytes(2, "big")
    return bytes([first, bit | 127]) + length.to_bytes(8, "big")


def frame(opcode, payload=b"", fin=True, rsv=0):
    return header(opcode, len(payload), fin, rsv) + MASK + masked(payload)


def close(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def fragments(opcode, pieces):
    """A message, a frame for each piece."""
    last = len(pieces) - 1
    return [frame(opcode if at == 0 else CONTINUATION, piece, fin=at == last) for at, piece in enumerate(pieces)]


def cut(payload, length):
    return [payload[at : at + length] for at in range(0, len(payload), length)]


# ---- expected events


def text(payload):
    return ("text", payload.decode())


def binary(payload):
    return ("binary", bytes(payload))


def pong(payload=b""):
    return ("pong", payload)


def closed(code):
    return ("close", code)


NO_CODE = 1005


@dataclass
class Case:
    number: str
    name: str
    sent: list
    expected: list


CASES = []
SECTIONS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Reserved opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Closing",
    "8": "Masks and lengths",
    "9": "Long messages",
    "12": "Compression, offered and not accepted",
}


def case(number, name, sent, expected):
    CASES.append(Case(number, name, sent, expected))


def framing():
    lengths = [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537]
    for at, length in enumerate(lengths, 1):
        case(f"1.1.{at}", f"text of {length} bytes", [frame(TEXT, b"*" * length)], [text(b"*" * length)])
        case(f"1.2.{at}", f"binary of {length} bytes", [frame(BINARY, b"\xfe" * length)], [binary(b"\xfe" * length)])
    chopped = frame(TEXT, b"*" * 65_536)
    for at, length in enumerate([997, 16_384, 65_535], 1):
        case(f"1.3.{at}", f"65536 bytes, {length} at a time", cut(chopped, length), [text(b"*" * 65_536)])
    case("1.4.1", "a hundred messages at once", [frame(TEXT, b"%d" % n) for n in range(100)], [text(b"%d" % n) for n in range(100)])


def pings():
    for at, payload in enumerate([b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125], 1):
        case(f"2.{at}", f"ping of {len(payload)} bytes", [frame(PING, payload)], [pong(payload)])
    case("2.5", "ping of 126 bytes", [frame(PING, b"\xfe" * 126)], [closed(1002)])
    case("2.6", "ping of 125 bytes, one at a time", cut(frame(PING, b"\xfe" * 125), 1), [pong(b"\xfe" * 125)])
    case("2.7", "unsolicited pong", [frame(PONG)], [])
    case("2.8", "the same with a payload", [frame(PONG, b"unasked")], [])
    case("2.9", "pong, then ping", [frame(PONG, b"unasked"), frame(PING, b"asked")], [pong(b"asked")])
    numbers = [b"payload-%d" % n for n in range(10)]
    case("2.10", "ten pings", [frame(PING, n) for n in numbers], [pong(n) for n in numbers])
    case("2.11", "ten pings, a byte at a time", cut(b"".join(frame(PING, n) for n in numbers), 1), [pong(n) for n in numbers])
    case("2.12", "pong of 126 bytes", [frame(PONG, bytes(126))], [closed(1002)])


def reserved_bits():
    for rsv in range(1, 8):
        case(f"3.1.{rsv}", f"RSV {rsv:03b} on a text", [frame(TEXT, b"x", rsv=rsv)], [closed(1002)])
        case(f"3.2.{rsv}", f"RSV {rsv:03b} on a binary", [frame(BINARY, b"x", rsv=rsv)], [closed(1002)])
        case(f"3.3.{rsv}", f"RSV {rsv:03b} on a ping", [frame(PING, rsv=rsv)], [closed(1002)])
        case(f"3.4.{rsv}", f"RSV {rsv:03b} on a close", [frame(CLOSE, rsv=rsv)], [closed(1002)])
        sent = [frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"b", rsv=rsv)]
        case(f"3.5.{rsv}", f"RSV {rsv:03b} on a continuation", sent, [closed(1002)])
        sent = [frame(TEXT, b"good"), frame(TEXT, b"bad", rsv=rsv), frame(PING)]
        case(f"3.6.{rsv}", f"RSV {rsv:03b} after a good text", sent, [text(b"good"), closed(1002)])


def reserved_opcodes():
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]:
        case(f"4.1.{opcode}", f"opcode {opcode}, empty", [frame(opcode)], [closed(1002)])
        case(f"4.2.{opcode}", f"opcode {opcode} with a payload", [frame(opcode, b"reserved")], [closed(1002)])
        sent = [frame(TEXT, b"good"), frame(opcode, b"bad"), frame(PING)]
        case(f"4.3.{opcode}", f"opcode {opcode} after a good text", sent, [text(b"good"), closed(1002)])
        sent = [frame(TEXT, b"a", fin=False), frame(opcode, b"bad")]
        case(f"4.4.{opcode}", f"opcode {opcode} inside a message", sent, [closed(1002)])


def fragmentation():
    for opcode, name in [(PING, "ping"), (PONG, "pong"), (CLOSE, "close")]:
        sent = [frame(opcode, b"", fin=False), frame(CONTINUATION)]
        case(f"5.1.{opcode}", f"{name} in fragments", sent, [closed(1002)])
    whole = b"fragment1fragment2"
    for count in [1, 2, 3, 9, 18]:
        pieces = cut(whole, len(whole) // count)
        for opcode, back in [(TEXT, text), (BINARY, binary)]:
            case(f"5.2.{count}.{opcode}", f"{back.__name__} in {count} fragments", fragments(opcode, pieces), [back(whole)])
    first, second = fragments(TEXT, [b"fragment1", b"fragment2"])
    case("5.3.1", "ping between fragments", [first, frame(PING, b"!"), second], [pong(b"!"), text(whole)])
    case("5.3.2", "pong between fragments", [first, frame(PONG, b"!"), second], [text(whole)])
    case("5.3.3", "the same a byte at a time", cut(first + frame(PING, b"!") + second, 1), [pong(b"!"), text(whole)])
    case("5.3.4", "close between fragments", [first, close(1000), second], [closed(1000)])
    between = [part for piece in fragments(TEXT, cut(whole, 1)) for part in (piece, frame(PING, piece[:3]))]
    pongs = [pong(piece[:3]) for piece in fragments(TEXT, cut(whole, 1))]
    case("5.3.5", "a ping behind every fragment", between, [*pongs[:-1], text(whole), pongs[-1]])
    for at, pieces in enumerate([[b"", b"", b""], [b"", b"middle", b""], [b"first", b"", b"last"]], 1):
        case(f"5.4.{at}", f"empty fragments {at}", fragments(TEXT, pieces), [text(b"".join(pieces))])
    many = fragments(BINARY, cut(bytes(2000), 1))
    case("5.4.4", "2000 fragments of one byte", many, [binary(bytes(2000))])
    for at, fin in enumerate([False, True], 1):
        case(f"5.5.{at}", f"continuation of nothing, fin {fin}", [frame(CONTINUATION, b"x", fin=fin)], [closed(1002)])
        sent = [frame(TEXT, b"good"), frame(CONTINUATION, b"x", fin=fin)]
        case(f"5.6.{at}", f"the same after a good text, fin {fin}", sent, [text(b"good"), closed(1002)])
        for opcode in [TEXT, BINARY]:
            sent = [frame(TEXT, b"a", fin=False), frame(opcode, b"b", fin=fin)]
            case(f"5.7.{opcode}.{at}", f"message {opcode} inside a message, fin {fin}", sent, [closed(1002)])
    sent = [*fragments(TEXT, [b"one", b"two"]), *fragments(BINARY, [b"three", b"four"]), frame(TEXT, b"five")]
    case("5.8.1", "messages one after the other", sent, [text(b"onetwo"), binary(b"threefour"), text(b"five")])


VALID = [
    "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    "κόσμε".encode(),
    "语言 🦀".encode(),
    *(chr(point).encode() for point in [0x00, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF]),
    *(chr(point).encode() for point in [0xFDD0, 0xFEFF, 0x10000, 0x1FFFE, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFF]),
]
INVALID = [
    *(bytes([byte]) for byte in [0x80, 0xBF, 0xC0, 0xC1, 0xF5, 0xF8, 0xFC, 0xFE, 0xFF]),  # start nothing
    *(b"\x80" * count for count in [2, 3, 6]),  # continue nothing
    *(start + b" " for start in [b"\xc2", b"\xdf", b"\xe0\xa0", b"\xef\xbf", b"\xf0\x90\x80", b"\xf4\x8f\xbf"]),  # cut short
    *(start + b"\xc3\xa9" for start in [b"\xc2", b"\xe8\xaf", b"\xf0\x9f\xa6"]),  # cut short by another
    b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xe0\x9f\xbf", b"\xf0\x80\x80\xaf", b"\xf0\x8f\xbf\xbf",  # too long
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",  # five and six bytes
    b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xb0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xb4\xed\xb4\x9e",  # surrogates
    b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf",  # beyond U+10FFFF
]  # fmt: skip
UNFINISHED = [b"\xc2", b"\xe8", b"\xe8\xaf", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\xa6"]


def fatal_byte(payload):
    """The index of the first byte that makes the payload invalid whatever follows."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for at in range(len(payload)):
        try:
            decoder.decode(payload[at : at + 1])
        except UnicodeDecodeError:
            return at
    raise AssertionError(payload)


def utf8():
    for at, valid in enumerate(VALID, 1):
        valid = b"before " + valid + b" behind"
        case(f"6.1.{at}", f"valid {valid}", [frame(TEXT, valid)], [text(valid)])
        case(f"6.2.{at}", "the same, one fragment for each byte", fragments(TEXT, cut(valid, 1)), [text(valid)])
    for at, wrong in enumerate(INVALID, 1):
        around = b"before " + wrong + b" behind"
        case(f"6.3.{at}", f"invalid {wrong}", [frame(TEXT, around)], [closed(1007)])
        case(f"6.4.{at}", "the same, one fragment for each byte", fragments(TEXT, cut(around, 1)), [closed(1007)])
        # Nothing more is sent, so the server must not wait for the end of the frame or of the message.
        fatal = 7 + fatal_byte(around[7:])
        sent = [header(TEXT, 60_000, fin=False) + MASK + masked(around[: fatal + 1])]
        case(f"6.5.{at}", "the same in a frame that never ends", sent, [closed(1007)])
        sent = fragments(TEXT, [around[:fatal], around[fatal : fatal + 1], b""])[:2]
        case(f"6.6.{at}", "the same in a message that never ends", sent, [closed(1007)])
        case(f"6.7.{at}", "behind a good message", [frame(TEXT, b"good"), frame(TEXT, wrong)], [text(b"good"), closed(1007)])
        case(f"6.8.{at}", "the same as a binary", [frame(BINARY, wrong)], [binary(wrong)])
    for at, wrong in enumerate(UNFINISHED, 1):
        case(f"6.9.{at}", f"ends inside a character: {wrong}", [frame(TEXT, b"before " + wrong)], [closed(1007)])
        case(f"6.10.{at}", "the same in fragments", fragments(TEXT, [b"before ", wrong]), [closed(1007)])
        case(f"6.11.{at}", "the same, empty last fragment", fragments(TEXT, [b"before " + wrong, b""]), [closed(1007)])
        whole = next(valid for valid in ["é", "语", "🦀"] if len(valid.encode()) > len(wrong)).encode()
        sent = fragments(TEXT, [whole[: len(wrong)], whole[len(wrong) :]])
        case(f"6.12.{at}", "a character in two fragments", [sent[0], frame(PING), sent[1]], [pong(), text(whole)])


def closing():
    case("7.1.1", "message, then close", [frame(TEXT, b"x"), close(1000)], [text(b"x"), closed(1000)])
    case("7.1.2", "two closes", [close(1000), close(1001)], [closed(1000)])
    case("7.1.3", "close, then ping", [close(1000), frame(PING)], [closed(1000)])
    case("7.1.4", "close, then message", [close(1000), frame(TEXT, b"late")], [closed(1000)])
    case("7.1.5", "half a message, then close", [frame(TEXT, b"half", fin=False), close(1000), frame(CONTINUATION)], [closed(1000)])
    case("7.1.6", "a long message, close, ping", [frame(TEXT, b"*" * 262_144), close(1000), frame(PING)], [text(b"*" * 262_144), closed(1000)])
    case("7.3.1", "no payload", [close()], [closed(NO_CODE)])
    case("7.3.2", "payload of one byte", [frame(CLOSE, b"\x03")], [closed(1002)])
    case("7.3.3", "a code alone", [close(1000)], [closed(1000)])
    case("7.3.4", "a reason", [close(1000, "mit Gruß".encode())], [closed(1000)])
    case("7.3.5", "the longest reason", [close(1000, b"*" * 123)], [closed(1000)])
    case("7.3.6", "a reason too long", [close(1000, b"*" * 124)], [closed(1002)])
    for at, wrong in enumerate([*INVALID, *UNFINISHED], 1):
        case(f"7.5.{at}", f"invalid reason {wrong}", [close(1000, b"before " + wrong)], [closed(1007)])
    # 1014 is registered, too, but wsproto does not know it.
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]:
        case(f"7.7.{code}", f"code {code}", [close(code, b"reason")], [closed(code)])
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 32_768, 65_535]:
        case(f"7.9.{code}", f"code {code}, which is not assigned", [close(code)], [closed(1002)])
        case(f"7.10.{code}", f"code {code} with a reason", [close(code, b"reason")], [closed(1002)])


def masks_and_lengths():
    for opcode in [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]:
        sent = [frame(TEXT, b"a", fin=False)] if opcode == CONTINUATION else []
        sent += [header(opcode, 4, mask=False) + b"\x03\xe8ok"]
        case(f"8.1.{opcode}", f"opcode {opcode} without a mask", sent, [closed(1002)])
    case("8.2.1", "unmasked behind a good message", [frame(TEXT, b"good"), header(TEXT, 1, mask=False) + b"x"], [text(b"good"), closed(1002)])
    for at, mask in enumerate([bytes(4), b"\xff" * 4, b"\x01\x02\x03\x04", b"\x80\x00\x00\x00"], 1):
        for length in [1, 2, 3, 4, 5, 8, 11, 126]:
            payload = bytes(range(length))
            sent = [header(BINARY, length) + mask + masked(payload, mask)]
            case(f"8.3.{at}.{length}", f"mask {mask.hex()}, {length} bytes", sent, [binary(payload)])
    long_winded = {
        "125 in two bytes": bytes([0x81, 0xFE, 0, 125]),
        "0 in two bytes": bytes([0x81, 0xFE, 0, 0]),
        "65535 in eight bytes": bytes([0x81, 0xFF]) + (65_535).to_bytes(8, "big"),
        "0 in eight bytes": bytes([0x81, 0xFF]) + bytes(8),
        "the highest bit set": bytes([0x81, 0xFF]) + (1 << 63).to_bytes(8, "big"),
    }
    for at, (name, bytes_sent) in enumerate(long_winded.items(), 1):
        case(f"8.4.{at}", f"a length as {name}", [bytes_sent + MASK], [closed(1002)])
    case("8.5.1", "a length beyond memory", [bytes([0x82, 0xFF]) + ((1 << 63) - 1).to_bytes(8, "big")], [closed(1009)])


def long_messages():
    mib = 1 << 20
    for at, length in enumerate([65_536, 262_144, mib, 4 * mib, 8 * mib, MAX], 1):
        case(f"9.1.{at}", f"text of {length} bytes", [frame(TEXT, b"*" * length)], [text(b"*" * length)])
        case(f"9.2.{at}", f"binary of {length} bytes", [frame(BINARY, b"\xfe" * length)], [binary(b"\xfe" * length)])
    for at, length in enumerate([64, 1024, 65_536, mib], 1):
        whole = "语".encode() * ((4 * mib if length >= 1024 else mib) // 3)
        case(f"9.3.{at}", f"{len(whole)} bytes of text in fragments of {length}", [b"".join(fragments(TEXT, cut(whole, length)))], [text(whole)])
    whole = bytes(MAX)
    case("9.3.5", "the longest message in fragments of 1 MiB", fragments(BINARY, cut(whole, mib)), [binary(whole)])
    chopped = frame(TEXT, b"*" * mib)
    for at, length in enumerate([64, 128, 256, 512, 1024], 1):
        case(f"9.5.{at}", f"1 MiB of text, {length} bytes at a time", cut(chopped, length), [text(b"*" * mib)])
    case("9.7.1", "one byte too many", [header(TEXT, MAX + 1) + MASK], [closed(1009)])
    sent = fragments(BINARY, [bytes(MAX - 1), b"xx"])
    case("9.7.2", "one byte too many in fragments", [sent[0], sent[1][:6]], [closed(1009)])
    case("9.8.1", "a thousand messages, all sent before one is read", [b"".join(frame(TEXT, b"%d" % n) for n in range(1000))], [text(b"%d" % n) for n in range(1000)])


OFFERS = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
    "permessage-bzip2, x-webkit-deflate-frame, permessage-deflate",
]


# ---- running the cases


class Offer(Extension):
    """Offers a compression that the server must not accept."""

    def __init__(self, offer):
        self.name, self.parameters = offer.split(";", 1)[0].split(",")[0], offer

    def offer(self):
        _, _, rest = self.parameters.partition(self.name)
        return rest.lstrip("; ") if rest.startswith(";") else True

    def finalize(self, offer):
        raise AssertionError(f"the server accepted {offer}")


class Connection:
    def __init__(self, path, extensions=()):
        self.socket = socket.create_connection((SERVER.hostname, SERVER.port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.coming = iter(())
        self.pieces = []
        request = Request(host=SERVER.netloc, target=path, extensions=list(extensions))
        self.socket.sendall(self.protocol.send(request))
        accepted = self.next_event()
        assert isinstance(accepted, AcceptConnection) and not accepted.extensions, accepted
        if path != "/echo":
            kind, greeting = self.next()
            assert kind == "text" and "socket:connected" in greeting, greeting

    def send(self, chunk):
        try:
            self.socket.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The server may have closed; its answer is read next.

    def next_event(self):
        while (event := next(self.coming, None)) is None:
            self.protocol.receive_data(self.socket.recv(1 << 20) or None)
            self.coming = self.protocol.events()
        return event

    def next(self):
        while True:
            match self.next_event():
                case TextMessage() | BytesMessage() as piece:
                    self.pieces.append(piece.data)
                    if piece.message_finished:
                        pieces, self.pieces = self.pieces, []
                        kind = "text" if isinstance(piece, TextMessage) else "binary"
                        return kind, type(piece.data)().join(pieces) if len(pieces) > 1 else pieces[0]
                case Pong() as it:
                    return "pong", bytes(it.payload)
                case CloseConnection() as it:
                    # In another state wsproto itself refused what the server sent.
                    assert self.protocol.state is ConnectionState.REMOTE_CLOSING, it.reason
                    return "close", int(it.code)
                case Ping():
                    raise AssertionError("the server sent a ping")

    def expect(self, expected):
        found = self.next()
        if isinstance(found[1], (str, bytes)):
            found = found[0], type(found[1])(found[1])
        if found != expected:
            raise AssertionError(f"{str(found)[:200]} instead of {str(expected)[:200]}")
        if expected[0] == "close":
            try:
                rest = self.socket.recv(1)
            except ConnectionResetError:
                rest = b""  # The server discarded what followed the violation.
            assert rest == b"", "something follows the close frame"

    def end(self):
        """Checks that the connection still works, and closes it."""
        self.send(frame(PING, b"still there") + close(1000))
        self.expect(pong(b"still there"))
        self.expect(closed(1000))


def run(path, sent, expected):
    connection = Connection(path)
    with connection.socket:
        for chunk in sent:
            connection.send(chunk)
        for event in expected:
            connection.expect(event)
        if not expected or expected[-1][0] != "close":
            connection.end()


def ways(case):
    """Every way to run a case: a path, and the chunks to send."""
    yield "/echo", case.sent
    length = sum(map(len, case.sent))
    if length <= CHOP_MAX and any(len(chunk) > 1 for chunk in case.sent):
        yield "/echo", cut(b"".join(case.sent), 1)
    if [kind for kind, _ in case.expected] == ["close"]:
        yield "/", case.sent


def compression(results, wanted):
    for at, offer in enumerate(OFFERS, 1):
        number = f"12.1.{at}"
        if wanted(number):
            with Connection("/echo", [Offer(offer)]).socket:
                results["12"].append(None)


def main():
    arguments = sys.argv[1:]
    prefixes = [argument for argument in arguments if argument != "--table"]

    def wanted(number):
        return not prefixes or any(number == it or number.startswith(it.rstrip(".") + ".") for it in prefixes)

    for section in [framing, pings, reserved_bits, reserved_opcodes, fragmentation, utf8, closing, masks_and_lengths, long_messages]:
        section()
    results = defaultdict(list)
    counts = defaultdict(int)
    for it in filter(lambda it: wanted(it.number), CASES):
        section = it.number.split(".")[0]
        counts[section] += 1
        for path, sent in ways(it):
            try:
                run(path, sent, it.expected)
                results[section].append(None)
            except Exception as error:  # The other cases still run.
                results[section].append(error)
                print(f"FAILED {it.number} ({it.name}), {len(sent)} sends to {path}: {type(error).__name__}: {error}", file=sys.stderr)
    compression(results, wanted)
    counts["12"] = len(results["12"])

    failures = sum(error is not None for section in results.values() for error in section)
    if "--table" in arguments:
        print("| section | cases | runs | passed |\n|---|---|---|---|")
    for section, outcomes in results.items():
        passed = outcomes.count(None)
        if "--table" in arguments:
            print(f"| {section} {SECTIONS[section]} | {counts[section]} | {len(outcomes)} | {passed} |")
        else:
            print(f"conformance {section} {SECTIONS[section]}: {counts[section]} cases, {passed} of {len(outcomes)} runs passed")
    print(f"conformance: {sum(map(len, results.values())) - failures} passed, {failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()

"""A dishonest line: ends TLS with the source's own certificate and alters one octet of a message on its way to the target.

    python3 demo/flip_proxy.py --listen PORT --to HOST:PORT --cert FILE --key FILE --ca FILE [--name localhost] [--only N]

It shows that the digest at the end of each item is worth something even against one who holds the source's key: no length changes,
every frame stays well formed, one bit differs. HTTP/2 frames are followed in the direction to the client; in each body that is a
CBOR sequence the frames [4, octets] (pieces of a message) are found and one octet well inside is flipped: in every such frame, or
in the Nth alone. Other traffic passes as it is, so does a connection that does not speak HTTP/2.
"""

import argparse
import asyncio
import ssl
import sys

DATA, PADDED, HEADER_LENGTH = 0, 0x8, 9
ARRAY, OCTETS, TEXT, MAP, TAG = 4, 2, 3, 5, 6


class ChunkFinder:
    """Follows one CBOR sequence (RFC 8742) piece by piece and says where the contents of chunk frames [4, octets] lie."""

    def __init__(self):
        self.head = bytearray()  # the head of the data item at hand, until whole
        self.skip = 0  # octets of a string still to come
        self.open = []  # how many data items each open array or map still lacks
        self.frame = None  # of the outermost array: its length, then its first element
        self.lost = False  # not a CBOR sequence of arrays: leave it alone

    def feed(self, piece: bytes) -> list:
        """Returns (start, end) within this piece of the contents of chunks that begin in it."""
        found, position = [], 0
        while position < len(piece) and not self.lost:
            if self.skip:
                step = min(self.skip, len(piece) - position)
                self.skip -= step
                position += step
                if not self.skip:
                    self.done()
                continue
            self.head.append(piece[position])
            position += 1
            major, value = self.whole_head()
            if value is None:
                continue
            self.head.clear()
            if self.item(major, value) and position < len(piece):
                found.append((position, min(position + value, len(piece))))
        return found

    def whole_head(self):
        """(major type, value) of the head collected so far; value None while it is not whole."""
        major, size = self.head[0] >> 5, self.head[0] & 31
        if size < 24:
            return major, size
        if size > 27:  # indefinite lengths do not occur in this protocol
            self.lost = True
            return major, None
        wanted = 1 << (size - 24)
        if len(self.head) < 1 + wanted:
            return major, None
        return major, int.from_bytes(self.head[1:], "big")

    def item(self, major: int, value: int) -> bool:
        """Takes in one head; True where it begins the octets of a chunk frame."""
        if not self.open and major != ARRAY:
            self.lost = True
            return False
        depth = len(self.open)
        chunk = depth == 1 and major == OCTETS and self.frame == (2, 4) and self.open[0] == 1
        if depth == 1 and major == 0 and self.frame is not None and self.open[0] == self.frame[0]:
            self.frame = (self.frame[0], value)
        if major in (ARRAY, MAP):
            if depth == 0:
                self.frame = (value, None)
            self.open.append(value * (2 if major == MAP else 1))
            if self.open[-1] == 0:
                self.open.pop()
                self.done()
        elif major in (OCTETS, TEXT) and value:
            self.skip = value
        elif major != TAG:
            self.done()
        return chunk and value > 0

    def done(self):
        """One data item is complete; closes the arrays that it completes."""
        while self.open:
            self.open[-1] -= 1
            if self.open[-1]:
                return
            self.open.pop()


class Flipper:
    """Takes what the server sends and returns it, altered; `flipped` counts the flips."""

    def __init__(self, only=None):
        self.only, self.chunks, self.flipped = only, 0, 0
        self.buffer, self.streams = bytearray(), {}

    def feed(self, octets: bytes) -> bytes:
        """Whole HTTP/2 frames (RFC 9113 section 4.1) go out; the rest waits for more."""
        self.buffer += octets
        out = bytearray()
        while len(self.buffer) >= HEADER_LENGTH:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < HEADER_LENGTH + length:
                break
            frame = self.buffer[:HEADER_LENGTH + length]
            del self.buffer[:HEADER_LENGTH + length]
            if frame[3] == DATA:
                self.data(frame)
            out += frame
        return bytes(out)

    def data(self, frame: bytearray):
        """Alters one DATA frame in place."""
        start, end = HEADER_LENGTH, len(frame)
        if frame[4] & PADDED and end > start:
            end -= frame[start]
            start += 1
        finder = self.streams.setdefault(int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF, ChunkFinder())
        for first, last in finder.feed(bytes(frame[start:end])):
            self.chunks += 1
            if self.only in (None, self.chunks):
                frame[start + (first + last) // 2] ^= 0x01
                self.flipped += 1


async def carry(reader, writer, change):
    """Copies one direction until its end."""
    try:
        while octets := await reader.read(65536):
            writer.write(change(octets))
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    writer.close()


async def serve(arguments) -> None:
    """Listens until cancelled."""
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inner.load_cert_chain(arguments.cert, arguments.key)
    inner.set_alpn_protocols(["h2", "http/1.1"])
    host, _, port = arguments.to.rpartition(":")

    async def connection(reader, writer):
        protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        outer = ssl.create_default_context(cafile=arguments.ca)
        if protocol:
            outer.set_alpn_protocols([protocol])
        try:
            server_reader, server_writer = await asyncio.open_connection(host, int(port), ssl=outer, server_hostname=arguments.name)
        except (OSError, ssl.SSLError) as error:
            print(f"flip: the server cannot be reached: {error}", file=sys.stderr)
            writer.close()
            return
        flipper = Flipper(arguments.only)
        await asyncio.gather(carry(reader, server_writer, bytes),
                             carry(server_reader, writer, flipper.feed if protocol == "h2" else bytes))
        if flipper.flipped:
            print(f"flip: altered {flipper.flipped} of {flipper.chunks} pieces", flush=True)

    server = await asyncio.start_server(connection, "127.0.0.1", arguments.listen, ssl=inner)
    print(f"flip: listening on {server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", type=int, default=0)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--ca", required=True, help="the certificate authority of the server behind")
    parser.add_argument("--name", default="localhost", help="the server's name in its certificate")
    parser.add_argument("--only", type=int, help="alter only the Nth piece of each connection")
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A line to an IMAP server that can be cut: before, inside and after each literal, before the end of a command that has one, and
before each tagged answer, in either direction.

The places are counted over all connections of a story. At the one that was chosen, both ends of its connection are closed. Or the
rest of a command is held (`late`): the client's end is closed, and the server gets the rest only later, on the connection that it
believes in: a double, where the client has meanwhile sent the message again.
"""

import re
import socket
import struct
import threading
import time
from collections import Counter

from organisation import free_port

LITERAL = re.compile(rb"~?\{(\d+)\+?\}\r\n\Z")
BLOCK = 65536
# With the direction behind: a kind of place.
BEFORE, INSIDE, AFTER, END, TAGGED = ("before a literal", "inside a literal", "after a literal", "before a command's end",
                                      "before a tagged answer")
HELD_SECONDS = 60


class Cut(Exception):
    """The connection ends here."""


def close(end: socket.socket, hard: bool = False):
    """Ends a connection; `hard`: with a reset. Another thread that waits for octets there is woken first: as long as it waits the
    system keeps the connection."""
    try:
        if hard:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RD)
            time.sleep(0.01)
        else:
            end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()


class Pair:
    """One connection: the client's end and the server's."""

    def __init__(self, line: "Line", client: socket.socket, server: socket.socket):
        self.line, self.client, self.server = line, client, server
        self.held, self.answered = None, threading.Event()
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self):
        for to_server in (True, False):
            threading.Thread(target=self.run, args=(to_server,), daemon=True).start()

    def run(self, to_server: bool):
        try:
            Pump(self, to_server).run()
        except (OSError, Cut):
            pass
        if not to_server:
            self.answered.set()
        if self.held is None:
            close(self.client)
            close(self.server)

    def here(self, kind: str, to_server: bool, rest: bytes = b""):
        """A place where the line may be cut. `rest`: what of the command has not been passed on yet."""
        action = self.line.place(f"{kind} {'to' if to_server else 'from'} the server")
        if not action:
            return
        if action == "cut" or action == "reset":
            close(self.client, action == "reset")
            close(self.server, action == "reset")
            raise Cut
        self.held = rest
        close(self.client, True)
        self.line.holds(self, action)
        raise Cut

    def release(self):
        """The server gets what was held, answers into the void, and the connection ends."""
        try:
            self.server.sendall(self.held)
            self.server.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.answered.wait(10)
        close(self.server)


class Pump:
    """One direction of a connection."""

    def __init__(self, pair: Pair, to_server: bool):
        self.pair, self.to_server = pair, to_server
        self.source, self.sink = (pair.client, pair.server) if to_server else (pair.server, pair.client)
        self.buffer = b""

    def fill(self):
        octets = self.source.recv(BLOCK)
        if not octets:
            raise Cut
        self.buffer += octets

    def forward(self, octets: bytes):
        if self.pair.held is not None:
            return
        self.sink.sendall(octets)

    def literal(self, size: int):
        self.pair.here(BEFORE, self.to_server)
        for place, amount in ((INSIDE, size // 2), (AFTER, size - size // 2)):
            while amount:
                if not self.buffer:
                    self.fill()
                piece, self.buffer = self.buffer[:amount], self.buffer[amount:]
                self.forward(piece)
                amount -= len(piece)
            self.pair.here(place, self.to_server)

    def run(self):
        in_command, had_literal = False, False
        while True:
            end = self.buffer.find(b"\n")
            if end < 0:
                self.fill()
                continue
            line, self.buffer = self.buffer[:end + 1], self.buffer[end + 1:]
            found = LITERAL.search(line)
            if not self.to_server and not in_command and line[:1] not in (b"*", b"+"):
                self.pair.here(TAGGED, self.to_server)
            if self.to_server and had_literal and not found:
                self.pair.here(END, self.to_server, line)
            self.forward(line)
            in_command = found is not None
            had_literal = in_command
            if found:
                self.literal(int(found.group(1)))


class Line:
    """Listens in the place of a server. `passed`: how many places of each kind there were."""

    def __init__(self, name: str, to: int):
        self.name, self.to, self.port = name, to, free_port()
        self.lock, self.pairs, self.holding = threading.Lock(), [], []
        self.passed, self.wanted, self.cut = Counter(), None, None
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.to), timeout=10)
                server.settimeout(None)
            except OSError:
                close(client)
                continue
            pair = Pair(self, client, server)
            with self.lock:
                self.pairs.append(pair)
            pair.start()

    def reset(self):
        """As at the beginning: nothing is connected, nothing is cut."""
        with self.lock:
            pairs, self.pairs, self.holding = self.pairs, [], []
            self.passed, self.wanted, self.cut = Counter(), None, None
        for pair in pairs:
            close(pair.client)
            close(pair.server)

    def arm(self, kind: str, number: int, cut):
        """At the place `number` of this kind, the cut says what happens."""
        self.wanted, self.cut = (kind, number), cut

    def place(self, kind: str) -> str:
        """What happens at the next place of a kind: nothing, `cut`, `reset`, `late` or `soon`."""
        with self.lock:
            self.passed[kind] += 1
            if self.cut is None or (kind, self.passed[kind]) != self.wanted:
                return ""
            return self.cut.at()

    def holds(self, pair: Pair, action: str):
        with self.lock:
            self.holding.append(pair)
        if action == "soon":
            threading.Thread(target=lambda: (time.sleep(0.15), self.release()), daemon=True).start()

    def release(self):
        """Gives servers what was held."""
        with self.lock:
            pairs, self.holding = self.holding, []
        for pair in pairs:
            pair.release()

    def close(self):
        self.listener.close()
        self.reset()

"""Tests of the demo's smaller tools: the flipping proxy's parser, the relay, the SMTP sender, the generator's promise.

    python3 demo/test_tools.py
"""

import json
import os
import random
import socket
import socketserver
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import flip_proxy
import generate
import relay
import smtp_send
from test_check import SAMPLES


def head(major: int, value: int) -> bytes:
    """A CBOR head in its shortest form (RFC 8949 section 3)."""
    if value < 24:
        return bytes([major << 5 | value])
    size = 1 if value < 256 else 2 if value < 65536 else 4
    return bytes([major << 5 | 24 + {1: 0, 2: 1, 4: 2}[size]]) + value.to_bytes(size, "big")


def cbor(value) -> bytes:
    """Enough of an encoder for the frames of the protocol."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    return head(4, len(value)) + b"".join(map(cbor, value))


def data_frames(random_source, stream: int, body: bytes) -> list:
    """The body in HTTP/2 DATA frames of random sizes, some of them padded."""
    frames, position = [], 0
    while position < len(body):
        piece = body[position:position + random_source.randrange(1, 9000)]
        position += len(piece)
        padding = random_source.choice([0, 0, 5])
        payload = bytes([padding]) + piece + bytes(padding) if padding else piece
        frames.append(len(payload).to_bytes(3, "big") + bytes([0, 8 if padding else 0]) + stream.to_bytes(4, "big") + payload)
    return frames


class FlipTest(unittest.TestCase):
    ITEM = [[3, 7, ["\\Seen", "\x82\x04"], -14159025, None], [4, b"a" * 65536], [4, b"b" * 10], [4, b"c" * 300],
            [5, 65846, b"\x82\x04\x58\x20" * 8, False], [6, 8], [7, 9, 0, "no"], [9, 1, 1, 1]]

    def run_flipper(self, bodies: dict, only=None, seed=1):
        """Feeds the bodies as interleaved frames in random pieces; returns (sent, received, flipper)."""
        source = random.Random(seed)
        queues = [data_frames(source, stream, body) for stream, body in bodies.items()]
        sent = b"\x00\x00\x04\x01\x04\x00\x00\x00\x01\x82\x04\x41\x41"  # HEADERS: not data, whatever it looks like
        while any(queues):
            queue = source.choice([queue for queue in queues if queue])
            sent += queue.pop(0)
        flipper, received, position = flip_proxy.Flipper(only), b"", 0
        while position < len(sent):
            step = source.randrange(1, 20000)
            received += flipper.feed(sent[position:position + step])
            position += step
        return sent, received, flipper

    def test_one_octet_of_each_chunk(self):
        for seed in range(20):
            body = b"".join(map(cbor, self.ITEM))
            sent, received, flipper = self.run_flipper({1: body, 3: body}, seed=seed)
            self.assertEqual(len(sent), len(received))
            different = [(one, two) for one, two in zip(sent, received) if one != two]
            self.assertEqual(len(different), flipper.flipped)
            self.assertTrue(0 < flipper.flipped <= 6)
            self.assertTrue(all(one in b"abc" and one ^ two == 1 for one, two in different))

    def test_only_the_second(self):
        body = b"".join(map(cbor, self.ITEM))
        sent, received, flipper = self.run_flipper({5: body}, only=2)
        self.assertEqual(flipper.flipped, 1)
        self.assertEqual([one for one, two in zip(sent, received) if one != two], [ord("b")])

    def test_other_bodies_pass(self):
        listing = b"".join(map(cbor, [[0, 1, 2, 3, None, b"x" * 40, 0], [1, 5, ["a"], 0, None], [2, [[1, 2], [4, 9]]], [9, 1, 0]]))
        sent, received, flipper = self.run_flipper({1: listing, 3: b'{"json": [4, "x"]}' * 50, 5: b"\x82\x04" + b"\x05" * 40, 7: b""})
        self.assertEqual(sent, received)
        self.assertEqual(flipper.flipped, 0)


class RelayTest(unittest.TestCase):
    def test_counts_and_stops(self):
        class Echo(socketserver.BaseRequestHandler):
            def handle(self):
                while octets := self.request.recv(65536):
                    self.request.sendall(octets * 2)

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            line = relay.Relay(server.server_address[1])
            with socket.create_connection(("127.0.0.1", line.port), timeout=10) as client:
                client.sendall(b"x" * 100_000)
                client.shutdown(socket.SHUT_WR)
                received = 0
                while octets := client.recv(65536):
                    received += len(octets)
            self.assertEqual(received, 200_000)
            self.assertEqual((line.octets_to_server, line.octets_to_client, line.octets()), (100_000, 200_000, 300_000))
            with socket.create_connection(("127.0.0.1", line.port), timeout=10) as client:
                client.sendall(b"y")
                client.recv(2)
                line.stop()
                try:
                    self.assertEqual(client.recv(1), b"")
                except ConnectionResetError:
                    pass
            server.shutdown()


class SmtpHandler(socketserver.StreamRequestHandler):
    """Just enough of a server: says 450 once, then accepts and keeps what came."""

    def handle(self):
        self.wfile.write(b"220 test\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                self.wfile.write(b"250-test\r\n250 8BITMIME\r\n")
            elif verb == b"RCPT" and self.server.refusals:
                self.wfile.write(self.server.refusals.pop() + b" not now\r\n")
            elif verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                octets = b""
                while (line := self.rfile.readline()) != b".\r\n":
                    octets += line[1:] if line.startswith(b".") else line
                self.server.messages.append(octets)
                self.wfile.write(b"250 kept\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 ok\r\n")


class SmtpTest(unittest.TestCase):
    def send(self, message: bytes, refusals: list) -> tuple:
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), SmtpHandler) as server:
            server.daemon_threads, server.messages, server.refusals = True, [], refusals
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                deferred = smtp_send.send(f"127.0.0.1:{server.server_address[1]}", "a@fabrikam.example", "b@contoso.example", message)
                return deferred, server.messages
            finally:
                server.shutdown()

    def test_octets_arrive_as_they_are(self):
        message = b"Subject: \xff\xfe\r\n\r\n.dot\r\n..two\r\n\r\n.\r\nend\r\n"
        self.assertEqual(self.send(message, []), (0, [message]))

    def test_later_is_tried_again_and_never_is_not(self):
        smtp_send.PAUSE = 0.01
        self.assertEqual(self.send(b"a\r\n", [b"450"]), (1, [b"a\r\n"]))
        with self.assertRaises(smtp_send.smtplib.SMTPRecipientsRefused):
            self.send(b"a\r\n", [b"550"])


class GeneratorTest(unittest.TestCase):
    def test_a_seed_gives_one_result_that_keeps_the_promise(self):
        manifests = []
        for seed in (7, 7, 8):
            with tempfile.TemporaryDirectory() as out:
                manifests.append(json.dumps(generate.generate(seed, out, SAMPLES)))
        self.assertEqual(manifests[0], manifests[1])
        self.assertNotEqual(manifests[0], manifests[2])
        for manifest in map(json.loads, manifests):
            counts = manifest["counts"]
            self.assertGreaterEqual(counts["items"], 400)
            self.assertGreaterEqual(counts["nasty"], 40)
            self.assertGreaterEqual(counts["folders"], 12)
            names = {name for mailbox in manifest["mailboxes"] for folder in mailbox["folders"] for name in folder["path"]}
            self.assertFalse(any("." in name or "/" in name for name in names))


if __name__ == "__main__":
    unittest.main()

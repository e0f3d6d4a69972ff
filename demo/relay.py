"""Stands on the way between the two servers: carries octets unchanged and counts them. It cannot read them, they are TLS.

The demo puts it into the target's configuration by `[connections] override`, so everything that the target asks of the source
passes here. `stop()` makes it refuse connections and cuts the open ones, as a broken line would.
"""

import asyncio
import threading


class Relay:
    """A relay in a thread of its own, on a loopback port that it chooses (`port`)."""

    def __init__(self, to_port: int):
        self.to_port, self.port = to_port, 0
        self.octets_to_server = self.octets_to_client = 0
        self._writers = set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.wait(10)

    def _run(self, ready: threading.Event):
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()

    async def _serve(self, reader, writer):
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            writer.close()
            return
        pair = {writer, server_writer}
        self._writers |= pair
        await asyncio.gather(self._carry(reader, server_writer, "octets_to_server"),
                             self._carry(server_reader, writer, "octets_to_client"))
        self._writers -= pair
        for one in pair:
            one.close()

    async def _carry(self, reader, writer, counter: str):
        try:
            while octets := await reader.read(65536):
                setattr(self, counter, getattr(self, counter) + len(octets))
                writer.write(octets)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.close()

    def octets(self) -> int:
        """What went over the line so far, both ways."""
        return self.octets_to_server + self.octets_to_client

    def stop(self):
        """Refuses what comes and cuts what is open."""
        def stop_now():
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
        self._loop.call_soon_threadsafe(stop_now)

"""Running a server: as a process of its own until a signal ends it, or in a thread beside other code."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from polyact.serving.server import Server


def run(server: Server, started: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT, then shut down gracefully; SIGHUP looks at once whether a run has changed."""
    asyncio.run(_until_signalled(server, started))


@contextmanager
def background(server: Server) -> Iterator[str]:
    """A ready server in a thread; yields its address, and shuts it down gracefully afterwards. Errors of its start are raised here."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="polyact-server", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        try:
            yield f"{'wss' if server.tls else 'ws'}://{server.host}:{server.port}"
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _until_signalled(server: Server, started: Callable[[], None]) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    reloads: set[asyncio.Task] = set()

    def reload() -> None:
        task = loop.create_task(server.reload_now())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, reload)
    await server.start()
    started()
    await ended.wait()
    await server.stop()

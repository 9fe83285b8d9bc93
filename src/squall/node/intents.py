"""What many targets are about to feel, on disk by one write."""

import asyncio

from squall.node.journal import Journal, Touched


class Intents:
    """Writes down together what lanes mean to do at the same moment.

    Every write waits for the disk, and all else waits meanwhile: twenty targets that are hit at
    once would wait for twenty writes. Whoever is alone waits for nobody else.

    Args:
        journal: where they are kept.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: list[tuple[Touched, asyncio.Future[None]]] = []

    async def write(self, intent: Touched) -> None:
        """Return when an intent is on disk.

        Raises:
            TryAgain: it cannot be written now.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        done = loop.create_future()
        self._waiting.append((intent, done))
        await done

    def _flush(self) -> None:
        """Write all at once; those who gave up waiting are written down too, which does no harm."""
        together, self._waiting = self._waiting, []
        failure: BaseException | None = None
        try:
            self._journal.intend([intent for intent, _ in together])
        except BaseException as unwritten:  # noqa: BLE001  (those who wait raise it)
            failure = unwritten
        for _, done in together:
            if done.done():
                continue
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)

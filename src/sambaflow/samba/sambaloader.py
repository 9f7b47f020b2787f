"""`SambaLoader`: batches of named SambaTensors, fetched ahead by a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from batucada.errors import DataError
from sambaflow.samba.sambatensor import from_torch_tensor


class DataLoaderException(DataError):
    """The wrapped loader failed; its exception is the cause."""


_END = object()


class SambaLoader:
    """Wraps an iterable of batches.  `names` are those of a batch's tensors, in order.

    `function_hook` is applied to every batch by the thread that fetches; at most `maxsize` batches
    wait.  With `return_original_batch` each item is (named batch, batch).  A failure of the wrapped
    loader raises DataLoaderException, or ends the iteration if `ignore_dataloader_exception`;
    so does a batch that takes longer than `timeout` seconds.
    """

    def __init__(
        self,
        dataloader: Iterable[Iterable[Any]],
        names: Sequence[str],
        maxsize: int = 10,
        function_hook: Callable[[Any], Any] = lambda batch: batch,
        return_original_batch: bool = False,
        ignore_dataloader_exception: bool = False,
        timeout: float = 900,
    ) -> None:
        self.dataloader = dataloader
        self.names = list(names)
        self.maxsize = maxsize
        self.function_hook = function_hook
        self.return_original_batch = return_original_batch
        self.ignore_dataloader_exception = ignore_dataloader_exception
        self.timeout = timeout

    def __len__(self) -> int:
        return len(self.dataloader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        ready: queue.Queue[Any] = queue.Queue(self.maxsize)
        stopped = threading.Event()
        threading.Thread(target=self._produce, args=(ready, stopped), daemon=True).start()
        try:
            while (item := self._next(ready)) is not _END:
                yield item
        finally:
            stopped.set()

    def _next(self, ready: queue.Queue[Any]) -> Any:
        try:
            item = ready.get(timeout=self.timeout)
        except queue.Empty:
            item = TimeoutError(f"no batch within {self.timeout} s")
        if not isinstance(item, BaseException):
            return item
        if self.ignore_dataloader_exception:
            return _END
        raise DataLoaderException(f"the data loader failed: {item!r}") from item

    def _produce(self, ready: queue.Queue[Any], stopped: threading.Event) -> None:
        try:
            for batch in self.dataloader:
                if not _put(ready, self._item(batch), stopped):
                    return
            _put(ready, _END, stopped)
        except Exception as error:
            _put(ready, error, stopped)

    def _item(self, batch: Any) -> Any:
        tensors = list(self.function_hook(batch))
        if len(tensors) != len(self.names):
            raise DataError(f"a batch has {len(tensors)} tensors for the names {self.names}")
        named = [
            from_torch_tensor(tensor, name)
            for tensor, name in zip(tensors, self.names, strict=True)
        ]
        return (named, batch) if self.return_original_batch else named


def _put(ready: queue.Queue[Any], item: Any, stopped: threading.Event) -> bool:
    """Hand over `item`; False once the consumer has left, who would never take it."""
    while not stopped.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False

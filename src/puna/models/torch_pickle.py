"""A reader of pickles that can build tensors' descriptions, plain containers, numbers and text.

Python's own `pickle` runs whatever a file names. This one knows the few instructions that PyTorch
writes (protocol 2), calls nothing, imports nothing, and takes no size from the file without holding
it against the bytes that are there. Start at `read_pickle`.

Source: Python's Lib/pickletools.py describes the instructions; PyTorch's torch/serialization.py and
torch/_utils.py what it writes with them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError

__all__ = ["Storage", "StridedTensor", "read_pickle"]

# The pickle of a 405B model has 250,000 bytes and 50,000 instructions.
_MAX_PICKLE_BYTES = 8 * 1024 * 1024
_MAX_STEPS = 1_000_000
_MAX_NAME_BYTES = 256
_MAX_AXES = 8
_MAX_SIZE = 2**63

_STORAGES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}
_CALLED = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter")
_KNOWN = frozenset({*_STORAGES, *_CALLED})


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in the file that tensors are cut from.

    Attributes:
        dtype: what a number is, in safetensors' words, ``BF16``.
        key: name of the archive's member under ``data/``.
        n_elements: how many numbers the pickle says there are.
    """

    dtype: str
    key: str
    n_elements: int


@dataclass(frozen=True, slots=True)
class StridedTensor:
    """A tensor as PyTorch describes it; its place is inside its storage.

    Attributes:
        storage: where the numbers are.
        offset: first element.
        shape: elements along each axis.
        strides: elements from one to the next along each axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that the pickle mentions, one of `_KNOWN`; never looked up in Python."""

    name: str


class _Mark:
    """Separates what belongs to the next container from what lies below it on the stack."""


_MARK = _Mark()


def read_pickle(data: NDArray[np.uint8], source: str) -> Any:
    """Read a pickle that PyTorch wrote.

    Args:
        data: the pickle, ``[bytes]``, of at most 8 MB.
        source: the file, for messages.

    Returns:
        Dictionaries with text as keys, lists, tuples, numbers, text, None and `StridedTensor`. They may
        refer to each other in any way, themselves included: nobody should walk them to the bottom.

    Raises:
        CheckpointError: the pickle names a function or class that no tensor needs, has an instruction
            that PyTorch does not write, or is damaged.
    """
    if data.size > _MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"{source}: a pickle of at most {_MAX_PICKLE_BYTES} bytes is read, got {data.size}"
        )
    return _Machine(data.tobytes(), source).run()


class _Machine:
    """The stack, the memo and the position of one pickle; `run` is the loop."""

    def __init__(self, data: bytes, source: str) -> None:
        self._data = data
        self._source = source
        self._position = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MAX_STEPS):
            code = self._take(1)
            if code == b".":
                return self._pop()
            step = _STEPS.get(code)
            if step is None:
                raise self._error(f"instruction {code!r}, which PyTorch does not write")
            step(self)
        raise self._error(f"more than {_MAX_STEPS} instructions")

    def _error(self, text: str) -> CheckpointError:
        return CheckpointError(f"{self._source}: the pickle has {text} (at byte {self._position})")

    def _take(self, n_bytes: int) -> bytes:
        taken = self._data[self._position : self._position + n_bytes]
        if len(taken) < n_bytes:
            raise self._error(
                f"{len(taken)} bytes left where {n_bytes} are needed; it is cut short or damaged"
            )
        self._position += n_bytes
        return taken

    def _number(self, n_bytes: int) -> int:
        return int.from_bytes(self._take(n_bytes), "little")

    def _text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self._error(f"text that is not UTF-8: {data[:40]!r}") from None

    def _line(self) -> str:
        end = self._data.find(b"\n", self._position, self._position + _MAX_NAME_BYTES)
        if end < 0:
            raise self._error(f"a name of more than {_MAX_NAME_BYTES} bytes")
        line = self._take(end + 1 - self._position)[:-1]
        return self._text(line)

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise self._error("an instruction that needs a value where there is none")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self._stack:
            item = self._stack.pop()
            if item is _MARK:
                return items[::-1]
            items.append(item)
        raise self._error("the end of a container that was never begun")

    def _top(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise self._error(f"an instruction that needs a {kind.__name__} where there is none")
        return self._stack[-1]

    def protocol(self) -> None:
        version = self._number(1)
        if version != 2:
            raise self._error(f"protocol {version}, PyTorch writes protocol 2; save the file again with it")

    def tuple_of(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def integer(self, n_bytes: int) -> None:
        self._push(int.from_bytes(self._take(n_bytes), "little", signed=True))

    def unicode(self) -> None:
        self._push(self._text(self._take(self._number(4))))

    def get(self, n_bytes: int) -> None:
        index = self._number(n_bytes)
        if index not in self._memo:
            raise self._error(f"a reference to entry {index}, which is not there")
        self._push(self._memo[index])

    def put(self, n_bytes: int) -> None:
        value = self._pop()
        self._memo[self._number(n_bytes)] = value
        self._push(value)

    def append(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self._top(dict)
        keys = items[::2]
        # Text only: equal hashes of chosen numbers would make a dictionary crawl.
        if len(items) % 2 or not all(type(key) is str for key in keys):
            raise self._error("a dictionary with a key that is not text")
        target.update(zip(keys, items[1::2], strict=True))

    def name(self) -> None:
        name = f"{self._line()}.{self._line()}"
        if name not in _KNOWN:
            raise self._error(
                f"the name {name!r:.200}, which could run code; a checkpoint may hold dictionaries, lists, "
                "numbers, text and tensors only, so do not load this file with anything else either"
            )
        self._push(_Global(name))

    def storage(self) -> None:
        match self._pop():
            case ("storage", _Global(name=name), str(key), str(), int(n_elements)) if name in _STORAGES:
                if type(n_elements) is not int or not 0 <= n_elements < _MAX_SIZE:
                    raise self._error(f"a storage of {n_elements!r:.40} elements")
                self._push(Storage(_STORAGES[name], key, n_elements))
            case _:
                raise self._error("a reference outside itself that is no tensor's storage")

    def reduce(self) -> None:
        arguments, called = self._pop(), self._pop()
        match called, arguments:
            case _Global(name="collections.OrderedDict"), ():
                self._push({})
            case _Global(name="torch._utils._rebuild_tensor_v2"), (storage, offset, shape, strides, _, _):
                self._push(self._tensor(storage, offset, shape, strides))
            case _Global(name="torch._utils._rebuild_parameter"), (StridedTensor() as tensor, _, _):
                self._push(tensor)
            case _:
                raise self._error("a call with arguments that make no tensor")

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> StridedTensor:
        if type(storage) is not Storage or not _are_sizes((offset,)):
            raise self._error("a tensor without a storage and an offset")
        if not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides):
            raise self._error(
                f"a tensor without one whole size and one whole step for each of at most {_MAX_AXES} axes"
            )
        return StridedTensor(storage, offset, shape, strides)

    def build(self) -> None:
        # PyTorch keeps version numbers of modules as an attribute of its OrderedDict.
        state = self._pop()
        self._top(dict)
        if type(state) is not dict:
            raise self._error("a state for an object that is no dictionary")


def _are_sizes(values: Any) -> bool:
    """Whether this is a tuple of at most 8 whole numbers from 0 that fit 63 bits."""
    return (
        type(values) is tuple
        and len(values) <= _MAX_AXES
        and all(type(value) is int and 0 <= value < _MAX_SIZE for value in values)
    )


_Step = Callable[[_Machine], None]
_STEPS: dict[bytes, _Step] = {
    b"\x80": _Machine.protocol,
    b"(": lambda m: m._push(_MARK),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"K": lambda m: m._push(m._number(1)),
    b"M": lambda m: m._push(m._number(2)),
    b"J": lambda m: m.integer(4),
    b"\x8a": lambda m: m.integer(m._number(1)),
    b"G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    b"X": _Machine.unicode,
    b")": lambda m: m.tuple_of(0),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"t": lambda m: m._push(tuple(m._pop_to_mark())),
    b"]": lambda m: m._push([]),
    b"a": lambda m: m.append([m._pop()]),
    b"e": lambda m: m.append(m._pop_to_mark()),
    b"}": lambda m: m._push({}),
    b"s": lambda m: m.set_items([m._pop(), m._pop()][::-1]),
    b"u": lambda m: m.set_items(m._pop_to_mark()),
    b"q": lambda m: m.put(1),
    b"r": lambda m: m.put(4),
    b"h": lambda m: m.get(1),
    b"j": lambda m: m.get(4),
    b"c": _Machine.name,
    b"Q": _Machine.storage,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}

from __future__ import annotations

import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.models.pickles import ORDERED, REBUILD, model, number, sizes, storage, tensor, text, write

from puna.errors import CheckpointError
from puna.models import torch_pickle
from puna.models.torch_file import TorchFile

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


def assert_equal(path: Path, expected: dict[str, torch.Tensor]) -> None:
    file = TorchFile(path)
    assert list(file.entries) == list(expected)
    for name, value in expected.items():
        entry = file.entries[name]
        assert (DTYPES[entry.dtype], entry.shape) == (value.dtype, tuple(value.shape)), name
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert file.data(name).tobytes() == data, name
        assert not file.data(name).flags.writeable


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type(tmp_path: Path, dtype: str) -> None:
    values = torch.randint(0, 2 if dtype == "BOOL" else 100, (3, 5)).to(DTYPES[dtype])
    torch.save({"w": values}, tmp_path / "m.pth")
    assert_equal(tmp_path / "m.pth", {"w": values})


def test_every_way_to_lay_a_tensor_out(tmp_path: Path) -> None:
    base = torch.randn(6, 8)
    tensors = {
        "whole": base,
        "the same again": base,
        "transposed": base.t(),
        "rows": base[2:4],
        "columns": base[:, 3:5],
        "every second": base[::2, 1::3],
        "one row": base[5],
        "one number": base[1, 1],
        "empty": torch.empty(0, 3),
        "one by one by five": torch.randn(1, 1, 5).transpose(0, 2),
        "three axes": torch.randn(2, 3, 4).permute(2, 0, 1),
        "a parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
    torch.save(tensors, tmp_path / "m.pth")
    assert_equal(tmp_path / "m.pth", tensors)


@pytest.mark.parametrize("wrap", [dict, OrderedDict, lambda tensors: {"model": tensors}])
def test_dictionaries(tmp_path: Path, wrap: Callable[[dict[str, Any]], object]) -> None:
    tensors = {"a": torch.randn(3), "b": torch.randn(2, 2, dtype=torch.bfloat16)}
    torch.save(wrap(tensors), tmp_path / "m.pth")
    assert_equal(tmp_path / "m.pth", tensors)


def test_state_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Embedding(5, 4))
    torch.save(module.state_dict(), tmp_path / "m.pth")
    assert_equal(tmp_path / "m.pth", dict(module.state_dict()))


def test_tensors_are_views_into_the_file(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(100, 100), "t": torch.randn(3, 2).t()}, tmp_path / "m.pth")
    file = TorchFile(tmp_path / "m.pth")
    assert np.shares_memory(file.data("w"), file._bytes)
    assert not np.shares_memory(file.data("t"), file._bytes)


def test_files_made_by_hand_are_those_of_torch(tmp_path: Path) -> None:
    """The builder that the bad files come from makes files that torch reads."""
    path = write(tmp_path / "m.pth", model(w=tensor(), v=tensor((3,), (2,), 1)))
    expected = torch.load(path, weights_only=True)
    assert expected["v"].tolist() == [1, 3, 5]
    assert_equal(path, expected)


def test_a_file_from_before_byte_orders_were_written(tmp_path: Path) -> None:
    path = write(tmp_path / "m.pth", model(w=tensor()), byte_order=None)
    assert_equal(path, {"w": torch.arange(8.0).reshape(2, 4)})


class Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _imports(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"\x80\x02c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def _deep(n: int) -> bytes:
    return b"\x80\x02" + b"]" * n + b"a" * (n - 1) + b"."


_CYCLE = b"\x80\x02}q\x00" + text("model") + b"h\x00s."
HUGE = 2**62

PICKLES: dict[str, tuple[bytes, str]] = {
    "os.system": (
        pickle.dumps(Runs(os.system, "touch hacked"), 2),
        "the name 'posix.system', which could run",
    ),
    "eval": (pickle.dumps(Runs(eval, "1"), 2), "the name '__builtin__.eval', which could run code"),
    "exec by its new name": (_imports("builtins.exec") + text("1") + b"\x85R.", "the name 'builtins.exec'"),
    "a subprocess": (_imports("subprocess.Popen") + b")R.", "the name 'subprocess.Popen'"),
    "getattr": (_imports("__builtin__.getattr") + b".", "the name '__builtin__.getattr'"),
    "torch.load": (_imports("torch.load") + b".", "the name 'torch.load'"),
    "torch's rebuild of a type": (
        _imports("torch._tensor._rebuild_from_type_v2") + b".",
        "the name 'torch._tensor._rebuild_from_type_v2'",
    ),
    "a class of the model": (_imports("__main__.Model") + b")\x81.", "the name '__main__.Model'"),
    "a name with dots": (_imports("collections.OrderedDict.fromkeys") + b".", "OrderedDict.fromkeys'"),
    "a long name": (b"\x80\x02c" + b"a" * 9999, "a name of more than 256 bytes"),
    "a name not UTF-8": (b"\x80\x02c\xff\nx\n.", "text that is not UTF-8"),
    "a storage that is called": (b"\x80\x02ctorch\nFloatStorage\n)R.", "a call with arguments that make no"),
    "an object is built": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instruction b'\\x81'"),
    "a module's state": (b"\x80\x02]}b.", "an instruction that needs a dict where there is none"),
    "a state of text": (b"\x80\x02}" + text("x") + b"b.", "a state for an object that is no dictionary"),
    "a copyreg extension": (b"\x80\x02\x82\x01.", "instruction b'\\x82'"),
    "an extension of four bytes": (b"\x80\x02\x84\x01\0\0\0.", "instruction b'\\x84'"),
    "an instance": (b"\x80\x02(ios\nsystem\n.", "instruction b'i'"),
    "an object of protocol 0": (b"\x80\x02(o.", "instruction b'o'"),
    "a text reference": (b"\x80\x02P0\n.", "instruction b'P'"),
    "a number of any length": (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1), "instruction b'\\x8b'"),
    "a decimal number": (b"\x80\x02L" + b"9" * 100_000 + b"L\n.", "instruction b'L'"),
    "bytes of 2^63": (b"\x80\x02\x8e" + struct.pack("<Q", 2**63), "instruction b'\\x8e'"),
    "protocol 4": (pickle.dumps({}, 4), "protocol 4, PyTorch writes protocol 2"),
    "protocol 255": (b"\x80\xff.", "protocol 255"),
    "nothing": (b"", "0 bytes left where 1 are needed"),
    "no end": (b"\x80\x02}", "0 bytes left where 1 are needed"),
    "text past the end": (b"\x80\x02X\xff\xff\xff\xff.", "1 bytes left where 4294967295 are needed"),
    "text not UTF-8": (b"\x80\x02X\x01\0\0\0\xff.", "text that is not UTF-8: b'\\xff'"),
    "an end on an empty stack": (b"\x80\x02.", "needs a value where there is none"),
    "a tuple of a mark": (b"\x80\x02(\x85.", "needs a value where there is none"),
    "a mark that is missing": (b"\x80\x02Nt.", "the end of a container that was never begun"),
    "an item of nothing": (b"\x80\x02Na.", "an instruction that needs a list where there is none"),
    "a key of nothing": (b"\x80\x02" + text("a") + b"Ns.", "needs a dict where there is none"),
    "a key without a value": (b"\x80\x02}(" + text("a") + b"u.", "a key that is not text"),
    "a key that is a number": (b"\x80\x02}K\x01Ns.", "a dictionary with a key that is not text"),
    "a key that is a list": (b"\x80\x02}]Ns.", "a dictionary with a key that is not text"),
    "a memo that is empty": (b"\x80\x02h\x07.", "a reference to entry 7, which is not there"),
    "lists in lists": (_deep(400_000), "needs a dictionary of tensors, got a list"),
    "itself": (_CYCLE, "'model' must be a tensor, got a dict"),
    "no dictionary": (b"\x80\x02N.", "needs a dictionary of tensors, got a NoneType"),
    "a tensor alone": (b"\x80\x02" + tensor() + b".", "needs a dictionary of tensors, got a StridedTensor"),
    "a dictionary of numbers": (model(epoch=b"K\x05"), "'epoch' must be a tensor, got a int"),
    "a storage alone": (model(w=storage()), "'w' must be a tensor, got a Storage"),
    "a name alone": (model(w=b"ctorch\nFloatStorage\n"), "'w' must be a tensor, got a _Global"),
    "an outside reference of text": (model(w=text("0") + b"Q"), "no tensor's storage"),
    "a storage of -1 numbers": (model(w=tensor(stored=storage(n_elements=-1))), "a storage of -1 elements"),
    "a storage of 2^63": (model(w=tensor(stored=storage(n_elements=2**63))), "of 9223372036854775808"),
    "a storage of True": (
        model(w=tensor(stored=storage(n_elements=True))),
        "a storage of True elements",
    ),
    "a storage of another kind": (
        model(w=tensor(stored=storage(kind=b"ccollections\nOrderedDict\n"))),
        "no tensor's storage",
    ),
    "a storage of complex numbers": (
        model(w=tensor(stored=storage(kind=b"ctorch\nComplexFloatStorage\n"))),
        "the name 'torch.ComplexFloatStorage'",
    ),
    "a storage that is not there": (
        model(w=tensor(stored=storage(key="9"))),
        "tensor 'w' needs storage '9', which is not there",
    ),
    "a storage outside the folder": (
        model(w=tensor(stored=storage(key="../../etc/passwd"))),
        "needs storage '../../etc/passwd', which is not there",
    ),
    "a storage too long": (
        model(w=tensor(stored=storage(n_elements=9))),
        "storage '0' needs 36 bytes, got 32",
    ),
    "a storage of 2^62 numbers": (
        model(w=tensor(stored=storage(n_elements=HUGE))),
        f"storage '0' needs {HUGE * 4} bytes, got 32",
    ),
    "a shape too large": (model(w=tensor((3, 4), (4, 1))), "does not fit its storage of 8 elements"),
    "an offset too large": (model(w=tensor(offset=1)), "offset 1 does not fit its storage of 8 elements"),
    "an offset of 2^62": (model(w=tensor(offset=HUGE)), f"offset {HUGE} does not fit"),
    "a negative offset": (model(w=tensor(offset=-1)), "a tensor without a storage and an offset"),
    "a negative step": (model(w=tensor((2, 4), (-4, 1))), "a tensor without one whole size and one whole"),
    "a size of 2^62": (model(w=tensor((HUGE, HUGE), (1, 1))), "does not fit its storage of 8 elements"),
    "a step of 2^62": (model(w=tensor((2, 2), (HUGE, 1))), "does not fit its storage of 8 elements"),
    "one number as 2^62": (model(w=tensor((HUGE,), (0,))), "does not fit its storage of 8 elements"),
    "overlapping rows that outgrow it": (model(w=tensor((7, 2), (1, 1))), "does not fit its storage"),
    "nine axes": (model(w=tensor((1,) * 9, (1,) * 9)), "each of at most 8 axes"),
    "fewer steps than axes": (model(w=tensor((2, 4), (1,))), "a tensor without one whole size and one whole"),
    "a shape that is a list": (
        model(w=REBUILD + b"(" + storage() + b"K\x00]" + sizes((1,)) + b"\x89" + ORDERED + b"tR"),
        "a tensor without one whole size and one whole step",
    ),
    "too few arguments": (
        model(w=REBUILD + b"(" + storage() + b"tR"),
        "a call with arguments that make no tensor",
    ),
    "a parameter of nothing": (
        model(w=b"ctorch._utils\n_rebuild_parameter\n(N\x89NtR"),
        "a call with arguments that make no tensor",
    ),
    "a dictionary with arguments": (
        model(w=b"ccollections\nOrderedDict\n(NtR"),
        "a call with arguments that make no tensor",
    ),
}


@pytest.mark.parametrize("case", PICKLES)
def test_hostile_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    data, words = PICKLES[case]
    path = write(tmp_path / "m.pth", data)
    with pytest.raises(CheckpointError) as caught:
        TorchFile(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert os.listdir(tmp_path) == ["m.pth"]


def test_a_memo_of_large_numbers_takes_no_room(tmp_path: Path) -> None:
    data = b"\x80\x02}(" + text("w") + tensor() + b"u" + b"r\xff\xff\xff\xff" + b"."
    assert list(TorchFile(write(tmp_path / "m.pth", data)).entries) == ["w"]


def test_pickles_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.pth", model(w=tensor()))
    monkeypatch.setattr(torch_pickle, "_MAX_STEPS", 5)
    with pytest.raises(CheckpointError, match="the pickle has more than 5 instructions"):
        TorchFile(path)
    monkeypatch.setattr(torch_pickle, "_MAX_PICKLE_BYTES", 10)
    with pytest.raises(CheckpointError, match=r"a pickle of at most 10 bytes is read, got \d+"):
        TorchFile(path)


def test_nothing_is_imported(tmp_path: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(CheckpointError, match=r"the name 'antigravity\.fly'"):
        TorchFile(write(tmp_path / "m.pth", _imports("antigravity.fly") + b")R."))
    assert set(sys.modules) == before


def _legacy(path: Path) -> None:
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)


def _two_pickles(path: Path) -> None:
    write(path, model())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", model())


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "from before 1.6": (
        _legacy,
        "needs to be a zip archive as PyTorch writes since 1.6, it begins with b'\\x80",
    ),
    "compressed": (
        lambda p: write(p, model(), compression=zipfile.ZIP_DEFLATED),
        "'archive/data.pkl' is compressed or encrypted",
    ),
    "big-endian": (
        lambda p: write(p, model(), byte_order=b"big"),
        "the byte order must be b'little', got b'big'",
    ),
    "a long byte order": (lambda p: write(p, model(), byte_order=b"x" * 999), "got b'" + "x" * 20 + "'"),
    "no pickle": (lambda p: zipfile.ZipFile(p, "w").writestr("a/b", b""), "needs one pickle `data.pkl`"),
    "a pickle in a folder in a folder": (lambda p: write(p, model(), folder="a/b"), "in one folder"),
    "two pickles": (
        _two_pickles,
        "needs one pickle `data.pkl` in one folder, as torch.save writes it, got 2",
    ),
    "a pointer": (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1"), "Git LFS pointer"),
    "not there": (lambda p: None, "cannot be read: No such file"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", FILES)
def test_other_files_are_refused(tmp_path: Path, case: str) -> None:
    make, words = FILES[case]
    made = make(tmp_path / "m.pth")
    del made  # an archive is written when it is closed
    with pytest.raises(CheckpointError) as caught:
        TorchFile(tmp_path / "m.pth")
    assert words in str(caught.value)


def test_numbers_of_the_builder() -> None:
    for value in (0, 255, 256, 2**31, 2**63, -1, -(2**40)):
        assert pickle.loads(b"\x80\x02" + number(value) + b".") == value

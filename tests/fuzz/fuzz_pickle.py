"""PyTorch's pickle alone, so that damage is not caught by the archive around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.fuzz.harness import main
from tests.unit.models.pickles import ORDERED, model, number, tensor, text

from puna.models.torch_pickle import read_pickle


def seeds() -> list[bytes]:
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor() + b"\x88" + ORDERED + b"tR"
    memo = b"\x80\x02}q\x00(" + text("a") + b"q\x01]q\x02(" + number(5) + b"h\x01NG" + bytes(8) + b"eu."
    state = b"\x80\x02" + ORDERED + b"}" + text("_metadata") + ORDERED + b"sb."
    return [model(w=tensor(), v=tensor((3,), (2,), 1)), model(p=parameter), memo, state]


def parse(data: bytes, folder: Path) -> None:
    read_pickle(np.frombuffer(data, np.uint8), str(folder))


if __name__ == "__main__":
    main(seeds, parse)

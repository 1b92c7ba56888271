"""Files of torch.save: the zip archive, the pickle and the storages together."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.fuzz.harness import main
from tests.unit.models.pickles import model, tensor, write

from puna.models.torch_file import TorchFile


def seeds() -> list[bytes]:
    pickles = [
        model(w=tensor(), v=tensor((3,), (2,), 1)),
        model(model=model(w=tensor((4, 2), (1, 4)))[2:-1]),
    ]
    with tempfile.TemporaryDirectory() as name:
        return [write(Path(name) / "m", pickle).read_bytes() for pickle in pickles]


def parse(data: bytes, folder: Path) -> None:
    path = folder / "m.pth"
    path.write_bytes(data)
    file = TorchFile(path)
    for name in file.entries:
        file.data(name).tobytes()


if __name__ == "__main__":
    main(seeds, parse)

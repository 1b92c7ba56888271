"""What the inner loops of the compiled kernels consist of, for each instruction set, Arm's too.

    cmake -S . -B build/arm -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \\
      -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
    cmake --build build/arm --target puna_engine
    python -m benchmarks.inner_loops build/arm --objdump aarch64-linux-gnu-objdump

A kernel's inner loop is the one without a loop in it that multiplies most. Accesses to the stack in it are
registers that ran out. Attention's rows are queries, over a cache of floats.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_KERNELS = re.compile(
    r"(?P<product>GroupTile<.*?>|Int8ChannelTile|Bf16Tile|F32Tile)::run<(?P<tiles>\d+), (?P<rows>\d+)>"
    r"|(?P<piece>add_piece)<(?P<piece_rows>\d+)>"
    r"|attend_queries<\(puna::CacheType\)(?P<cache>[01]), (?P<queries>\d)>"
)
_CACHES = ("f32", "f16")  # as CacheType counts them
_FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>.*)>:$")
_LINE = re.compile(r"^\s*(?P<address>[0-9a-f]+):\t(?P<name>\S+)\s*(?P<operands>.*)$")
_JUMP = re.compile(r"^(?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)$")
_TARGET = re.compile(r"(?:^|[\s,])(?P<address>[0-9a-f]+) <")
# The first that fits an instruction's name.
_KINDS = {
    "multiply": re.compile(
        r"v?p?(dpb|madd|mull|fmadd|fnmadd|mulps|tdp)|v?dpbf16|f?ml[as]|[us]{1,2}dot|f?mul|[us]?mmla"
    ),
    "prefetch": re.compile(r"prefetch|prfm"),
    "add": re.compile(r"v?p?(add|sub)(w|d|ps)|fadd|fsub"),
    "load or store": re.compile(r"v?p?(mov|broadcast)|ld|st"),
}


@dataclass(frozen=True)
class Instruction:
    """A line of the disassembler."""

    address: int
    name: str
    operands: str

    @property
    def kind(self) -> str:
        return next((kind for kind, pattern in _KINDS.items() if pattern.match(self.name)), "other")

    @property
    def uses_stack(self) -> bool:
        return re.search(r"%rsp|-0x[0-9a-f]+\(%rbp|\[sp", self.operands) is not None


def functions(text: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Name and instructions of each function of ``objdump -d``."""
    name, body = "", []
    for line in [*text.splitlines(), "0 <>:"]:
        if head := _FUNCTION.match(line):
            if body:
                yield name, body
            name, body = head["name"], []
        elif found := _LINE.match(line):
            body.append(Instruction(int(found["address"], 16), found["name"], found["operands"]))


def inner_loop(body: Sequence[Instruction]) -> list[Instruction]:
    """The loop without a loop in it that multiplies most; empty where there is none."""
    spans = []
    for last in body:
        target = _TARGET.search(last.operands)
        if (
            _JUMP.match(last.name)
            and target
            and body[0].address <= int(target["address"], 16) <= last.address
        ):
            spans.append((int(target["address"], 16), last.address))
    loops = [
        [i for i in body if first <= i.address <= last]
        for first, last in spans
        if not any((first, last) != other and first <= other[0] and other[1] <= last for other in spans)
    ]
    return max(loops, key=lambda loop: sum(i.kind == "multiply" for i in loop), default=[])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of the kernels that a build folder's objects have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("build", type=Path, help="folder in which CMake has built puna_engine")
    parser.add_argument("--objdump", default="objdump", help="the disassembler of that CPU")
    options = parser.parse_args(arguments)
    objects = sorted(options.build.rglob("table_*.cpp.o"))
    if not objects:
        parser.error(
            f"no objects of csrc/kernels/table_*.cpp in {options.build}; build puna_engine there first"
        )
    print(
        "| table | kernel | tiles | rows | instructions |"
        + "".join(f" {k} |" for k in [*_KINDS, "other", "stack"])
    )
    print("|---|---|---|---|---|" + "---|" * (len(_KINDS) + 2))
    for path in objects:
        table = path.name.removeprefix("table_").removesuffix(".cpp.o")
        command = [options.objdump, "-d", "-C", "--no-show-raw-insn", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for name, body in functions(text.replace("(anonymous namespace)::", "")):
            if found := _KERNELS.search(name):
                loop = inner_loop(body)
                kernel = found["product"] or found["piece"] or f"attend {_CACHES[int(found['cache'])]}"
                rows = found["rows"] or found["piece_rows"] or found["queries"]
                counts = [sum(i.kind == kind for i in loop) for kind in [*_KINDS, "other"]]
                cells = [table, kernel, found["tiles"] or 1, rows, len(loop), *counts]
                print("| " + " | ".join(map(str, [*cells, sum(i.uses_stack for i in loop)])) + " |")


if __name__ == "__main__":
    main()

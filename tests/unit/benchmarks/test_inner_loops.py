"""The reader of disassemblies, on lines written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.inner_loops import Instruction, functions, inner_loop, main

TEXT = """
0000000000000010 <outer(long)>:
  10:\tpush   %rbp
  14:\tvpmaddwd %ymm0,%ymm1,%ymm2
  18:\tvpbroadcastd (%rax),%ymm0
  1c:\tvpdpbusd %zmm0,%zmm1,%zmm2
  20:\tvpaddw 0x28(%rsp),%ymm2,%ymm2
  24:\tjne    18 <outer(long)+0x8>
  28:\tjne    14 <outer(long)+0x4>
  2c:\tret

0000000000000030 <on_arm>:
  30:\tldr\tq1, [sp, #16]
  34:\tsdot\tv2.4s, v1.16b, v0.16b
  38:\tprfm\tpldl2keep, [x1]
  3c:\tb.ne\t30 <on_arm>  // b.any
  40:\tb\t10 <outer(long)>
"""


def test_the_innermost_loop_is_found_and_counted() -> None:
    bodies = dict(functions(TEXT))
    assert {name: len(body) for name, body in bodies.items()} == {"outer(long)": 8, "on_arm": 5}
    loop = inner_loop(bodies["outer(long)"])
    assert [i.kind for i in loop] == ["load or store", "multiply", "add", "other"]
    assert [i.uses_stack for i in loop] == [False, False, True, False]
    loop = inner_loop(bodies["on_arm"])
    assert [i.kind for i in loop] == ["load or store", "multiply", "prefetch", "other"]
    assert loop[0].uses_stack
    assert inner_loop(bodies["outer(long)"][:4]) == []


def test_a_frame_that_is_aligned_is_stack_too() -> None:
    assert Instruction(0, "vmovaps", "%ymm5,-0x1130(%rbp)").uses_stack
    assert not Instruction(0, "mov", "0x8(%rbp),%rax").uses_stack


def test_a_folder_without_objects_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert f"in {tmp_path}; build puna_engine there first" in capsys.readouterr().err

"""Prompts that are kept."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.server.stored import ODD

from puna.server import state
from puna.server.errors import ApiError
from puna.server.ids import new_id
from puna.server.state import tables
from puna.server.state.store import State


async def test_a_prompt_has_versions(kept: State, owner: str) -> None:
    first = await kept.write(state.prompts.add, owner, ODD, ["x"])
    assert (first.version, first.is_default, first.text) == (1, True, ODD)
    add = state.prompts.add_version
    second = await kept.write(add, owner, first.id, "two", [], latest=1, becomes_default=False)
    assert (second.version, second.is_default) == (2, False)
    with pytest.raises(ApiError, match="latest version, 2, got 1"):
        await kept.write(add, owner, first.id, "three", [], latest=1, becomes_default=True)
    assert (await kept.read(state.prompts.find, owner, first.id)).version == 1
    assert (await kept.write(state.prompts.set_default, owner, first.id, 2)).is_default
    assert [each.is_default for each in await kept.read(state.prompts.versions, owner, first.id)] == [
        False,
        True,
    ]
    assert [each.version for each in await kept.read(state.prompts.list_all, owner)] == [2]
    for version in (0, 3, 2**31, 2**63, 2**80):
        with pytest.raises(ApiError, match="not found"):
            await kept.read(state.prompts.find, owner, first.id, version)
    await kept.write(state.prompts.remove, owner, first.id)
    with pytest.raises(ApiError, match="not found"):
        await kept.read(state.prompts.versions, owner, first.id)


async def test_one_of_several_changes_of_a_prompt_at_once_is_taken(kept: State, owner: str) -> None:
    made = await kept.write(state.prompts.add, owner, "0", [])

    changes = [
        kept.write(state.prompts.add_version, owner, made.id, str(i), [], latest=1, becomes_default=False)
        for i in range(1, 9)
    ]
    came_of_it = await asyncio.gather(*changes, return_exceptions=True)
    (taken,) = [each for each in came_of_it if not isinstance(each, BaseException)]
    assert {each.status_code for each in came_of_it if isinstance(each, ApiError)} == {400}
    assert await kept.read(state.prompts.versions, owner, made.id) == [made, taken]


async def test_prompts_have_a_length_together(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_AT_ONCE", 2000)
    first = await kept.write(state.prompts.add, owner, "x" * 1500, [])
    with pytest.raises(ApiError, match=r"may take 2000 bytes together, and take 15..; delete a prompt"):
        await kept.write(state.prompts.add, owner, "x" * 500, [])
    add = state.prompts.add_version
    with pytest.raises(ApiError, match="may take 2000 bytes together"):
        await kept.write(add, owner, first.id, "x" * 500, [], latest=1, becomes_default=True)
    await kept.write(state.prompts.add, new_id("another-"), "x" * 500, [])
    await kept.write(state.prompts.remove, owner, first.id)
    await kept.write(state.prompts.add, owner, "x" * 500, [])

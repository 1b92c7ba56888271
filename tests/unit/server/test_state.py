"""What the server keeps, in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from puna.errors import ConfigError, StateError
from puna.server import state
from puna.server.errors import ApiError
from puna.server.ids import new_id
from puna.server.settings import ServerSettings
from puna.server.state import tables
from puna.server.state.completions import StoredCompletion
from puna.server.state.conversations import MAX_ITEMS
from puna.server.state.pages import Page
from puna.server.state.responses import StoredResponse
from puna.server.state.store import State

ODD = "\0 \ud800 \U0001f999 \\u0000 ' \" {{ x }}"
"""Characters that JSON has and databases have trouble with."""


def completion(key: str, **labels: str) -> StoredCompletion:
    return StoredCompletion(
        {"id": key, "model": "m", "said": ODD}, [{"role": "user", "content": ODD}], labels
    )


def response(key: str, previous: str | None = None, status: str = "completed", **more: Any) -> StoredResponse:
    body = {
        "id": key,
        "created_at": 1000,
        "status": status,
        "model": "m",
        "background": False,
        "previous_response_id": previous,
        "output": [{"id": f"out-{key}"}],
        **more,
    }
    return StoredResponse(body, [{"id": f"in-{key}"}])


async def test_the_tables_are_those_that_the_migrations_make(kept: State) -> None:
    def compare(connection: Connection) -> Any:
        context = MigrationContext.configure(connection, opts={"version_table": "puna_version"})
        return compare_metadata(context, tables.METADATA)

    assert await kept.read(compare) == []


async def test_a_completion_comes_back_as_it_was(kept: State, owner: str) -> None:
    added = completion(new_id("c-"), project="hum")
    await kept.write(state.completions.add, owner, added)
    key = added.body["id"]
    assert await kept.read(state.completions.find, owner, key) == added
    changed = await kept.write(state.completions.label, owner, key, {"a": "b", "c": "d"})
    assert changed.labels == {"a": "b", "c": "d"}
    await kept.write(state.completions.remove, owner, key)
    with pytest.raises(ApiError, match="not found"):
        await kept.read(state.completions.find, owner, key)


async def test_nothing_of_another_owner_is_seen(kept: State, owner: str) -> None:
    key = new_id("x-")
    await kept.write(state.completions.add, owner, completion(key))
    await kept.write(state.responses.add, owner, response(key))
    conversation = await kept.write(state.conversations.add, owner, {}, [])
    prompt = await kept.write(state.prompts.add, owner, "text", [])
    other = new_id("owner-")
    for find, name in (
        (state.completions.find, key),
        (state.completions.remove, key),
        (state.responses.find, key),
        (state.responses.chain, key),
        (state.responses.cancel, key),
        (state.responses.remove, key),
        (state.conversations.find, conversation.id),
        (state.conversations.said, conversation.id),
        (state.conversations.remove, conversation.id),
        (state.prompts.find, prompt.id),
        (state.prompts.remove, prompt.id),
    ):
        with pytest.raises(ApiError, match="not found"):
            await kept.write(find, other, name)
        await kept.read(state.completions.find, owner, key)
    with pytest.raises(ApiError, match="not found"):
        await kept.write(
            state.responses.add, other, response(new_id("x-"), conversation={"id": conversation.id})
        )
    assert (await kept.read(state.completions.list_page, other, Page(), None, {})).entries == []
    assert (await kept.read(state.responses.list_page, other, Page(), None)).entries == []
    assert await kept.read(state.prompts.list_all, other) == []


async def test_pages_hold_every_entry_once(kept: State, owner: str) -> None:
    keys = [new_id(f"c{i}-") for i in range(7)]
    for i, key in enumerate(keys):
        await kept.write(state.completions.add, owner, completion(key, even=str(i % 2 == 0)))
    for order in ("asc", "desc"):
        seen: list[str] = []
        after, more = None, True
        while more:
            page = await kept.read(
                state.completions.list_page,
                owner,
                Page(after, 3, order),
                "m",
                {},  # type: ignore[arg-type]
            )
            seen += [entry.body["id"] for entry in page.entries]
            after, more = seen[-1], page.has_more
        assert seen == (keys if order == "asc" else keys[::-1])
    even = await kept.read(state.completions.list_page, owner, Page(order="asc"), None, {"even": "True"})
    assert [entry.body["id"] for entry in even.entries] == keys[::2]
    assert (await kept.read(state.completions.list_page, owner, Page(), "other", {})).entries == []
    for nothing in ("nobody", "\0", ""):
        with pytest.raises(ApiError, match="`after`"):
            await kept.read(state.completions.list_page, owner, Page(nothing), None, {})


async def test_pages_of_a_model_s_responses_are_full(kept: State, owner: str) -> None:
    keys = [new_id("resp_") for _ in range(6)]
    for i, key in enumerate(keys):
        await kept.write(state.responses.add, owner, response(key, model="ab"[i % 2]))
    first = await kept.read(state.responses.list_page, owner, Page(None, 2, "asc"), "b")
    assert ([each.body["id"] for each in first.entries], first.has_more) == ([keys[1], keys[3]], True)
    rest = await kept.read(state.responses.list_page, owner, Page(keys[3], 2, "asc"), "b")
    assert ([each.body["id"] for each in rest.entries], rest.has_more) == ([keys[5]], False)


async def test_responses_go_on_from_one_another(kept: State, owner: str) -> None:
    keys = [new_id(f"r{i}-") for i in range(4)]
    for previous, key in zip([None, *keys], keys, strict=False):
        await kept.write(state.responses.add, owner, response(key, previous))
    found = await kept.read(state.responses.chain, owner, keys[-1])
    assert [each.body["id"] for each in found] == keys
    assert [item["id"] for item in state.responses.said(found)][:4] == [
        f"in-{keys[0]}", f"out-{keys[0]}", f"in-{keys[1]}", f"out-{keys[1]}",
    ]  # fmt: skip
    await kept.write(state.responses.remove, owner, keys[1])
    with pytest.raises(ApiError, match=f"'{keys[1]}' not found"):
        await kept.read(state.responses.chain, owner, keys[-1])


async def test_what_ran_in_the_background_ends_once(kept: State, owner: str) -> None:
    first, second = new_id("r-"), new_id("r-")
    for key in (first, second):
        await kept.write(state.responses.add, owner, response(key, status="queued", background=True))
    assert await kept.write(state.responses.keep_alive, [first, second, "gone"]) == {first, second}
    assert await kept.write(state.responses.finish, owner, response(first))
    cancelled = await kept.write(state.responses.cancel, owner, second)
    assert cancelled.body["status"] == "cancelled"
    assert not await kept.write(state.responses.finish, owner, response(second))
    assert (await kept.read(state.responses.find, owner, second)).body["status"] == "cancelled"
    assert await kept.write(state.responses.keep_alive, [first, second]) == set()
    with pytest.raises(ApiError, match="cannot be cancelled"):
        await kept.write(state.responses.cancel, owner, first)


async def test_a_response_whose_server_fell_silent_has_failed(
    kept: State, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_id("r-")
    await kept.write(state.responses.add, owner, response(key, status="in_progress", background=True))
    assert (await kept.read(state.responses.find, owner, key)).body["status"] == "in_progress"
    later = state.responses.now() + 1000
    monkeypatch.setattr(state.responses, "now", lambda: later)
    found = (await kept.read(state.responses.find, owner, key)).body
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")


async def test_a_conversation_gets_what_was_said(kept: State, owner: str) -> None:
    conversation = await kept.write(state.conversations.add, owner, {"a": "b"}, [{"id": "i0", "text": ODD}])
    about = {"conversation": {"id": conversation.id}}
    await kept.write(state.responses.add, owner, response("r1" + conversation.id, **about))
    said = await kept.read(state.conversations.said, owner, conversation.id)
    assert said[0] == {"id": "i0", "text": ODD}
    assert [item["id"][:4] for item in said[1:]] == ["in-r", "out-"]
    page = await kept.read(state.conversations.item_page, owner, conversation.id, Page("i0", 1, "asc"))
    assert (page.entries, page.has_more) == ([said[1]], True)
    after = await kept.write(state.conversations.remove_item, owner, conversation.id, "i0")
    assert after == conversation
    with pytest.raises(ApiError, match="Item 'i0' not found"):
        await kept.read(state.conversations.find_item, owner, conversation.id, "i0")
    with pytest.raises(ApiError, match="has an item"):
        await kept.write(state.conversations.add_items, owner, conversation.id, [said[1]])
    await kept.write(state.conversations.remove, owner, conversation.id)
    with pytest.raises(ApiError, match="not found"):
        await kept.read(state.conversations.said, owner, conversation.id)


async def test_a_conversation_has_a_limit(kept: State, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ITEMS == 10_000
    monkeypatch.setattr(state.conversations, "MAX_ITEMS", 2)
    conversation = await kept.write(state.conversations.add, owner, {}, [{"id": "a"}, {"id": "b"}])
    with pytest.raises(ApiError, match="may have 2 items"):
        await kept.write(state.conversations.add_items, owner, conversation.id, [{"id": "c"}])


async def test_a_request_reads_only_so_much(kept: State, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [new_id(f"r{i}-") for i in range(4)]
    for previous, key in zip([None, *keys], keys, strict=False):
        await kept.write(state.responses.add, owner, response(key, previous, said="x" * 1000))
    conversation = await kept.write(state.conversations.add, owner, {}, [{"id": "a", "text": "x" * 1000}])
    assert len(await kept.read(state.responses.chain, owner, keys[-1])) == 4
    monkeypatch.setattr(tables, "MAX_AT_ONCE", 2600)
    assert len(await kept.read(state.responses.chain, owner, keys[1])) == 2
    with pytest.raises(ApiError, match=r"takes 5\d\d\d bytes, and a request may go on from 2600; begin anew"):
        await kept.read(state.responses.chain, owner, keys[-1])
    page = await kept.read(state.responses.list_page, owner, Page(order="asc"), None)
    assert ([each.body["id"] for each in page.entries], page.has_more) == (keys[:2], True)
    rest = await kept.read(state.responses.list_page, owner, Page(keys[1], order="asc"), None)
    assert ([each.body["id"] for each in rest.entries], rest.has_more) == (keys[2:], False)
    assert len(await kept.read(state.conversations.said, owner, conversation.id)) == 1
    monkeypatch.setattr(tables, "MAX_AT_ONCE", 500)
    with pytest.raises(ApiError, match="begin anew"):
        await kept.read(state.conversations.said, owner, conversation.id)
    page = await kept.read(state.responses.list_page, owner, Page(order="asc"), None)
    assert len(page.entries) == 1  # there is always one, or nobody would get any further


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


async def test_what_two_say_at_once_stands_one_behind_the_other(kept: State, owner: str) -> None:
    made = await kept.write(state.conversations.add, owner, {}, [])
    batches = [[{"id": f"{i}-{j}"} for j in range(20)] for i in range(8)]
    await asyncio.gather(
        *(kept.write(state.conversations.add_items, owner, made.id, batch) for batch in batches)
    )
    said = [item["id"] for item in await kept.read(state.conversations.said, owner, made.id)]
    first = [int(key.split("-")[0]) for key in said[::20]]
    assert sorted(first) == list(range(8))
    assert said == [f"{i}-{j}" for i in first for j in range(20)]


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


async def test_a_change_that_fails_leaves_nothing(kept: State, owner: str) -> None:
    def both(connection: Connection) -> None:
        state.prompts.add(connection, owner, "text", [])
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        await kept.write(both)
    assert await kept.read(state.prompts.list_all, owner) == []


async def test_two_servers_share_a_database(kept: State, owner: str, file: Path) -> None:
    other = State(ServerSettings(database_url=kept._url and kept._url.render_as_string()), file)
    conversation = await kept.write(state.conversations.add, owner, {}, [])

    async def add(store: State, name: str) -> None:
        for i in range(20):
            await store.write(state.conversations.add_items, owner, conversation.id, [{"id": f"{name}{i}"}])

    await asyncio.gather(add(kept, "a"), add(other, "b"))
    assert len(await other.read(state.conversations.said, owner, conversation.id)) == 40
    await other.close()


async def test_two_servers_open_an_empty_database_at_once(file: Path) -> None:
    stores = [State(ServerSettings(), file) for _ in range(4)]
    found = await asyncio.gather(*(store.write(state.prompts.add, "", "x", []) for store in stores))
    assert len({prompt.id for prompt in found}) == 4
    for store in stores:
        await store.close()


async def test_nothing_is_made_before_the_first_use(file: Path) -> None:
    store = State(ServerSettings(), file)
    await store.close()
    assert not file.parent.exists()


async def test_the_database_is_for_its_user_only(file: Path) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "x", [])
    assert [file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777] == [0o600, 0o700]
    await store.close()
    assert not file.with_name("puna.db-wal").exists()  # all of it is in the one file


def damage_head(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)


def damage_middle(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def another_program_s(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()


def newer(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE puna_version SET version_num = '9999'")
    connection.close()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage_head, "damaged"),
        (damage_middle, "damaged"),
        (cut, "damaged"),
        (another_program_s, "another program"),
        (newer, "newer Puna .*'9999'"),
    ],
)
async def test_a_database_that_cannot_be_used_is_an_error(file: Path, harm: Any, reason: str) -> None:
    store = State(ServerSettings(), file)
    await store.write(state.prompts.add, "", "x", [])
    await store.close()
    harm(file)
    before = file.read_bytes()
    store = State(ServerSettings(), file)
    with pytest.raises(StateError, match=reason):
        await store.read(state.prompts.list_all, "")
    await store.close()
    if harm in (damage_head, newer):
        assert file.read_bytes() == before  # nothing was made of it


async def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    store = State(ServerSettings(), tmp_path / "state" / "puna.db")
    with pytest.raises(StateError, match="cannot be kept in"):
        await store.read(state.prompts.list_all, "")
    await store.close()


async def test_a_full_database_refuses_and_stays_whole(file: Path) -> None:
    store = State(ServerSettings(max_state_bytes=1024**2), file)
    added = []

    async def fill() -> None:
        for _ in range(100):
            added.append(await store.write(state.prompts.add, "", "x" * 50_000, []))

    with pytest.raises(ApiError, match="no room") as caught:
        await fill()
    assert (caught.value.status_code, caught.value.code) == (507, "state_full")
    assert len(await store.read(state.prompts.list_all, "")) == len(added) > 5
    for prompt in added:
        await store.write(state.prompts.remove, "", prompt.id)
    await store.write(state.prompts.add, "", "x" * 50_000, [])
    await store.close()


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "nonsense secret", "sqlite:///secret", "://secret", "secret"]
)
def test_an_address_that_is_no_postgresql_is_an_error_that_does_not_repeat_it(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://") as caught:
        State(ServerSettings(database_url=url))
    assert "secret" not in str(caught.value).replace("sqlite:///", "")
    assert "secret" not in repr(ServerSettings(database_url=url))


async def test_a_database_that_comes_back_is_used_again(postgres_url: str, owner: str) -> None:
    store = State(ServerSettings(database_url=postgres_url))
    made = await store.write(state.prompts.add, owner, "hum", [])

    def end_all_others(connection: Connection) -> None:
        clients = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid != pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {clients}"))

    other = State(ServerSettings(database_url=postgres_url))
    await other.write(end_all_others)
    assert await store.read(state.prompts.find, owner, made.id) == made
    await store.close()
    await other.close()


async def test_a_database_that_does_not_answer_is_an_error_without_the_password(tmp_path: Path) -> None:
    settings = ServerSettings(database_url=f"postgresql://ada:secret@/hum?host={tmp_path}")
    store = State(settings)
    with pytest.raises(StateError, match="'hum'") as caught:
        await store.read(state.prompts.list_all, "")
    assert "secret" not in str(caught.value)
    await store.close()

"""Prompts: texts with places for variables, in versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from puna.server.errors import ApiError
from puna.server.ids import new_id
from puna.server.state import tables
from puna.server.state.rows import insert_row, json_length, now, owned
from puna.server.state.tables import prompt_versions, prompts

__all__ = ["PromptVersion", "add", "add_version", "find", "list_all", "remove", "set_default", "versions"]

MAX_VERSIONS = 1000
_MAX_PROMPTS = 10_000  # of an owner: they are listed whole
_ID_BYTES = 24
_BIGGEST = 2**31


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """A version of a prompt.

    Attributes:
        id: of the prompt.
        version: its number, from 1.
        is_default: whether it is meant where no version is named.
        text: with ``{{ name }}`` where a variable goes; None where there is none yet.
        variables: their names.
    """

    id: str
    version: int
    is_default: bool
    text: str | None
    variables: list[str]


_QUERY = select(
    prompts.c.id, prompts.c.default_version, prompt_versions.c.version, prompt_versions.c.body
).join(prompt_versions, prompt_versions.c.prompt == prompts.c.number)


def add(connection: Connection, owner: str, text: str | None, variables: Sequence[str]) -> PromptVersion:
    """Keep a new prompt, as its version 1.

    Raises:
        ApiError: 400, the owner has too many, or they are too long together.
    """
    n_old = connection.execute(select(func.count()).where(prompts.c.owner == owner)).scalar_one()
    if n_old >= _MAX_PROMPTS:
        raise ApiError(400, f"there may be {_MAX_PROMPTS} prompts; delete one first")
    _check_room(connection, owner, text)
    key = new_id("pmpt_", _ID_BYTES)
    number = insert_row(connection, prompts, id=key, owner=owner, created_at=now(), default_version=1)
    _insert(connection, number, 1, text, variables)
    return PromptVersion(key, 1, True, text, list(variables))


def add_version(
    connection: Connection,
    owner: str,
    key: str,
    text: str,
    variables: Sequence[str],
    *,
    latest: int,
    becomes_default: bool,
) -> PromptVersion:
    """Add a version behind the last one.

    Args:
        connection: writes.
        owner: whose.
        key: the prompt.
        text: of the version.
        variables: of the version.
        latest: the number that the caller takes for the last one, so that nobody's change is overlooked.
        becomes_default: whether it is meant from now on where no version is named.

    Raises:
        ApiError: 404, there is no such prompt; 400, there is a later version, or too many, or they are too
            long together.
    """
    # Locked before the last version is looked for, so that two do not add the same number.
    number = connection.execute(
        select(prompts.c.number).where(owned(prompts, owner, key)).with_for_update()
    ).scalar_one_or_none()
    if number is None:
        raise _not_found(key)
    last = connection.execute(
        select(func.max(prompt_versions.c.version)).where(prompt_versions.c.prompt == number)
    ).scalar_one()
    if last != latest:
        raise ApiError(
            400, f"`version` must be the prompt's latest version, {last}, got {latest}", param="version"
        )
    if last >= MAX_VERSIONS:
        raise ApiError(400, f"a prompt may have {MAX_VERSIONS} versions; make a new prompt")
    _check_room(connection, owner, text)
    _insert(connection, number, last + 1, text, variables)
    if becomes_default:
        _set_default(connection, number, last + 1)
    return find(connection, owner, key, last + 1)


def find(connection: Connection, owner: str, key: str, version: int | None = None) -> PromptVersion:
    """A version of a prompt, the default one where none is named.

    Raises:
        ApiError: 404, there is no such prompt or version.
    """
    number = prompts.c.default_version if version is None else min(version, _BIGGEST - 1)
    query = _QUERY.where(owned(prompts, owner, key), prompt_versions.c.version == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise _not_found(key, version)
    return _prompt(row)


def list_all(connection: Connection, owner: str) -> list[PromptVersion]:
    """Every prompt's default version, the newest prompt first."""
    query = _QUERY.where(prompts.c.owner == owner, prompt_versions.c.version == prompts.c.default_version)
    return [_prompt(row) for row in connection.execute(query.order_by(prompts.c.number.desc()))]


def versions(connection: Connection, owner: str, key: str) -> list[PromptVersion]:
    """Every version of a prompt, the first one first; raises as `find` does."""
    query = _QUERY.where(owned(prompts, owner, key)).order_by(prompt_versions.c.version)
    found = [_prompt(row) for row in connection.execute(query)]
    if not found:
        raise _not_found(key)
    return found


def set_default(connection: Connection, owner: str, key: str, version: int) -> PromptVersion:
    """Say which version is meant where none is named; raises as `find` does."""
    find(connection, owner, key, version)
    connection.execute(update(prompts).where(owned(prompts, owner, key)).values(default_version=version))
    return find(connection, owner, key, version)


def remove(connection: Connection, owner: str, key: str) -> None:
    """Delete a prompt with all its versions; raises as `find` does."""
    if not connection.execute(delete(prompts).where(owned(prompts, owner, key))).rowcount:
        raise _not_found(key)


def _check_room(connection: Connection, owner: str, text: str | None) -> None:
    """Bound what all versions of an owner's prompts take, since lists have them whole."""
    mine = select(json_length(prompt_versions).label("n")).join(prompts).where(prompts.c.owner == owner)
    n_old = connection.execute(select(func.sum(mine.subquery().c.n))).scalar() or 0
    if n_old + len(text or "") > tables.MAX_AT_ONCE:
        raise ApiError(
            400,
            f"all versions of all prompts may take {tables.MAX_AT_ONCE} bytes together, and take {n_old}; "
            "delete a prompt first",
        )


def _insert(
    connection: Connection, number: int, version: int, text: str | None, variables: Sequence[str]
) -> None:
    body = {"text": text, "variables": list(variables)}
    connection.execute(insert(prompt_versions).values(prompt=number, version=version, body=body))


def _set_default(connection: Connection, number: int, version: int) -> None:
    connection.execute(update(prompts).where(prompts.c.number == number).values(default_version=version))


def _prompt(row: Any) -> PromptVersion:
    return PromptVersion(
        row.id, row.version, row.version == row.default_version, row.body["text"], row.body["variables"]
    )


def _not_found(key: str, version: int | None = None) -> ApiError:
    which = "" if version is None else f" version {version}"
    return ApiError(
        404, f"Prompt '{key:.200}'{which} not found. Use 'client.prompts.list()' to list available Prompts."
    )

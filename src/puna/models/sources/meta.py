"""Models from Meta itself, by the signed link of its e-mail.

The link has a ``*`` where the name of a file goes. A model is a folder there; its ``checklist.chk`` lists
its files with their checksums, as ``md5sum`` writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from puna.errors import ConfigError, DownloadError
from puna.models.digests import Digest
from puna.models.download import RefusedError, client_trusting, read_small, size_of
from puna.models.rows import CatalogueRow
from puna.models.sources.plan import Plan, RemoteFile, checked_name

if TYPE_CHECKING:
    import httpx2

__all__ = ["explain_refusal", "file_url", "plan_download", "read_checklist"]

_MAX_CHECKLIST_BYTES = 1 << 20
_PAGE = "https://www.llama.com/llama-downloads"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def file_url(link: str, path: str) -> str:
    """Put a file's path into the signed link.

    Args:
        link: as the e-mail has it.
        path: ``folder/file``.

    Raises:
        ConfigError: the link is not one.
    """
    try:
        parts = urlsplit(link)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    if not host or not is_safe or "*" not in parts.path:
        raise ConfigError(
            "`--url` must be the whole link of Meta's e-mail, which begins with https:// and has a * for "
            f"the file, got {link[:40]!r}...; put it in single quotes, and ask for a new one at {_PAGE}"
        )
    return link.replace("*", path, 1)


def plan_download(row: CatalogueRow, link: str) -> Plan:
    """Ask Meta's server what a model consists of; fetches only the checklist.

    Args:
        row: the model.
        link: the signed link.

    Raises:
        ConfigError: Meta does not offer the model this way, or the link is not one.
        DownloadError: the link has expired or is for other models, or the server cannot be reached.
    """
    if not row.meta_folders:
        raise ConfigError(f"{row.name} does not come from Meta; leave `--source` away")
    with client_trusting() as client:
        folder, checklist = _find_checklist(row, link, client)
        digests = dict(read_checklist(checklist, folder))
        files = [
            _remote(client, file_url(link, f"{folder}/{name}"), name, digest)
            for name, digest in digests.items()
        ]
        if "tokenizer.model" not in digests and any(name.endswith(".pth") for name in digests):
            files.append(_tokenizer(client, link, folder))
    return Plan(name=row.name, origin=f"meta:{folder}", files=tuple(files), row=row)


def read_checklist(text: str, folder: str) -> list[tuple[str, Digest]]:
    """Read a ``checklist.chk``: lines of a checksum, two spaces and a file name.

    Args:
        text: its contents.
        folder: where it is from, for the message.

    Raises:
        DownloadError: it is not of that form, names a file twice, or lists nothing.
    """
    source = f"{folder}/checklist.chk"
    found: dict[str, Digest] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        value, _, name = line.partition(" ")
        digest = Digest("sha256" if len(value) == 64 else "md5", value.lower())
        name = checked_name(name.strip().removeprefix("*").removeprefix("./"), source)
        if not digest.is_well_formed or name in found:
            raise DownloadError(f"{source}: needed are lines of a checksum and a new name, got {line[:80]!r}")
        if name != "checklist.chk":
            found[name] = digest
    if not found:
        raise DownloadError(f"{source} lists no files; try again later")
    return list(found.items())


def _find_checklist(row: CatalogueRow, link: str, client: httpx2.Client) -> tuple[str, str]:
    """The folder has a newer and an older name; the link may know only one."""
    for folder in row.meta_folders:
        try:
            data = read_small(file_url(link, f"{folder}/checklist.chk"), client, _MAX_CHECKLIST_BYTES)
        except RefusedError as error:
            refused = error
            continue
        return folder, data.decode("utf-8", errors="replace")
    raise explain_refusal(row, refused.status) from refused


def explain_refusal(row: CatalogueRow, status: int) -> DownloadError:
    """Say what to do where the server does not hand a file out.

    Args:
        row: the model.
        status: HTTP status.
    """
    return DownloadError(
        f"Meta's server does not give out {row.name} (HTTP status {status}): the link of its e-mail "
        "works for a day and a few downloads, and only for the models it was asked for. Ask for a new one "
        f"at {_PAGE}; what has arrived is kept"
    )


def _tokenizer(client: httpx2.Client, link: str, folder: str) -> RemoteFile:
    """Llama 2's lies beside the folders, for all of its models."""
    name = "tokenizer.model"
    try:
        return _remote(client, file_url(link, f"{folder}/{name}"), name, None)
    except RefusedError:
        return _remote(client, file_url(link, name), name, None)


def _remote(client: httpx2.Client, url: str, name: str, digest: Digest | None) -> RemoteFile:
    return RemoteFile(name=name, url=url, size=size_of(url, client), digest=digest)

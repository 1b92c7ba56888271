"""Fetching one file whole: resumed after a break, retried, checked against its size and checksum."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx2

from puna.errors import DownloadError, StoreError

__all__ = ["client_trusting", "download", "require_room", "sha256_of"]

_MAX_FAILURES = 5  # in a row, none of which brought a new byte
_TEMPORARY_STATUS = (408, 425, 429, 500, 502, 503, 504)
_TIMEOUT = httpx2.Timeout(30, connect=15)  # seconds without any byte
_CHUNK_BYTES = 1 << 20

ProgressCallback = Callable[[int, int], None]  # bytes done, bytes in all


class _TryAgain(Exception):
    """The server's answer cannot be used this time."""


def download(
    url: str,
    target: Path,
    *,
    size: int,
    sha256: str,
    progress: ProgressCallback | None = None,
    client: httpx2.Client | None = None,
) -> None:
    """Fetch a file; what arrives is kept beside it as ``<name>.part`` until it is whole.

    Args:
        url: ``https:``, ``http:`` or ``file:``.
        target: where the file goes; its folder exists.
        size: bytes that it must have.
        sha256: checksum that it must have, lower-case hex.
        progress: told the bytes done, which never go back, and ``size``.
        client: sends the requests and stays open; by default `client_trusting()`.

    Raises:
        DownloadError: the file cannot be had, or is not the one that is wanted. A further call goes on
            from the bytes that arrived, unless those were wrong.
        StoreError: the disk is full or the folder cannot be written.
    """
    part = target.with_name(target.name + ".part")
    fetch = _Fetch(url, part, size, progress or _no_progress)
    try:
        fetch.prepare()
        if urlsplit(url).scheme == "file":
            fetch.copy_file()
        else:
            with nullcontext(client) if client else client_trusting() as open_client:
                fetch.over_http(open_client)
        found = sha256_of(part)
        if found != sha256:
            part.unlink()
            raise DownloadError(
                f"{url} needs the SHA-256 {sha256}, got {found}; what arrived was deleted, try again"
            )
        part.replace(target)
    except OSError as error:
        raise StoreError(f"{part} cannot be written: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's contents, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_room(folder: Path, n_bytes: int) -> None:
    """Insist on free space on the disk of an existing folder.

    Raises:
        StoreError: there is less; the message has both numbers.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StoreError(
            f"{folder} needs {n_bytes} bytes more, the disk has {free} free; make room, or set "
            "PUNA_HOME to a folder on another disk"
        )


def client_trusting(extra: str | None = None) -> httpx2.Client:
    """An HTTP client that trusts httpx2's and the operating system's authorities, and those of one more file.

    Args:
        extra: path of a certificate file.

    Raises:
        DownloadError: the extra file cannot be read.
    """
    context = httpx2.create_ssl_context()
    context.load_default_certs()
    if extra:
        try:
            context.load_verify_locations(extra)
        except OSError as error:  # ssl.SSLError is one
            raise DownloadError(
                f"the certificate file {extra} of pip's setting `cert` cannot be read: {error}"
            ) from error
    return httpx2.Client(verify=context)


class _Fetch:
    """One file on its way to ``part``."""

    def __init__(self, url: str, part: Path, size: int, progress: ProgressCallback) -> None:
        self._url = url
        self._part = part
        self._size = size
        self._progress = progress

    def _done(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def prepare(self) -> None:
        if self._done() > self._size:
            self._part.unlink()
        require_room(self._part.parent, self._size - self._done())
        self._progress(self._done(), self._size)

    def copy_file(self) -> None:
        source = Path(url2pathname(urlsplit(self._url).path))
        try:
            file = source.open("rb")
        except OSError as error:
            raise DownloadError(f"{source} cannot be read: {error.strerror or error}") from error
        with file:
            self._append(iter(lambda: file.read(_CHUNK_BYTES), b""), skip=self._done())
        if self._done() < self._size:
            raise DownloadError(f"{source} must have {self._size} bytes, got {self._done()}")

    def over_http(self, client: httpx2.Client) -> None:
        failures = 0
        while (before := self._done()) < self._size:
            try:
                self._request(client, before)
                reason = "the connection ended early"
            except (httpx2.UnsupportedProtocol, httpx2.TooManyRedirects, httpx2.InvalidURL) as error:
                raise DownloadError(f"{self._url} cannot be fetched: {error}") from error
            except (httpx2.RequestError, _TryAgain) as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise DownloadError(
                        f"{self._url}: the server's certificate is not trusted; where a company's proxy "
                        "signs it, name its certificate file with `pip config set global.cert FILE`"
                    ) from error
                reason = str(error) or type(error).__name__
            failures = 0 if self._done() > before else failures + 1
            if failures == _MAX_FAILURES:
                raise DownloadError(
                    f"{self._url}: {self._done()} of {self._size} bytes arrived, then {failures} attempts "
                    f"brought no more ({reason}); try again later, it goes on from there"
                )
            if self._done() < self._size:
                time.sleep(min(0.5 * 2**failures, 8))

    def _request(self, client: httpx2.Client, done: int) -> None:
        headers = {"Accept-Encoding": "identity"}
        if done:
            headers["Range"] = f"bytes={done}-"
        with client.stream(
            "GET", self._url, headers=headers, timeout=_TIMEOUT, follow_redirects=True
        ) as response:
            if response.status_code in _TEMPORARY_STATUS:
                raise _TryAgain(f"HTTP status {response.status_code}")
            if response.status_code == 206:
                self._check_range(response, done)
                self._append(response.iter_raw(), skip=0)
            elif response.status_code == 200:
                # The server sends all of it again: pass over what is there, the checksum tells if it differs.
                self._check_length(response)
                self._append(response.iter_raw(), skip=done)
            else:
                raise DownloadError(
                    f"{self._url}: the server answered with HTTP status {response.status_code}"
                )

    def _check_range(self, response: httpx2.Response, done: int) -> None:
        header = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", header)
        if not match or (int(match[1]), int(match[3])) != (done, self._size):
            raise DownloadError(
                f"{self._url}: the server must send bytes {done}-{self._size - 1}/{self._size}, "
                f"got {header!r:.100}"
            )

    def _check_length(self, response: httpx2.Response) -> None:
        length = response.headers.get("Content-Length")
        if length is not None and length != str(self._size):
            raise DownloadError(f"{self._url} must have {self._size} bytes, the server says {length!r:.50}")

    def _append(self, chunks: Iterable[bytes], skip: int) -> None:
        with self._part.open("ab") as file:
            for chunk in chunks:
                fresh = chunk[skip:]
                skip -= len(chunk) - len(fresh)
                self._write(file, fresh)

    def _write(self, file: BinaryIO, chunk: bytes) -> None:
        done = file.tell() + len(chunk)
        if done > self._size:
            file.close()
            self._part.unlink()
            raise DownloadError(
                f"{self._url} must have {self._size} bytes, got more; what arrived was deleted"
            )
        file.write(chunk)
        if chunk:
            self._progress(done, self._size)


def _no_progress(done: int, total: int) -> None:
    """Nobody wants to know."""

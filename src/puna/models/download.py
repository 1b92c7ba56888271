"""Fetching one file whole: resumed after a break, retried, checked against its size and checksum."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

import httpx2

from puna.errors import DownloadError, StoreError
from puna.models.digests import Digest, digest_of
from puna.models.rate import RateLimit
from puna.models.room import require_room

__all__ = ["RefusedError", "client_trusting", "download", "read_small", "size_of"]

_MAX_FAILURES = 5  # in a row, none of which brought a new byte
_TEMPORARY_STATUS = (408, 425, 429, 500, 502, 503, 504)
_TIMEOUT = httpx2.Timeout(30, connect=15)  # seconds without any byte
_CHUNK_BYTES = 1 << 20
_MAX_REQUEST_BYTES = 20_000_000_000  # some content networks send no more than 30 GB at once

ProgressCallback = Callable[[int, int], None]  # bytes done, bytes in all


class RefusedError(DownloadError):
    """The server answered, and not with the file.

    Attributes:
        status: HTTP status.
        code: the server's own word for the reason (``X-Error-Code``), empty where it gave none.
    """

    def __init__(self, message: str, status: int, code: str = "") -> None:
        """Put the error together."""
        super().__init__(message)
        self.status = status
        self.code = code


class _TryAgain(Exception):
    """The server's answer cannot be used this time."""


def download(
    url: str,
    target: Path,
    *,
    size: int,
    digest: Digest | None,
    progress: ProgressCallback | None = None,
    client: httpx2.Client | None = None,
    headers: Mapping[str, str] | None = None,
    limit: RateLimit | None = None,
) -> None:
    """Fetch a file; what arrives is kept beside it as ``<name>.part`` until it is whole.

    Args:
        url: ``https:``, ``http:`` or ``file:``. Its query, which may be a signature, is in no message.
        target: where the file goes; its folder exists.
        size: bytes that it must have.
        digest: checksum that it must have; None where its source publishes none.
        progress: told the bytes done, which never go back, and ``size``.
        client: sends the requests and stays open; by default `client_trusting()`.
        headers: sent with each request; ``Authorization`` only to the URL's own host, not to where a
            redirect leads.
        limit: how fast bytes may come in.

    Raises:
        RefusedError: the server answered with something else.
        DownloadError: the file cannot be had, or is not the one that is wanted. A further call goes on
            from the bytes that arrived, unless those were wrong.
        StoreError: the disk is full or the folder cannot be written.
    """
    part = target.with_name(target.name + ".part")
    fetch = _Fetch(url, part, size, progress or _no_progress, dict(headers or {}), limit)
    try:
        fetch.prepare()
        if urlsplit(url).scheme == "file":
            fetch.copy_file()
        else:
            with nullcontext(client) if client else client_trusting() as open_client:
                fetch.over_http(open_client)
        _check(part, digest, _shown(url))
        part.replace(target)
    except OSError as error:
        raise StoreError(
            f"{part} cannot be written: {error.strerror or error}; when that is put right, the same call "
            "goes on from there"
        ) from error


def size_of(url: str, client: httpx2.Client, headers: Mapping[str, str] | None = None) -> int:
    """Ask a server for the size of a file by fetching its first byte, for those that answer GET only.

    Raises:
        RefusedError: the server answered with something else.
        DownloadError: it cannot be reached, or does not say.
    """
    wanted = {**(headers or {}), "Accept-Encoding": "identity", "Range": "bytes=0-0"}
    try:
        with client.stream("GET", url, headers=wanted, timeout=_TIMEOUT, follow_redirects=True) as response:
            if response.status_code not in (200, 206):
                raise _refused(url, response)
            name = "Content-Range" if response.status_code == 206 else "Content-Length"
            match = re.fullmatch(r"(?:bytes 0-0/)?([0-9]{1,18})", response.headers.get(name, ""))
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        raise _unreachable(url, error) from error
    if match is None:
        raise DownloadError(f"{_shown(url)}: the server does not say how large the file is")
    return int(match[1])


def read_small(url: str, client: httpx2.Client, max_bytes: int) -> bytes:
    """Fetch a small file into memory.

    Raises:
        RefusedError: the server answered with something else.
        DownloadError: it cannot be reached, or the file is larger than that.
    """
    data = b""
    try:
        with client.stream("GET", url, timeout=_TIMEOUT, follow_redirects=True) as response:
            if response.status_code != 200:
                raise _refused(url, response)
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > max_bytes:
                    raise DownloadError(f"{_shown(url)} must have at most {max_bytes} bytes, got more")
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        raise _unreachable(url, error) from error
    return data


def _check(part: Path, digest: Digest | None, url: str) -> None:
    """See that what arrived is on the disk and is what was wanted."""
    with part.open("ab") as file:
        os.fsync(file.fileno())
    found = None if digest is None else digest_of(part, digest.kind)
    if found != digest:
        part.unlink()
        raise DownloadError(f"{url} needs the {digest}, got {found}; what arrived was deleted, try again")


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

    def __init__(
        self,
        url: str,
        part: Path,
        size: int,
        progress: ProgressCallback,
        headers: dict[str, str],
        limit: RateLimit | None,
    ) -> None:
        self._full_url = url
        self._url = _shown(url)
        self._part = part
        self._size = size
        self._progress = progress
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._limit = limit

    def _done(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def prepare(self) -> None:
        # What somebody else linked to is not written to.
        if self._part.is_symlink() or self._done() > self._size:
            self._part.unlink()
        require_room(self._part.parent, self._size - self._done())
        self._progress(self._done(), self._size)

    def copy_file(self) -> None:
        source = Path(url2pathname(urlsplit(self._full_url).path))
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
            end = min(self._size, before + _MAX_REQUEST_BYTES)
            try:
                self._request(client, before, end)
                if self._done() >= end:
                    continue
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

    def _request(self, client: httpx2.Client, done: int, end: int) -> None:
        headers = dict(self._headers)
        if done or end < self._size:
            headers["Range"] = f"bytes={done}-{'' if end == self._size else end - 1}"
        with client.stream(
            "GET", self._full_url, headers=headers, timeout=_TIMEOUT, follow_redirects=True
        ) as response:
            if response.status_code in _TEMPORARY_STATUS:
                raise _TryAgain(f"HTTP status {response.status_code}")
            if response.status_code == 206:
                self._check_range(response, done, end)
                self._append(response.iter_raw(), skip=0)
            elif response.status_code == 200:
                # The server sends all of it again: pass over what is there, the checksum tells if it differs.
                self._check_length(response)
                self._append(response.iter_raw(), skip=done)
            else:
                raise _refused(self._full_url, response)

    def _check_range(self, response: httpx2.Response, done: int, end: int) -> None:
        header = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", header)
        if not match or (int(match[1]), int(match[3])) != (done, self._size):
            raise DownloadError(
                f"{self._url}: the server must send bytes {done}-{end - 1}/{self._size}, got {header!r:.100}"
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
            if self._limit is not None:
                self._limit.take(len(chunk))


def _shown(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))


def _unreachable(url: str, error: Exception) -> DownloadError:
    return DownloadError(
        f"{_shown(url)} cannot be fetched: {error or type(error).__name__}; look at the network connection "
        "and the address, and try again"
    )


def _refused(url: str, response: httpx2.Response) -> RefusedError:
    return RefusedError(
        f"{_shown(url)}: the server answered with HTTP status {response.status_code}",
        response.status_code,
        response.headers.get("X-Error-Code", "")[:100],
    )


def _no_progress(done: int, total: int) -> None:
    """Nobody wants to know."""

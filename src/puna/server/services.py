"""What routes need of the server, as FastAPI dependencies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from opentelemetry.trace import NoOpTracer, Tracer

from puna.server.answers.generation import Generation, Wanted
from puna.server.background import Background
from puna.server.door.asgi import client_of
from puna.server.hosting.hosted import Loaded
from puna.server.hosting.pool import ModelPool
from puna.server.hosting.preparation import Preparation
from puna.server.ids import new_id
from puna.server.settings import ServerSettings
from puna.server.state.store import State
from puna.server.watch.metrics import Metrics

__all__ = ["Client", "Owner", "Services", "TheServices"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """Everything that lives as long as the server.

    Attributes:
        settings: what the operator set.
        pool: the models.
        metrics: what is counted.
        state: what is kept.
        background: what is computed while no client waits.
        reading: turns for long conversations that are kept.
        counting: turns for texts of which only the tokens are wanted; they need no database.
        tracer: records traces.
        instance: an id of this run.
        started_s: when it began, by the monotonic clock.
    """

    settings: ServerSettings
    pool: ModelPool
    metrics: Metrics
    state: State
    background: Background
    reading: Preparation = field(default_factory=Preparation)
    counting: Preparation = field(default_factory=Preparation)
    tracer: Tracer = field(default_factory=NoOpTracer)
    instance: str = field(default_factory=partial(new_id, "srv_"))
    started_s: float = field(default_factory=time.monotonic)

    def generate(self, model: Loaded, wanted: Sequence[Wanted], client: str) -> Generation:
        """Answers to be computed, timed and counted.

        Args:
            model: what computes.
            wanted: the answers.
            client: who asks.

        Raises:
            ApiError: 429, too many answers wait already.
        """
        meter = self.metrics.meter(model.llama.info.name)
        return Generation(
            model,
            wanted,
            client=client,
            owner=self.owner_of(client),
            timeout_s=self.settings.timeout_s,
            meter=meter,
            tracer=self.tracer,
        )

    def owner_of(self, client: str) -> str:
        """Whose prompts and constraints are kept together: nobody finds out by them what others say.

        Args:
            client: who asks.

        Returns:
            The name of a key; empty, for everybody's, where there are none.
        """
        return client if self.settings.keys else ""


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _client(request: Request) -> str:
    return client_of(request.scope)


async def _owner(request: Request) -> str:
    """Whose things are meant: the name of the key; where no key is needed, everything is everybody's."""
    return request.scope.get("puna.client") or ""


TheServices = Annotated[Services, Depends(_services)]
Client = Annotated[str, Depends(_client)]
Owner = Annotated[str, Depends(_owner)]

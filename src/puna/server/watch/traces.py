"""OpenTelemetry traces: a span for each request and for each of its answers, never a word of what they say.

Nothing is recorded before the operator names a collector; until then OpenTelemetry's own no-op tracer runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import INVALID_SPAN, NoOpTracer, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

import puna
from puna.engine.request import Event, SamplingParams
from puna.errors import ConfigError

__all__ = ["AnswerSpan", "describe", "request_span", "tracing"]

_EXPORT_S = 2.0  # for a batch of spans; a collector that hangs delays the server's end no longer


@contextmanager
def tracing(url: str | None, instance: str) -> Iterator[Tracer]:
    """A tracer for the length of a ``with`` block, at whose end all spans are sent.

    OpenTelemetry's own variables refine it: ``OTEL_SERVICE_NAME``, ``OTEL_EXPORTER_OTLP_HEADERS``,
    ``OTEL_TRACES_SAMPLER``, ...

    Args:
        url: base of a collector of OTLP over HTTP, such as ``http://localhost:4318``; None: no traces.
        instance: id of this run of the server.

    Raises:
        ConfigError: the SDK is not installed.
    """
    if url is None:
        yield NoOpTracer()
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            "traces need OpenTelemetry's SDK, which is not installed; run `pip install 'puna[traces]'`"
        ) from error
    service = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME", "puna"),
        "service.version": puna.__version__,
        "service.instance.id": instance,
    }
    provider = TracerProvider(resource=Resource.create(service))
    exporter = OTLPSpanExporter(endpoint=url.rstrip("/") + "/v1/traces", timeout=_EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("puna", puna.__version__)
    finally:
        provider.shutdown()


@contextmanager
def request_span(tracer: Tracer, scope: Scope) -> Iterator[Span]:
    """The span of an HTTP request, part of its client's trace where a ``traceparent`` names one.

    Args:
        tracer: records it.
        scope: of the request.
    """
    if isinstance(tracer, NoOpTracer):  # it would take a tenth of a millisecond to record nothing
        yield INVALID_SPAN
        return
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    with tracer.start_as_current_span(
        scope["method"],
        context=TraceContextTextMapPropagator().extract(headers),
        kind=SpanKind.SERVER,
        attributes={"http.request.method": scope["method"]},
        record_exception=False,  # its text may quote a user
        set_status_on_exception=False,
    ) as span:
        yield span


def describe(span: Span, method: str, route: str, status: int, name: str) -> None:
    """Say of a request's span what is known once it was answered.

    Args:
        span: of the request.
        method: of the request.
        route: its pattern, never the path itself.
        status: what it was answered; 0: nothing.
        name: id of the request, as in the log.
    """
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.route": route, "puna.request.id": name})
    if status:
        span.set_attribute("http.response.status_code", status)
    if not 0 < status < 500:
        span.set_status(Status(StatusCode.ERROR))


class AnswerSpan:
    """The span of one answer, as the conventions for generative models name things.

    Its events are ``admitted``, when it no longer waits for its turn, and ``first_token``.
    """

    def __init__(self, tracer: Tracer, model: str, n_prompt: int, params: SamplingParams) -> None:
        """Begin, as a part of the request that is being served.

        Args:
            tracer: records it.
            model: its name.
            n_prompt: tokens of the prompt.
            params: how is sampled.
        """
        self._span = tracer.start_span(
            f"generate {model}",
            attributes={
                "gen_ai.operation.name": "text_completion",
                "gen_ai.provider.name": "puna",
                "gen_ai.request.model": model,
                "gen_ai.request.temperature": params.temperature,
                "gen_ai.request.top_p": params.top_p,
                "gen_ai.usage.input_tokens": n_prompt,
            },
        )
        if params.max_tokens is not None:
            self._span.set_attribute("gen_ai.request.max_tokens", params.max_tokens)
        self._has_token = False

    def admitted(self) -> None:
        """Take that its computation begins."""
        self._span.add_event("admitted")

    def on_event(self, event: Event) -> None:
        """Take an event of the engine; some still come for an answer that was ended."""
        if not self._span.is_recording():
            return
        if event.tokens and not self._has_token:
            self._has_token = True
            self._span.add_event("first_token")
        if event.usage is not None:
            self._span.set_attribute("gen_ai.usage.output_tokens", event.usage.completion_tokens)
            self._span.set_attribute("gen_ai.usage.cache_read.input_tokens", event.usage.cached_tokens)
        if event.error is not None:
            self.failed(event.error)
        if event.finish_reason is not None:
            self._span.set_attribute("gen_ai.response.finish_reasons", [event.finish_reason])

    def failed(self, error: BaseException) -> None:
        """Take that there will be no whole answer; only the kind of the error is told."""
        self._span.set_attribute("error.type", type(error).__name__)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """End it."""
        self._span.end()

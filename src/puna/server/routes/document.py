"""``/openapi.json`` and ``/docs``: the OpenAPI document, for programs and as a page.

All that the page needs comes from this server: it works without a network, and nobody else's script may call
the server from it.
"""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

__all__ = ["add_document"]

# No other page may show it as a part of its own and have a user press its buttons.
_UNFRAMED = {"X-Frame-Options": "DENY", "Content-Security-Policy": "frame-ancestors 'none'"}
_DOCUMENT, _PAGE, _FILES = "/openapi.json", "/docs", "/docs/files"


def add_document(app: FastAPI) -> None:
    """Have an app describe itself.

    Args:
        app: one that was made without `openapi_url`, so that it does not do so already.
    """
    # The package is used for its files alone: Swagger UI, as the page's own project publishes it.
    app.mount(_FILES, StaticFiles(directory=Path(str(files("fastapi_offline") / "static"))))
    app.add_api_route(_DOCUMENT, _document, include_in_schema=False)
    app.add_api_route(_PAGE, _page, include_in_schema=False)


async def _document(request: Request) -> JSONResponse:
    # The first time it takes a while, in which streams have to go on.
    return JSONResponse(await asyncio.to_thread(request.app.openapi))


async def _page() -> HTMLResponse:
    page = get_swagger_ui_html(
        openapi_url=_DOCUMENT,
        title="Puna",
        swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{_FILES}/favicon.png",
    )
    page.headers.update(_UNFRAMED)
    return page

"""Middleware of vLLM's server that asks for the API key on every route but the health check."""

from __future__ import annotations

import os
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

OPEN = "/health"


class RequireKey(AuthenticationMiddleware):
    """Answers 401 where the request lacks the key in `VLLM_API_KEY`.

    vLLM's own middleware guards `/v1` and a few more prefixes, but not `/invocations`, `/tokenize`, `/metrics` or
    `/docs`. Like vLLM's, it lets a browser's preflight (OPTIONS) pass. Given to the server as `--middleware`.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(app, [os.environ["VLLM_API_KEY"]])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one ASGI connection."""
        is_request = scope["type"] in ("http", "websocket") and scope.get("method") != "OPTIONS"
        if is_request and scope["path"] != OPEN and not self.verify_token(Headers(scope=scope)):
            await JSONResponse({"error": "Unauthorized"}, status_code=401)(scope, receive, send)
            return
        await self.app(scope, receive, send)

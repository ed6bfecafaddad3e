"""Files that never change under their address: styles, scripts, pictures."""

from __future__ import annotations

import mimetypes

from aiohttp import web

from admin_http.views import STATIC

KEEP = "public, max-age=31536000, immutable"
_FILES = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.suffix in (".css", ".js", ".svg")}


async def serve(request: web.Request) -> web.StreamResponse:
    """A file of static/; only those that were there at start."""
    path = _FILES.get(request.match_info["name"])
    if path is None:
        raise web.HTTPNotFound
    response = web.Response(body=path.read_bytes(), content_type=mimetypes.guess_type(path.name)[0] or "application/octet-stream", charset="utf-8")
    response.headers["Cache-Control"] = KEEP if "v" in request.query else "no-cache"
    response.enable_compression()
    return response

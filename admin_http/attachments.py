"""GET and HEAD /attachments/{signed}: the link is the key, nothing else is asked."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from aiohttp import web

from admin_http.problems import problem
from daemon.recordings.ranges import Part, Unsatisfiable, Version, wanted_part
from daemon.tickets.attachments import Attachments

RETRY_AFTER_S = 5
WRITE_DEADLINE_S = 30.0
_SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/", "application/pdf", "text/plain")


async def serve_attachment(request: web.Request, attachments: Attachments) -> web.StreamResponse:
    """Our copy, whole or in part; 404 with Retry-After until it is fetched."""
    enterprise, copy = await attachments.opened(request.match_info["signed"])
    if copy["state"] == "waiting":
        response = problem(404, "not_ready", "the attachment is still being fetched: try again")
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response
    if copy["state"] != "stored":
        return problem(404, "not_found", "there is no copy of this attachment")
    version = Version(copy["size"], 0)
    headers = _headers(copy["name"], copy["mime"])
    try:
        part = wanted_part(request.headers.get("Range"), None, version)
    except Unsatisfiable:
        return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{version.size}"})
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{version.size}"
    wanted = part or Part(0, version.size)
    answered = web.StreamResponse(status=206 if part else 200, headers=headers)
    answered.content_length = wanted.end - wanted.start
    await answered.prepare(request)
    if request.method != "HEAD":
        async for data in attachments.parts(enterprise, str(copy["id"]), wanted.start, wanted.end):
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await answered.write(data)
    return answered


def _headers(name: str, mime: str) -> dict[str, str]:
    plain = "".join(character if character.isascii() and (character.isalnum() or character in "._-") else "_" for character in name)[:100] or "file"
    way = "inline" if mime.startswith(_SHOWN) else "attachment"
    return {
        "Content-Type": mime,
        "Content-Disposition": f"{way}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform, max-age=300",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
    }

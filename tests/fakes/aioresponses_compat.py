"""aioresponses 0.7.9 on aiohttp >= 3.14: its responses lack an argument that aiohttp's constructor wants by now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiohttp import ClientResponse


class Response(ClientResponse):
    """A ClientResponse that aioresponses can make: use as `m.get(url, response_class=Response)`."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        more.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*arguments, **more)

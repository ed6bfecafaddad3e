"""A small SIP user agent of ours: phones that transfer, hold, redirect and pick up like desk phones do.

The world's Asterisk plays phones that only call and answer. REFER, REFER with Replaces, INVITE with Replaces, 302 and hold
want a user agent that says them (RFC 3261, 3515, 3891). UDP on loopback only; its media is an echo.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass, field
from urllib.parse import quote

from daemon.supervisor import Supervisor

DEADLINE_S = 30.0
_METHODS = "INVITE, ACK, BYE, CANCEL, OPTIONS, REFER, NOTIFY, INFO, UPDATE"
_REASONS = {
    100: "Trying",
    180: "Ringing",
    200: "OK",
    302: "Moved Temporarily",
    486: "Busy Here",
    487: "Request Terminated",
    603: "Decline",
}


@dataclass
class Message:
    """A SIP request or response: its first line, headers in order (names in lower case), body."""

    first: str
    headers: list[tuple[str, str]]
    body: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Message:
        head, _, body = data.decode("utf-8", "replace").partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(first, [(name.strip().lower(), value.strip()) for name, _, value in pairs], body)

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    @property
    def method(self) -> str:
        """Of a request; of a response that of its CSeq."""
        return self.get("cseq").partition(" ")[2]

    @property
    def status(self) -> int | None:
        return int(self.first.split(" ")[1]) if self.first.startswith("SIP/2.0 ") else None

    @property
    def branch(self) -> str:
        found = re.search(r"branch=([^;,\s]+)", self.get("via"))
        return found[1] if found else ""

    def encode(self) -> bytes:
        length = len(self.body.encode())
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers), f"Content-Length: {length}", "", self.body]
        return "\r\n".join(lines).encode()


def tag_of(address: str) -> str:
    """The tag of a From or To value."""
    found = re.search(r";tag=([^;>\s]+)", address)
    return found[1] if found else ""


def uri_of(address: str) -> str:
    """The URI in a From, To or Contact value."""
    found = re.search(r"<([^>]+)>", address)
    return found[1] if found else address.partition(";")[0]


@dataclass(eq=False)
class Line:
    """One dialog of a softphone with the PBX."""

    phones: Softphones
    number: str
    call_id: str
    local: str
    remote: str
    target: str
    cseq: int = 1
    invite: Message | None = None  # what we were called with
    invite_branch: str = ""  # what we called with
    ringing: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    progress: list[int] = field(default_factory=list)
    referred: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 0

    @property
    def replaces(self) -> str:
        """What names this dialog to the PBX in Replaces: the PBX's own tag is `to-tag` (RFC 3891)."""
        return f"{self.call_id};to-tag={tag_of(self.remote)};from-tag={tag_of(self.local)}"

    def request(self, method: str, *more: tuple[str, str], body: str = "") -> None:
        """Sends a request within the dialog."""
        self.cseq += 1
        self.phones.send(self.phones.request(method, self, self.cseq, *more, body=body))

    async def talk(self, timeout_s: float = DEADLINE_S) -> None:
        """Waits until the call stands."""
        await asyncio.wait_for(self.answered.wait(), timeout_s)

    async def hold(self, on: bool = True) -> None:
        """Puts the other side on hold, or takes it back."""
        self.request("INVITE", *self.phones.session(), body=self.phones.sdp("sendonly" if on else "sendrecv"))
        await asyncio.sleep(0.3)

    async def refer(self, to: str, consult: Line | None = None, *, wait: bool = True) -> None:
        """Transfers: blind to `to`, or attended to whom the line `consult` has (it may still ring). Waits for the PBX's verdict
        (which, for a parking place, comes only when it has read out the number of the slot).
        """
        replaces = f"?Replaces={quote(consult.replaces, safe='')}" if consult else ""
        self.referred.clear()
        self.request("REFER", ("Refer-To", f"<sip:{to}@127.0.0.1:{self.phones.pbx_port}{replaces}>"), ("Referred-By", f"<{uri_of(self.local)}>"))
        if wait:
            await asyncio.wait_for(self.referred.wait(), DEADLINE_S)

    async def hangup(self) -> None:
        """Ends the call, or gives it up while it rings."""
        if self.ended.is_set():
            return
        if self.answered.is_set() or self.invite is not None:
            self.request("BYE")
        else:
            self.phones.send(self.phones.request("CANCEL", self, self.cseq, branch=self.invite_branch))
        await asyncio.wait_for(self.ended.wait(), DEADLINE_S)


@dataclass
class Manner:
    """How a softphone takes calls: `do` is answer, ring, busy, reject or redirect (`to`)."""

    do: str = "answer"
    delay_s: float = 0.3
    to: str = ""


class Softphones(asyncio.DatagramProtocol):
    """Every softphone of an office, on one port."""

    def __init__(self, port: int, pbx_port: int) -> None:
        self.port, self.pbx_port = port, pbx_port
        self._lines: dict[str, Line] = {}
        self._manners: dict[str, Manner] = {}
        self._arrivals: dict[str, asyncio.Queue[Line]] = {}
        self._answers: dict[tuple[str, str], bytes] = {}
        self._supervisor = Supervisor("softphones")
        self._transport: asyncio.DatagramTransport | None = None
        self._media: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Softphones:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", self.port))
        self._media, _ = await loop.create_datagram_endpoint(_Echo, local_addr=("127.0.0.1", 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop()
        for transport in (self._transport, self._media):
            if transport is not None:
                transport.close()

    # -- what a person does with a phone -----------------------------------------------------------------------------

    def behave(self, number: str, do: str = "answer", *, delay_s: float = 0.3, to: str = "") -> None:
        """How `number` takes the calls that come now."""
        self._manners[number] = Manner(do, delay_s, to)
        self._arrivals[number] = asyncio.Queue()

    async def called(self, number: str) -> Line:
        """The next call that reaches `number`, as soon as it rings."""
        return await asyncio.wait_for(self._arrivals.setdefault(number, asyncio.Queue()).get(), DEADLINE_S)

    def call(self, number: str, to: str, *, replaces: Line | None = None) -> Line:
        """`number` dials `to`; with `replaces` it takes over that dialog (a busy-lamp key's pickup)."""
        local = f"<sip:{number}@127.0.0.1:{self.port}>;tag={secrets.token_hex(6)}"
        uri = f"sip:{to}@127.0.0.1:{self.pbx_port}"
        line = Line(self, number, secrets.token_hex(10), local, f"<{uri}>", uri)
        self._lines[line.call_id] = line
        more = [("Replaces", replaces.replaces), ("Require", "replaces")] if replaces else []
        invite = self.request("INVITE", line, line.cseq, *self.session(), *more, body=self.sdp())
        line.invite_branch = invite.branch
        self.send(invite)
        return line

    # -- messages -------------------------------------------------------------------------------------------------------

    def session(self) -> list[tuple[str, str]]:
        return [("Content-Type", "application/sdp")]

    def sdp(self, direction: str = "sendrecv") -> str:
        assert self._media is not None
        port = self._media.get_extra_info("sockname")[1]
        return (
            f"v=0\r\no=- 1 {secrets.randbelow(10**9)} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na={direction}\r\n"
        )

    def request(self, method: str, line: Line, cseq: int, *more: tuple[str, str], body: str = "", branch: str = "") -> Message:
        """A request of `line`, new or within its dialog."""
        headers = [
            ("Via", f"SIP/2.0/UDP 127.0.0.1:{self.port};branch={branch or 'z9hG4bK' + secrets.token_hex(8)}"),
            ("Max-Forwards", "70"),
            ("From", line.local),
            ("To", line.remote),
            ("Call-ID", line.call_id),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", f"<sip:{line.number}@127.0.0.1:{self.port}>"),
            ("Allow", _METHODS),
            ("Supported", "replaces"),
            *more,
        ]
        return Message(f"{method} {line.target} SIP/2.0", [(name.lower(), value) for name, value in headers], body)

    def send(self, message: Message) -> None:
        assert self._transport is not None
        self._transport.sendto(message.encode(), ("127.0.0.1", self.pbx_port))

    def reply(self, to: Message, status: int, line: Line | None = None, *more: tuple[str, str], body: str = "", contact: str = "") -> None:
        """Answers a request, the same again when it is repeated."""
        copied = [(name, value) for name, value in to.headers if name in ("via", "from", "call-id", "cseq", "record-route")]
        local = line.local if line and line.invite is to else to.get("to")
        headers = [*copied, ("to", local), ("allow", _METHODS), ("supported", "replaces"), *more]
        if line is not None:
            headers.append(("contact", f"<sip:{contact or f'{line.number}@127.0.0.1:{self.port}'}>"))
        message = Message(f"SIP/2.0 {status} {_REASONS.get(status, 'Other')}", headers, body)
        self._answers[to.branch, to.method] = message.encode()
        self.send(message)

    # -- what comes -------------------------------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, address: object) -> None:
        message = Message.parse(data)
        if message.status is not None:
            self._response(message)
        elif (known := self._answers.get((message.branch, message.method))) is not None and self._transport is not None:
            self._transport.sendto(known, ("127.0.0.1", self.pbx_port))
        else:
            self._request(message)

    def _response(self, message: Message) -> None:
        line, status = self._lines.get(message.get("call-id")), message.status or 0
        if line is None:
            return
        if message.method == "INVITE":
            if status >= 200:
                self._acknowledge(line, message, status)
            if tag_of(message.get("to")) and not line.answered.is_set():
                line.remote = message.get("to")
            if status == 180:
                line.ringing.set()
            elif 200 <= status < 300:
                line.target = uri_of(message.get("contact")) or line.target
                line.answered.set()
            elif status >= 300 and not line.answered.is_set():
                line.status = status
                line.ended.set()
        elif message.method == "REFER" and status >= 300:
            line.progress.append(status)
            line.referred.set()
        elif message.method == "BYE":
            line.ended.set()

    def _acknowledge(self, line: Line, message: Message, status: int) -> None:
        if 200 <= status < 300:
            line.remote, line.target = message.get("to"), uri_of(message.get("contact")) or line.target
        cseq = int(message.get("cseq").partition(" ")[0])
        ack = self.request("ACK", line, cseq, branch=message.branch if status >= 300 else "")
        ack.headers = [(name, message.get("to") if name == "to" else value) for name, value in ack.headers]
        self.send(ack)

    def _request(self, message: Message) -> None:
        line = self._lines.get(message.get("call-id"))
        match message.method:
            case "ACK":
                return
            case "INVITE" if line is None:
                self._arrive(message)
            case "INVITE" | "UPDATE":
                self.reply(message, 200, line, *(self.session() if message.body else ()), body=self.sdp() if message.body else "")
            case "CANCEL" if line is not None and line.invite is not None:
                self.reply(message, 200)
                if not line.answered.is_set():
                    self.reply(line.invite, 487, line)
                    line.ended.set()
            case "BYE" if line is not None:
                self.reply(message, 200)
                line.ended.set()
            case "NOTIFY" if line is not None:
                self.reply(message, 200)
                self._progress(line, message)
            case _:
                self.reply(message, 200)

    def _progress(self, line: Line, message: Message) -> None:
        found = re.match(r"SIP/2\.0 (\d+)", message.body)
        if found:
            line.progress.append(int(found[1]))
            if int(found[1]) >= 200:
                line.referred.set()
            if 200 <= int(found[1]) < 300 and not line.ended.is_set():
                line.request("BYE")  # the transfer is done: a phone leaves then

    def _arrive(self, message: Message) -> None:
        number = uri_of(message.get("to")).partition(":")[2].partition("@")[0]
        local = f"{message.get('to')};tag={secrets.token_hex(6)}"
        line = Line(self, number, message.get("call-id"), local, message.get("from"), uri_of(message.get("contact")), cseq=100, invite=message)
        self._lines[line.call_id] = line
        self._supervisor.job("take", self._take(line, message, self._manners.get(number, Manner("ring"))))

    async def _take(self, line: Line, invite: Message, manner: Manner) -> None:
        self.reply(invite, 100)
        if manner.do == "busy":
            self._refuse(line, invite, 486)
            return
        self.reply(invite, 180, line)
        line.ringing.set()
        self._arrivals.setdefault(line.number, asyncio.Queue()).put_nowait(line)
        if manner.do == "ring":
            return
        await asyncio.sleep(manner.delay_s)
        if line.ended.is_set():
            return
        if manner.do == "answer":
            line.answered.set()
            self.reply(invite, 200, line, *self.session(), body=self.sdp())
        elif manner.do == "redirect":
            self.reply(invite, 302, line, contact=f"{manner.to}@127.0.0.1:{self.pbx_port}")
            line.ended.set()
        else:
            self._refuse(line, invite, 603)

    def _refuse(self, line: Line, invite: Message, status: int) -> None:
        self.reply(invite, status, line)
        line.ended.set()


class _Echo(asyncio.DatagramProtocol):
    """Sends back the media that comes, so that there is some in both directions."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(data, address)

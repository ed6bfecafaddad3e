"""The lab's office: a PBX with asterisk-conf/ as shipped, and the outside world (phones, customers, the provider).

The world is a second Asterisk that plays all SIP user agents; it is steered over its own manager port (phones.py).
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from lab.asterisk import Asterisk

REPOSITORY = Path(__file__).resolve().parent.parent
PHONES = ("150", "151", "152", "153", "154", "155")
DEAD_PHONE = "158"  # registered once, never answers a packet
UNREGISTERED_PHONE = "159"
SOFT_PHONES = ("161", "162", "163")  # lab/softphone.py plays them: they transfer, hold and pick up
TWO_DEVICES = "165"  # one extension, two registered phones: one of the world, one soft
MOBILES = ("+375291111111",)
AT_ONCE = 3  # how many offices may run in one process
TRUNKS = ("PJSIP/provider", "PJSIP/reserve")

LINES = {
    "+375171112230": "one phone, 150",
    "+375171112233": "ring group 150 and 151",
    "+375171112234": "menu: 1 rings 150",
    "+375171112235": "150 for 2 s, then the mailbox",
    "+375171112236": "queue sales, both ring",
    "+375171112237": "queue support, one after the other, 5 s at most",
    "+375171112238": "an unregistered phone, 159",
    "+375171112239": "a dead phone, 158",
    "+375171112240": "an announcement, then hang up",
    "+375171112248": "smart redirect, then 152",
    "+375171112241": "a softphone, 161",
    "+375171112242": "150, who may transfer and park by keys",
    "+375171112243": "150 for 2 s, then a mobile that has to press 1",
    "+375171112244": "the conference room",
    "+375171112245": "165, who has two phones",
    "+375171112246": "150 behind a Local channel",
    "+375171112247": "150 and a mobile at once",
    "+375171112249": "FollowMe: 150 for 2 s, then a mobile; whoever presses 1",
    "+375171112250": "FollowMe: 150 and a mobile at once",
}

MODULES = """[modules]
autoload = yes
noload = chan_iax2.so
noload = chan_ooh323.so
noload = chan_unistim.so
noload = chan_skinny.so
noload = chan_mgcp.so
noload = chan_dahdi.so
noload = chan_mobile.so
noload = chan_motif.so
noload = chan_console.so
noload = chan_alsa.so
noload = chan_sip.so
noload = res_pjsip_transport_websocket.so
noload = res_phoneprov.so
noload = res_hep.so
noload = res_xmpp.so
noload = pbx_dundi.so
noload = pbx_ael.so
noload = pbx_lua.so
noload = cdr_sqlite3_custom.so
noload = cel_sqlite3_custom.so
noload = app_voicemail_imap.so
noload = app_voicemail_odbc.so
noload = res_snmp.so
noload = res_calendar.so
noload = res_corosync.so
noload = res_config_ldap.so
noload = res_config_pgsql.so
noload = res_config_odbc.so
noload = res_odbc.so
noload = func_odbc.so
noload = cdr_pgsql.so
noload = cel_pgsql.so
noload = cdr_tds.so
noload = cel_tds.so
noload = cdr_odbc.so
noload = cel_odbc.so
noload = cdr_adaptive_odbc.so
noload = res_stun_monitor.so
noload = app_festival.so
"""


PORTS = range(10_000, 20_000)  # below what the kernel gives to whoever asks for any port: none of these is taken between choosing and binding
_NEXT_PORT = itertools.count(secrets.randbelow(len(PORTS)))


def free_port(kind: int = socket.SOCK_STREAM, *, near: int = 0) -> int:
    """A port on loopback that nobody holds: another one each time, or `near`. OSError when `near` is taken, or all are."""
    for port in (near,) if near else (PORTS[next(_NEXT_PORT) % len(PORTS)] for _ in PORTS):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free" if not near else f"port {near} is taken")


@dataclass(frozen=True)
class Ports:
    """Loopback ports of the two Asterisks."""

    pbx_ami: int
    pbx_sip: int
    world_ami: int
    world_sip: int
    pbx_rtp: int
    world_rtp: int
    dead_sip: int
    fastagi: int
    soft_sip: int

    @classmethod
    def choose(cls, nth: int = 0) -> Ports:
        """nth: 0 to AT_ONCE - 1; offices of one process that differ in it share no media ports."""
        rtp = 20_000 + (secrets.randbelow(180 // AT_ONCE) * AT_ONCE + nth) * 200
        udp = socket.SOCK_DGRAM
        return cls(free_port(), free_port(udp), free_port(), free_port(udp), rtp, rtp + 100, free_port(udp), free_port(), free_port(udp))


@dataclass
class Office:
    """A running PBX and its world. `secret` is the manager password of user vochid on the PBX."""

    pbx: Asterisk
    world: Asterisk
    ports: Ports
    secret: str
    world_secret: str
    _dead: socket.socket

    @classmethod
    async def start(cls, root: Path, nth: int = 0) -> Office:
        """Starts both, the `nth` of several at once; the caller must `stop`."""
        ports, secret, world_secret = Ports.choose(nth), secrets.token_hex(12), secrets.token_hex(12)
        dead = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        dead.bind(("127.0.0.1", ports.dead_sip))
        pbx = Asterisk.prepare(root, "pbx", pbx_files(ports, secret, older=root.name == "asterisk-16"))
        world = Asterisk.prepare(root, "world", world_files(ports, world_secret))
        office = cls(pbx, world, ports, secret, world_secret, dead)
        try:
            outcomes = await asyncio.gather(pbx.start(ports.pbx_ami), world.start(ports.world_ami), return_exceptions=True)
            for failed in filter(None, outcomes):
                raise failed
        except BaseException:
            await office.stop()
            raise
        return office

    async def stop(self) -> None:
        await asyncio.gather(self.world.stop(), self.pbx.stop())
        self._dead.close()

    def document(self, number: str = "0367", name: str = "Июнь") -> dict[str, object]:
        """The enterprise document of this office, without integrations."""
        return {
            "number": number,
            "name": name,
            "timezone": "Europe/Minsk",
            "country": "BY",
            "pbxs": [
                {
                    "name": "main",
                    "host": "127.0.0.1",
                    "port": self.ports.pbx_ami,
                    "username": "vochid",
                    "secret": self.secret,
                    "internal_context": "inoffice",
                    "inbound_contexts": ["from-trunk"],
                    "trunks": list(TRUNKS),
                    "internal_number": "^1\\d\\d$",
                    "recordings": {
                        "source": "directory",
                        "path": str(self.pbx.directory / "spool/monitor"),
                        "pbx_path": f"{self.pbx.pbx_directory}/spool/monitor",
                    },
                }
            ],
            "lines": [{"number": line, "name": what} for line, what in LINES.items()],
            "internal_phones": [{"number": phone, "owner": f"Менеджер {phone}"} for phone in PHONES],
            "employee_mobiles": list(MOBILES),
        }


def _shipped(name: str) -> str:
    return (REPOSITORY / "asterisk-conf" / name).read_text()


def pbx_files(ports: Ports, secret: str, *, older: bool = False) -> dict[str, str]:
    """The PBX's configuration: what vochid ships, verbatim, and around it what every PBX has of its own. older: before 18.26."""
    phones = "".join(_phone(phone, ports.world_sip) for phone in PHONES)
    phones += "".join(_phone(phone, ports.soft_sip) for phone in SOFT_PHONES)
    phones += _phone(DEAD_PHONE, ports.dead_sip) + _phone(UNREGISTERED_PHONE, None) + _phone(TWO_DEVICES, ports.world_sip, ports.soft_sip)
    return {
        "modules.conf": MODULES,
        "logger.conf": "[general]\n[logfiles]\nconsole = warning,error\n",
        "manager.conf": f"[general]\nenabled = yes\nbindaddr = 127.0.0.1\nport = {ports.pbx_ami}\n#include manager.d/*.conf\n",
        "manager.d/vochid.conf": _shipped("manager.d/vochid.conf"),
        "vochid-eventfilter.conf": _shipped("vochid-eventfilter.conf" if older else "vochid-eventfilter-22.conf"),
        "vochid-secret.conf": f"secret = {secret}\n",
        "extensions.conf": PBX_EXTENSIONS.replace("FASTAGI_PORT", str(ports.fastagi)),
        "extensions.d/vochid.conf": _shipped("extensions.d/vochid.conf"),
        "queues.conf": PBX_QUEUES,
        "queues.d/vochid.conf": _shipped("queues.d/vochid.conf"),
        "voicemail.conf": "[general]\nformat = wav\n[default]\n150 = 1234,Mailbox\n",
        "pjsip.conf": PJSIP.format(port=ports.pbx_sip) + PROVIDER.format(port=ports.world_sip) + phones,
        "rtp.conf": f"[general]\nrtpstart = {ports.pbx_rtp}\nrtpend = {ports.pbx_rtp + 98}\n",
        "cdr.conf": "[general]\nenable = yes\nunanswered = yes\n[csv]\nusegmtime = yes\nloguniqueid = yes\nloguserfield = yes\nnewcdrcolumns = yes\n",
        "features.conf": "[general]\npickupexten = *8\natxfernoanswertimeout = 8\n[featuremap]\nblindxfer = ##\natxfer = *2\nparkcall = #72\n",
        "res_parking.conf": "[general]\n[default]\nparkext = 700\nparkpos = 701-720\ncontext = parkedcalls\nparkingtime = 4\ncomebacktoorigin = yes\n",
        "indications.conf": "[general]\ncountry = us\n[us]\nringcadence = 2000,4000\nring = 440+480/2000,0/4000\nbusy = 480+620/500,0/500\n",
        "confbridge.conf": "[general]\n[default_user]\ntype = user\nquiet = yes\nannounce_only_user = no\n[default_bridge]\ntype = bridge\n",
        "musiconhold.conf": "[default]\nmode = files\ndirectory = sounds/en\n",
        "followme.conf": FOLLOW_ME,
    }


# Whoever answers hears two beeps and is asked; the caller is answered at once and hears music.
FOLLOW_ME = """[general]
featuredigittimeout => 5000
takecall => 1
declinecall => 2
norecording_prompt => beep
options_prompt => beep
sorry_prompt => beep
[one-by-one]
musicclass => default
context => lab-behind
number => 150,2
number => 375291111111,7
[at-once]
musicclass => default
context => lab-behind
number => 150&375291111111,10
"""

PJSIP = """[global]
type = global
endpoint_identifier_order = username,ip
[udp]
type = transport
protocol = udp
bind = 127.0.0.1:{port}
[endpoint](!)
type = endpoint
transport = udp
disallow = all
allow = ulaw
direct_media = no
allow_subscribe = no
"""

PROVIDER = """[provider](endpoint)
context = from-trunk
aors = provider
trust_id_inbound = yes
[provider]
type = aor
contact = sip:127.0.0.1:{port}
[provider]
type = identify
endpoint = provider
match = 127.0.0.1
[reserve](endpoint)
context = from-trunk
aors = reserve
[reserve]
type = aor
contact = sip:127.0.0.1:{port}
"""


def _phone(number: str, *ports: int | None) -> str:
    contact = "".join(f"contact = sip:{number}@127.0.0.1:{port}\n" for port in ports if port) or "max_contacts = 1\n"
    return f"""[{number}](endpoint)
context = inoffice
aors = {number}
callerid = Менеджер {number} <{number}>
call_group = 1
pickup_group = 1
[{number}]
type = aor
{contact}"""


PBX_EXTENSIONS = """[general]
static = yes
[globals]
TRUNK = provider
OFFICE_NUMBER = +375171112233
VOCHID_FASTAGI = 127.0.0.1:FASTAGI_PORT
VOCHID_RING = 2
#include extensions.d/*.conf

[vochid-lines]
exten => _375.,1,Goto(+${EXTEN},1)
exten => +375171112230,1,Gosub(vochid-record,s,1)
 same => n,Dial(PJSIP/150,3)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112233,1,Gosub(vochid-record,s,1)
 same => n,Dial(PJSIP/150&PJSIP/151,4)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112234,1,Goto(lab-menu,s,1)
exten => +375171112235,1,Dial(PJSIP/150,2)
 same => n,VoiceMail(150@default,u)
 same => n,Hangup()
exten => +375171112236,1,Answer()
 same => n,Queue(sales,,,,6)
 same => n,Hangup()
exten => +375171112237,1,Answer()
 same => n,Queue(support,,,,5)
 same => n,Playback(vm-goodbye)
 same => n,Hangup()
exten => +375171112238,1,Dial(PJSIP/159,3)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112239,1,Dial(PJSIP/158,3)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112240,1,Answer()
 same => n,Playback(vm-goodbye)
 same => n,Hangup()
exten => +375171112248,1,Gosub(vochid-record,s,1)
 same => n,Gosub(vochid-smart-redirect,s,1(0367,${EXTEN}))
 same => n,Dial(PJSIP/152,4)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112241,1,Dial(PJSIP/161,20)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112242,1,Dial(PJSIP/150,20,tk)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112243,1,Dial(PJSIP/150,2)
 same => n,Dial(PJSIP/375291111111@provider,10,U(lab-confirm))
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112244,1,Answer()
 same => n,ConfBridge(630)
 same => n,Hangup()
exten => +375171112245,1,Dial(${PJSIP_DIAL_CONTACTS(165)},10)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112246,1,Dial(Local/150@lab-behind,10)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112247,1,Dial(PJSIP/150&Local/375291111111@lab-behind,10)
 same => n,Hangup(${HANGUPCAUSE})
exten => +375171112249,1,FollowMe(one-by-one,d)
 same => n,Hangup()
exten => +375171112250,1,FollowMe(at-once,d)
 same => n,Hangup()

[lab-behind]
exten => 150,1,Dial(PJSIP/150,10)
exten => _375.,1,Gosub(vochid-record,s,1)
 same => n,Dial(PJSIP/${FILTER(0-9,${EXTEN})}@provider,10)

[lab-confirm]
exten => s,1,Read(KEY,vm-enter-num-to-call,1,,1,3)
 same => n,Set(GOSUB_RESULT=${IF($["${KEY}"="1"]?:BUSY)})
 same => n,Return()

[lab-menu]
exten => s,1,Answer()
 same => n,Background(vm-enter-num-to-call)
 same => n,WaitExten(5)
 same => n,Hangup()
exten => 1,1,Dial(PJSIP/150,3)
 same => n,Hangup()

[vochid-internal](+)
exten => 600,1,Dial(PJSIP/150&PJSIP/151,4)
exten => 601,1,Queue(sales,,,,8)
 same => n,Hangup()
exten => 630,1,Answer()
 same => n,ConfBridge(630)
exten => 640,1,Dial(PJSIP/150,2)
 same => n,Dial(PJSIP/161,5)
 same => n,Hangup(${HANGUPCAUSE})
exten => _**1XX,1,Pickup(${EXTEN:2}@PICKUPMARK)
exten => _*34*1XX,1,PickupChan(PJSIP/${EXTEN:4})
exten => 650,1,Page(PJSIP/150&PJSIP/151,q,5)
exten => _*222*1XX,1,Answer()
 same => n,ChanSpy(PJSIP/${EXTEN:5},q)
exten => _*223*1XX,1,Answer()
 same => n,ChanSpy(PJSIP/${EXTEN:5},qw)
exten => _*224*1XX,1,Answer()
 same => n,ChanSpy(PJSIP/${EXTEN:5},qB)
exten => _+37533.,1,Set(CALLERID(num)=${OFFICE_NUMBER})
 same => n,Dial(PJSIP/0${FILTER(0-9,${EXTEN})}@provider,10)
 same => n,Dial(PJSIP/${FILTER(0-9,${EXTEN})}@reserve,10)
 same => n,Hangup(${HANGUPCAUSE})
include => parkedcalls
exten => barred,1,Hangup(21)
exten => _810X.,1,Hangup(21)
"""

PBX_QUEUES = """[general]
#include queues.d/*.conf
[sales](vochid-ringall)
member => PJSIP/150
member => PJSIP/151
[support](vochid-linear)
timeout = 2
member => PJSIP/152
member => PJSIP/153
"""


def world_files(ports: Ports, secret: str) -> dict[str, str]:
    """The world's configuration: every phone, customer and the provider, acting as it is told."""
    lines = "".join(f"[phone{n}](endpoint)\ncontext = world\nfrom_user = {n}\naors = office\n" for n in PHONES)
    return {
        "modules.conf": MODULES,
        "logger.conf": "[general]\n[logfiles]\nconsole = warning,error\n",
        "manager.conf": f"[general]\nenabled = yes\nbindaddr = 127.0.0.1\nport = {ports.world_ami}\n"
        f"[lab]\nsecret = {secret}\nread = call,system\nwrite = originate,call,system,command,reporting\nwritetimeout = 5000\n",
        "extensions.conf": WORLD_EXTENSIONS,
        "pjsip.conf": PJSIP.format(port=ports.world_sip) + f"[office](endpoint)\ncontext = world\naors = office\nsend_pai = yes\ntrust_id_outbound = yes\n"
        f"[office]\ntype = aor\ncontact = sip:127.0.0.1:{ports.pbx_sip}\n[office]\ntype = identify\nendpoint = office\nmatch = 127.0.0.1\n" + lines,
        "rtp.conf": f"[general]\nrtpstart = {ports.world_rtp}\nrtpend = {ports.world_rtp + 98}\n",
        "cdr.conf": "[general]\nenable = no\n",
        "musiconhold.conf": "[default]\nmode = files\ndirectory = sounds/en\n",
    }


# What a user agent does when it is called stands in the Asterisk database under its number:
#   do/<number> = answer | ring | progress | hangup | forward,  delay/<number> s,  talk/<number> s,  arg/<number>
WORLD_EXTENSIONS = """[general]
static = yes
[world]
exten => _[+0-9].,1,Set(WHO=${FILTER(0-9,${EXTEN})})
 same => n,Set(DELAY=${IF($["${DB(delay/${WHO})}"=""]?0.3:${DB(delay/${WHO})})})
 same => n,Set(TALK=${IF($["${DB(talk/${WHO})}"=""]?600:${DB(talk/${WHO})})})
 same => n,Set(ARG=${DB(arg/${WHO})})
 same => n,Goto(${IF($["${DB(do/${WHO})}"=""]?ring:${DB(do/${WHO})})})
 same => n(ring),Ringing()
 same => n,Wait(600)
 same => n(progress),Progress()
 same => n,Wait(600)
 same => n(answer),Ringing()
 same => n,Wait(${DELAY})
 same => n,Answer()
 same => n,Set(TIMEOUT(absolute)=${TALK})
 same => n,Milliwatt()
 same => n,Hangup()
 same => n(hangup),Wait(${DELAY})
 same => n,Hangup(${ARG})
 same => n(decline),Ringing()
 same => n,Wait(${DELAY})
 same => n,Hangup(${ARG})
 same => n(forward),Ringing()
 same => n,Wait(${DELAY})
 same => n,Transfer(PJSIP/${ARG})
 same => n,Hangup()
[talk]
exten => s,1,Answer()
 same => n,Milliwatt()
 same => n,Hangup()
"""

"""All that is sealed at rest, put under the newest key: `vochid keys rotate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from daemon.security.cabinet import signed_with_newest
from daemon.security.vault import Vault, VaultError
from daemon.store.pool import Database


@dataclass(frozen=True, slots=True)
class Rotation:
    """`sealed`: how many are under the newest key now; `changed`: put there by this run; `failed`: what could not be opened, and why."""

    sealed: int
    changed: int
    failed: tuple[str, ...]


async def rotate(db: Database, vault: Vault, progress: Callable[[int, int], None] = lambda done, of: None) -> Rotation:
    """Seals anew what is under an older key, one by one: a run that was broken off goes on where it was, beside a running daemon too.

    What somebody changes meanwhile is left: it was sealed with the newest key then.
    """
    rows = await db.fetch("select * from sealed_texts()")
    old = [row for row in rows if not vault.is_newest(row["sealed"])]
    changed, failed = 0, []
    for done, row in enumerate(old, 1):
        try:
            new = vault.reseal(row["sealed"], _name(row["place"], row["owner"], row["key"]))
        except VaultError as error:
            failed.append(str(error))
        else:
            changed += bool(await db.fetchval("select reseal($1, $2, $3, $4, $5)", row["place"], row["owner"], row["key"], row["sealed"], new))
        progress(done, len(old))
    return Rotation(len(rows) - len(failed), changed, tuple(failed))


@dataclass(frozen=True, slots=True)
class Carried:
    """`moved`: inbound tokens found by the newest key now, put there by this run; `ending`: what ends when the older keys are taken away."""

    moved: int
    ending: tuple[str, ...]


async def carry_over(db: Database, vault: Vault, tokens: Iterable[tuple[str, str]], cabinets: Iterable[tuple[str, str]]) -> Carried:
    """Keyed hashes of inbound tokens that are known here, under the newest key; can be repeated and broken off.

    `tokens`: (enterprise, token) of everything whose text is kept sealed; `cabinets`: (enterprise, cabinet link's token) as CRMs hold them.
    """
    newest = set()
    moved = 0
    for _, token in tokens:
        hashes = vault.token_hashes(token)
        newest.add(hashes[0])
        for old in hashes[1:]:
            moved += bool(await db.fetchval("select rehash_inbound($1, $2)", old, hashes[0]))
    ending = {
        f"{row['purpose']}{' of ' + row['integration'] if row['integration'] else ''} of enterprise {row['enterprise_number']}"
        for row in await db.fetch("select * from inbound_hashes()")
        if row["token_hash"] not in newest and row["expires_at"] is None
    }
    ending |= {f"the cabinet link of enterprise {enterprise}" for enterprise, token in cabinets if not signed_with_newest(vault, token)}
    return Carried(moved, tuple(sorted(ending)))


def _name(place: str, owner: str, key: str) -> str:
    if place == "second factor":
        return f"the second factor of {owner}"
    return {"settings": "a secret", "tokens": f"the access to {key}", "registration": f"the registration at {key}"}[place] + f" of enterprise {owner}"

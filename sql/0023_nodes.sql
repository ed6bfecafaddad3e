-- Several daemons on one database: who lives, who reads which PBX, what one asks of another, how they share a CRM account's limits.
-- Time is the database's alone.

-- A row per living process. `told`: what the others' pages and streams need to know of it.
create table nodes (
  owner text primary key,                -- the node's name with a random part
  node text not null,
  started_at timestamptz not null default now(),
  expires_at timestamptz not null,
  told jsonb not null default '{}'
);
alter table nodes enable row level security;  -- no policy: the functions below are the way

create function living_nodes() returns table (owner text, node text, started_at timestamptz, told jsonb, pbxs int)
language sql stable security definer set search_path = public as $$
  select n.owner, n.node, n.started_at, n.told, (select count(*)::int from leases l where l.owner = n.owner and l.expires_at > now())
    from nodes n where n.expires_at > now() order by n.node, n.started_at, n.owner
$$;

-- A process says that it lives, and keeps what it reads: a lease that ran out is not renewed, somebody else may have it.
create function beat(p_owner text, p_node text, p_ttl_s double precision, p_told jsonb) returns table (enterprise_number text, pbx text, epoch bigint)
language plpgsql security definer set search_path = public as $$
begin
  insert into nodes as n (owner, node, expires_at, told) values (p_owner, p_node, now() + make_interval(secs => p_ttl_s), p_told)
    on conflict (owner) do update set expires_at = excluded.expires_at, told = excluded.told;
  delete from nodes n where n.expires_at < now() - interval '1 minute';
  return query update leases l set expires_at = now() + make_interval(secs => p_ttl_s)
    where l.owner = p_owner and l.expires_at > now() returning l.enterprise_number, l.pbx, l.epoch;
end $$;

-- Takes what nobody reads of the PBXs that are named. p_fair: no more than this process' part of them, the living ones taken together, and what
-- has been free for p_patience_s whoever's part it is.
create function take_leases(p_owner text, p_ttl_s double precision, p_enterprises text[], p_pbxs text[], p_fair boolean, p_patience_s double precision)
returns table (enterprise_number text, pbx text, epoch bigint) language plpgsql security definer set search_path = public as $$
declare
  part int;
begin
  if p_fair then
    perform pg_advisory_xact_lock(hashtextextended('take_leases', 0));  -- one after the other, or all take the same and most get nothing
    select ceil(cardinality(p_pbxs)::float8 / greatest(1, count(*) filter (where n.owner <> p_owner) + 1))::int into part
      from nodes n where n.expires_at > now();
    part := part - (select count(*)::int from unnest(p_enterprises, p_pbxs) as w (enterprise_number, pbx)
      join leases l on l.enterprise_number = w.enterprise_number and l.pbx = w.pbx where l.owner = p_owner and l.expires_at > now());
  end if;
  return query insert into leases as l (enterprise_number, pbx, owner, epoch, expires_at)
    select f.enterprise_number, f.pbx, p_owner, 1, now() + make_interval(secs => p_ttl_s)
    from (select w.enterprise_number, w.pbx, known.owner, known.expires_at, row_number() over (order by known.expires_at, w.enterprise_number, w.pbx) as place
            from unnest(p_enterprises, p_pbxs) as w (enterprise_number, pbx)
            left join leases known on known.enterprise_number = w.enterprise_number and known.pbx = w.pbx
            where known.owner is null or known.expires_at <= now() or (not p_fair and known.owner = p_owner)) f
    where not p_fair or f.place <= part or f.owner = p_owner or f.expires_at <= now() - make_interval(secs => p_patience_s)
    order by f.enterprise_number, f.pbx
    on conflict on constraint leases_pkey do update
      set owner = excluded.owner, epoch = l.epoch + 1, expires_at = excluded.expires_at
      where l.expires_at <= now() or l.owner = excluded.owner
    returning l.enterprise_number, l.pbx, l.epoch;
end $$;
drop function take_lease(text, text, text, double precision);
drop function renew_leases(text, double precision);

create or replace function drop_lease(p_owner text, p_enterprise text, p_pbx text) returns void
language sql security definer set search_path = public as
  $$ update leases set expires_at = now() where owner = p_owner and enterprise_number = p_enterprise and pbx = p_pbx and expires_at > now() $$;

-- An orderly end: what it read is free, and it is counted no more.
create or replace function drop_leases(p_owner text) returns void language sql security definer set search_path = public as $$
  update leases set expires_at = now() where owner = p_owner and expires_at > now();
  delete from nodes where owner = p_owner;
$$;

-- Nothing of a PBX is written by who does not read it: called in the transaction that writes, with the tenant set. The lock keeps the lease
-- where it is until that transaction is over.
create function hold_lease(p_enterprise text, p_pbx text, p_owner text, p_epoch bigint) returns void language plpgsql as $$
begin
  perform 1 from leases
    where enterprise_number = p_enterprise and pbx = p_pbx and owner = p_owner and epoch = p_epoch and expires_at > clock_timestamp()
    for share;
  if not found then
    raise exception 'lease lost' using errcode = 'VL001';
  end if;
end $$;

-- Nothing of the PBX was missed up to here. Waits for no disk: a minute more or less does not matter.
create function note_seen(p_enterprise text, p_pbx text, p_boot text, p_seen_at timestamptz, p_owner text, p_epoch bigint) returns void
language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  perform hold_lease(p_enterprise, p_pbx, p_owner, p_epoch);
  set local synchronous_commit = off;
  insert into pbx_states as s (enterprise_number, pbx, boot, seen_at) values (p_enterprise, p_pbx, p_boot, p_seen_at)
    on conflict (enterprise_number, pbx) do update set boot = excluded.boot, seen_at = excluded.seen_at;
end $$;

create or replace function record_changes(p_enterprise text, p_pbx text, p_owner text, p_epoch bigint, p_calls jsonb, p_deliveries jsonb)
returns int language plpgsql as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  perform hold_lease(p_enterprise, p_pbx, p_owner, p_epoch);
  return store_changes(p_enterprise, p_pbx, p_calls, p_deliveries);
end $$;

-- Who reads a PBX now; and what everybody else reads.
create function reader_of(p_enterprise text, p_pbx text) returns text language sql stable security definer set search_path = public as
  $$ select l.owner from leases l where l.enterprise_number = p_enterprise and l.pbx = p_pbx and l.expires_at > now() $$;

create function read_by_others(p_owner text) returns table (owner text, enterprise_number text, pbx text)
language sql stable security definer set search_path = public as
  $$ select l.owner, l.enterprise_number, l.pbx from leases l where l.owner <> p_owner and l.expires_at > now() $$;

-- What one process asks another to do, once or not at all: a row that is taken by whoever does it, or taken back by who asked. Its life is a
-- second or two: nobody misses what a crash of the database forgets.
create unlogged table asks (
  id uuid primary key,
  body jsonb not null,
  taken boolean not null default false,
  expires_at timestamptz not null
);
alter table asks enable row level security;  -- no policy: the functions below are the way
create index asks_age on asks (expires_at);

create function put_ask(p_id uuid, p_body jsonb, p_lives_s double precision, p_channel text, p_said text) returns void
language plpgsql security definer set search_path = public as $$
begin
  delete from asks where expires_at < now() - interval '1 minute';
  insert into asks (id, body, expires_at) values (p_id, p_body, clock_timestamp() + make_interval(secs => p_lives_s));
  perform pg_notify(p_channel, p_said);
end $$;

-- To do it. Null: it was taken already, taken back, or it is too late.
create function take_ask(p_id uuid) returns jsonb language sql volatile security definer set search_path = public as
  $$ update asks set taken = true where id = p_id and not taken and expires_at > clock_timestamp() returning body $$;

-- Takes it back. True: nobody does it nor will.
create function take_back_ask(p_id uuid) returns boolean language plpgsql volatile security definer set search_path = public as $$
begin
  update asks set taken = true where id = p_id and not taken;
  return found;
end $$;

-- Which part of a CRM account's shared places a process holds; the parts of one account are never more than the whole.
create unlogged table budget_shares (
  account text not null,
  owner text not null,
  wants double precision not null,
  part double precision not null,
  expires_at timestamptz not null,
  primary key (account, owner)
);
alter table budget_shares enable row level security;  -- no policy: the functions below are the way

-- p_wants: {account: how much of it this process could use, 0 to 1}. Gives the part it holds from now on: at least its even part where it wants
-- that much, and what the others leave; never what another still holds. A part that shrank is free for the others in this very transaction: who
-- gains counts what it gained as just used. Accounts that are not named are given up.
create function share_budgets(p_owner text, p_ttl_s double precision, p_wants jsonb) returns table (account text, part double precision)
language plpgsql security definer set search_path = public as $$
declare
  one record;
  others record;
  held double precision;
begin
  perform pg_advisory_xact_lock(hashtextextended('share_budgets', 0));
  delete from budget_shares b where (b.owner = p_owner and not p_wants ? b.account) or b.expires_at <= now() - interval '1 minute';
  for one in select key, value::text::float8 as wants from jsonb_each(p_wants) loop
    select coalesce(sum(b.part), 0) as parts, count(*) + 1 as users, coalesce(array_agg(b.wants), '{}') as wanted into others
      from budget_shares b where b.account = one.key and b.owner <> p_owner and b.expires_at > clock_timestamp();
    held := greatest(1.0 / others.users, 1 - (select coalesce(sum(least(w, 1.0 / others.users)), 0) from unnest(others.wanted) as w));
    if others.users > 1 then
      held := least(held, one.wants);
    end if;
    held := greatest(0, least(held, 1 - others.parts));
    insert into budget_shares as b (account, owner, wants, part, expires_at)
      values (one.key, p_owner, one.wants, held, clock_timestamp() + make_interval(secs => p_ttl_s))
      on conflict on constraint budget_shares_pkey do update set wants = excluded.wants, part = excluded.part, expires_at = excluded.expires_at;
    account := one.key;
    part := held;
    return next;
  end loop;
end $$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace
      and p.proname in ('living_nodes', 'beat', 'take_leases', 'hold_lease', 'note_seen', 'reader_of', 'read_by_others', 'put_ask', 'take_ask', 'take_back_ask',
        'share_budgets') loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;

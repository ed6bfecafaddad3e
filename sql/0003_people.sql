-- People, how they prove who they are, and what they changed.
-- A super-admin has no tenant and a login is looked up before any tenant is known: all of this is reached by the named functions below only;
-- the application role holds no right on the tables.

create table users (
  id bigint generated always as identity primary key,
  login text not null unique check (login ~ '^[a-z0-9._@+-]{1,100}$'),
  name text not null default '',
  role text not null check (role in ('super-admin', 'admin', 'viewer')),
  enterprise_number text references enterprises (number) on delete cascade,
  password_hash text,                     -- argon2id; null until a set-up link was used
  totp text,                              -- the sealed secret; null: no second factor
  totp_step bigint not null default 0,    -- the last step that was used: a code opens once
  created_at timestamptz not null default now(),
  last_login_at timestamptz,
  disabled_at timestamptz,
  check ((role = 'super-admin') = (enterprise_number is null))
);
create index users_enterprise on users (enterprise_number);

-- One-time links. user_id null: the very first person, who chooses a login; worth nothing once anybody exists.
create table setup_links (
  token_hash bytea primary key,
  user_id bigint references users (id) on delete cascade,
  expires_at timestamptz not null
);

create table sessions (
  id bigint generated always as identity primary key,
  token_hash bytea not null unique,
  user_id bigint references users (id) on delete cascade,                                  -- a person's
  enterprise_number text references enterprises (number) on delete cascade,                -- a cabinet's
  created_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  proved_at timestamptz not null default now(),  -- when the password was last given
  expires_at timestamptz not null,
  address text not null,
  agent text not null,
  check ((user_id is null) <> (enterprise_number is null))
);
create index sessions_user on sessions (user_id);
create index sessions_cabinet on sessions (enterprise_number);

-- Nobody changes or deletes a row of this.
create table audit (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  enterprise_number text,
  who text not null,
  role text not null,
  address text not null,
  action text not null,
  subject text not null,
  details jsonb not null
);
create index audit_newest on audit (enterprise_number, id desc);

alter table users enable row level security;
alter table setup_links enable row level security;
alter table sessions enable row level security;
alter table audit enable row level security;

-- People --------------------------------------------------------------------------------------------------------------

create function find_user(p_login text) returns setof users language sql stable security definer set search_path = public as
  $$ select * from users where login = p_login $$;

create function get_user(p_id bigint) returns setof users language sql stable security definer set search_path = public as
  $$ select * from users where id = p_id $$;

create function list_users(p_enterprise text) returns setof users language sql stable security definer set search_path = public as
  $$ select * from users where p_enterprise is null or enterprise_number = p_enterprise order by enterprise_number nulls first, login $$;

create function has_users() returns boolean language sql stable security definer set search_path = public as
  $$ select exists (select from users) $$;

create function add_user(p_login text, p_name text, p_role text, p_enterprise text) returns bigint
language sql security definer set search_path = public as
  $$ insert into users (login, name, role, enterprise_number) values (p_login, p_name, p_role, p_enterprise) returning id $$;

create function set_user_disabled(p_id bigint, p_disabled boolean) returns void
language sql security definer set search_path = public as $$
  update users set disabled_at = case when p_disabled then coalesce(disabled_at, now()) end where id = p_id;
  delete from sessions where user_id = p_id and p_disabled;
  delete from setup_links where user_id = p_id and p_disabled;
$$;

create function set_user_role(p_id bigint, p_role text) returns void language sql security definer set search_path = public as
  $$ update users set role = p_role where id = p_id $$;

create function set_password(p_id bigint, p_hash text) returns void language sql security definer set search_path = public as
  $$ update users set password_hash = p_hash where id = p_id $$;

create function set_totp(p_id bigint, p_sealed text, p_step bigint) returns void language sql security definer set search_path = public as
  $$ update users set totp = p_sealed, totp_step = p_step where id = p_id $$;

-- True once per step, whoever asks at the same time.
create function use_totp_step(p_id bigint, p_step bigint) returns boolean language sql security definer set search_path = public as $$
  with used as (update users set totp_step = p_step where id = p_id and totp_step < p_step returning 1) select exists (select from used)
$$;

-- Set-up links --------------------------------------------------------------------------------------------------------

create function add_setup_link(p_hash bytea, p_user bigint, p_ttl_s double precision) returns void
language sql security definer set search_path = public as $$
  delete from setup_links where user_id = p_user;
  insert into setup_links (token_hash, user_id, expires_at) values (p_hash, p_user, now() + make_interval(secs => p_ttl_s));
$$;

create function find_setup_link(p_hash bytea) returns table (user_id bigint, login text)
language sql stable security definer set search_path = public as $$
  select l.user_id, u.login from setup_links l left join users u on u.id = l.user_id
    where l.token_hash = p_hash and l.expires_at > now() and u.disabled_at is null
      and (l.user_id is not null or not exists (select from users))
$$;

-- Uses a link up: the password is set, every session of the person ends, the second factor is off (a lost one is replaced this way).
create function use_setup_link(p_hash bytea, p_login text, p_password_hash text) returns bigint
language plpgsql security definer set search_path = public as $$
declare
  person bigint;
begin
  lock table users in share row exclusive mode;  -- of two first persons one comes second
  perform from find_setup_link(p_hash);
  if not found then
    return null;
  end if;
  delete from setup_links where token_hash = p_hash returning user_id into person;
  if person is null then
    insert into users (login, role) values (p_login, 'super-admin') returning id into person;
    delete from setup_links where user_id is null;
  end if;
  update users set password_hash = p_password_hash, totp = null where id = person;
  delete from sessions where user_id = person;
  return person;
end $$;

-- Sessions ------------------------------------------------------------------------------------------------------------

create function start_session(p_hash bytea, p_user bigint, p_enterprise text, p_lives_s double precision, p_address text, p_agent text) returns void
language sql security definer set search_path = public as $$
  insert into sessions (token_hash, user_id, enterprise_number, expires_at, address, agent)
    values (p_hash, p_user, p_enterprise, now() + make_interval(secs => p_lives_s), p_address, p_agent);
  update users set last_login_at = now() where id = p_user;
$$;

-- A live session and whose it is. `seen_at` is written once a minute at most.
create function find_session(p_hash bytea, p_idle_s double precision)
returns table (id bigint, user_id bigint, enterprise_number text, role text, login text, name text, proved_s double precision, second_factor boolean)
language plpgsql security definer set search_path = public as $$
begin
  update sessions s set seen_at = now()
    where s.token_hash = p_hash and s.seen_at between now() - make_interval(secs => p_idle_s) and now() - interval '1 minute' and s.expires_at > now();
  return query
    select s.id, s.user_id, coalesce(u.enterprise_number, s.enterprise_number), coalesce(u.role, 'cabinet'), coalesce(u.login, ''), coalesce(u.name, ''),
      extract(epoch from now() - s.proved_at)::double precision, u.totp is not null
    from sessions s left join users u on u.id = s.user_id
    where s.token_hash = p_hash and s.expires_at > now() and s.seen_at > now() - make_interval(secs => p_idle_s) and u.disabled_at is null;
end $$;

create function prove_session(p_id bigint) returns void language sql security definer set search_path = public as
  $$ update sessions set proved_at = now() where id = p_id $$;

create function end_session(p_hash bytea) returns void language sql security definer set search_path = public as
  $$ delete from sessions where token_hash = p_hash $$;

create function list_sessions(p_user bigint, p_idle_s double precision)
returns table (id bigint, created_at timestamptz, seen_at timestamptz, address text, agent text)
language sql stable security definer set search_path = public as $$
  select s.id, s.created_at, s.seen_at, s.address, s.agent from sessions s
    where s.user_id = p_user and s.expires_at > now() and s.seen_at > now() - make_interval(secs => p_idle_s) order by s.seen_at desc
$$;

-- One session of a person, or all but `p_keep`.
create function revoke_session(p_user bigint, p_id bigint) returns boolean language sql security definer set search_path = public as $$
  with gone as (delete from sessions where user_id = p_user and id = p_id returning 1) select exists (select from gone)
$$;
create function revoke_other_sessions(p_user bigint, p_keep bigint) returns void language sql security definer set search_path = public as
  $$ delete from sessions where user_id = p_user and id <> p_keep $$;

create function end_cabinet_sessions(p_enterprise text) returns void language sql security definer set search_path = public as
  $$ delete from sessions where user_id is null and enterprise_number = p_enterprise $$;

create function forget_expired_sessions() returns void language sql security definer set search_path = public as $$
  delete from sessions where expires_at < now();
  delete from setup_links where expires_at < now();
$$;

-- The audit -----------------------------------------------------------------------------------------------------------

create function note_audit(p_enterprise text, p_who text, p_role text, p_address text, p_action text, p_subject text, p_details jsonb) returns void
language sql security definer set search_path = public as $$
  insert into audit (enterprise_number, who, role, address, action, subject, details)
    values (p_enterprise, p_who, p_role, p_address, p_action, p_subject, p_details)
$$;

create function read_audit(p_enterprise text, p_before bigint, p_limit int) returns setof audit
language sql stable security definer set search_path = public as $$
  select * from audit where (p_enterprise is null or enterprise_number = p_enterprise) and (p_before is null or id < p_before)
    order by id desc limit p_limit
$$;

-- Enterprises at a glance ---------------------------------------------------------------------------------------------

create index deliveries_dead on deliveries (enterprise_number) where state = 'dead';

-- The last 24 hours of one enterprise, or of all: a few index probes each, however many calls there are.
create function glance(p_enterprise text)
returns table (enterprise_number text, calls bigint, missed bigint, dead bigint, connections jsonb)
language sql stable security definer set search_path = public as $$
  select e.number, c.calls, c.missed, d.dead, s.connections
  from enterprises e,
    lateral (select count(*) as calls, count(*) filter (where k.missed) as missed from calls k
      where k.enterprise_number = e.number and k.started_at > now() - interval '1 day' and k.direction <> 'internal') c,
    lateral (select count(*) as dead from deliveries k where k.enterprise_number = e.number and k.state = 'dead') d,
    lateral (select coalesce(jsonb_object_agg(k.integration, jsonb_build_object('state', k.state, 'reason', k.reason)), '{}') as connections
      from connections k where k.enterprise_number = e.number) s
  where p_enterprise is null or e.number = p_enterprise
$$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;

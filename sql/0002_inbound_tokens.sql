-- What CRMs, PBXs and cabinet links prove themselves with: found by a keyed hash, unique over all tenants and purposes.
create table inbound_tokens (
  token_hash bytea primary key,
  enterprise_number text not null references enterprises (number) on delete cascade,
  integration text not null default '',
  purpose text not null,                 -- client_id, secret, cabinet, deploy_token, application_token
  created_at timestamptz not null default now(),
  expires_at timestamptz                 -- null: until it is revoked
);
create index inbound_tokens_owner on inbound_tokens (enterprise_number, integration, purpose);

alter table inbound_tokens enable row level security;
create policy tenant on inbound_tokens using (enterprise_number = tenant()) with check (enterprise_number = tenant());
grant select, insert, update, delete on inbound_tokens to vochid_app;

create function find_inbound_token(p_hashes bytea[], p_purposes text[])
returns table (enterprise_number text, integration text, purpose text)
language sql stable security definer set search_path = public as $$
  select t.enterprise_number, t.integration, t.purpose from inbound_tokens t
    where t.token_hash = any (p_hashes) and t.purpose = any (p_purposes) and (t.expires_at is null or t.expires_at > now())
    limit 1
$$;

-- amoCRM's credentials, sealed: an access token of a day, a refresh token that works once.
create table amocrm_tokens (
  enterprise_number text primary key references enterprises (number) on delete cascade,
  domain text not null,                  -- the account's host
  access_token text not null,            -- sealed
  refresh_token text not null,           -- sealed
  expires_at timestamptz,                -- of the access token
  raw text not null,                     -- sealed: the rest of the CRM's answer
  redirect_uri text not null default '',
  exchanging boolean not null default false,  -- an exchange had begun, and its answer was not stored yet
  refused text,                          -- why a person must connect again
  updated_at timestamptz not null default now()
);

alter table amocrm_tokens enable row level security;
create policy tenant on amocrm_tokens using (enterprise_number = tenant()) with check (enterprise_number = tenant());
grant select, insert, update, delete on amocrm_tokens to vochid_app;

-- Credentials go with the integration.
create function forget_amocrm_tokens() returns trigger language plpgsql as $$
begin
  delete from amocrm_tokens where enterprise_number = new.number;
  return null;
end $$;
create trigger enterprises_forget_amocrm after update on enterprises
  for each row when (old.integrations_config ? 'amocrm' and not new.integrations_config ? 'amocrm') execute function forget_amocrm_tokens();

-- Orders that other programs sent: an order's number is taken for good, whatever becomes of what was told.
create table amocrm_orders (
  enterprise_number text not null references enterprises (number) on delete cascade,
  number text not null,
  sent jsonb not null,
  created_at timestamptz not null default now(),
  primary key (enterprise_number, number)
);
alter table amocrm_orders enable row level security;
create policy tenant on amocrm_orders using (enterprise_number = tenant()) with check (enterprise_number = tenant());
grant select, insert, update, delete on amocrm_orders to vochid_app;

-- `vochid keys rotate` finds these too: they are the tokens of this connection.
create or replace function sealed_texts() returns table (place text, owner text, key text, sealed text)
language sql stable security definer set search_path = public as $$
  select 'settings', e.number, '', found[1]
    from enterprises e, regexp_matches(e.settings::text || e.integrations_config::text, '"sealed": "(v[0-9]+:[^"]+)"', 'g') as found
  union all
  select 'tokens', c.enterprise_number, c.integration, c.tokens from connections c where c.tokens is not null
  union all
  select 'tokens', a.enterprise_number, 'amocrm', sealed
    from amocrm_tokens a, lateral (values (a.access_token), (a.refresh_token), (a.raw)) as kept (sealed)
  union all
  select 'registration', s.enterprise_number, s.integration, s.registered_as from integration_state s where s.registered_as is not null
  union all
  select 'second factor', u.login, u.id::text, u.totp from users u where u.totp is not null
$$;

-- Puts the new text where the old one still is; false when it was changed meanwhile. Sealed texts are unlike anything else in a document.
create or replace function reseal(p_place text, p_owner text, p_key text, p_old text, p_new text) returns boolean
language plpgsql volatile security definer set search_path = public as $$
begin
  case p_place
    when 'settings' then
      update enterprises set settings = replace(settings::text, p_old, p_new)::jsonb,
                             integrations_config = replace(integrations_config::text, p_old, p_new)::jsonb
        where number = p_owner and (strpos(settings::text, p_old) > 0 or strpos(integrations_config::text, p_old) > 0);
    when 'tokens' then
      update connections set tokens = p_new where enterprise_number = p_owner and integration = p_key and tokens = p_old;
      if not found and p_key = 'amocrm' then
        update amocrm_tokens set access_token = case access_token when p_old then p_new else access_token end,
                                 refresh_token = case refresh_token when p_old then p_new else refresh_token end,
                                 raw = case raw when p_old then p_new else raw end
          where enterprise_number = p_owner and p_old in (access_token, refresh_token, raw);
      end if;
    when 'registration' then
      update integration_state set registered_as = p_new where enterprise_number = p_owner and integration = p_key and registered_as = p_old;
    when 'second factor' then
      update users set totp = p_new where id = p_key::bigint and totp = p_old;
  end case;
  return found;
end $$;

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

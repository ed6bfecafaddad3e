-- What the pages ask: search in the history of calls, one call's deliveries, dead letters, who reads which PBX.

-- The customer's number backwards: its end is a prefix, so that "the last digits" is a range of an index. A column and not an
-- expression: under row-level security only comparisons of plain columns may reach an index.
alter table calls add column customer_reversed text collate "C" generated always as (reverse(customer_number)) stored;
create index calls_number on calls (enterprise_number, customer_reversed, started_at desc, id desc) where customer_number is not null;
create index calls_missed on calls (enterprise_number, started_at desc, id desc) where missed;

-- Bodies bound when they are made, not looked up when they run: an index is built with an empty search_path.
-- Small letters whatever the database's locale is; ё counts as е.
create function folded(p_text text) returns text language sql immutable parallel safe
  return lower(translate(p_text, 'АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯЎІЇЄҐё', 'абвгдеежзийклмнопрстуфхцчшщъыьэюяўіїєґе'));

create function words_of(p_text text) returns setof text language sql immutable parallel safe begin atomic
  select distinct left(word, 40) from regexp_split_to_table(folded(p_text), '[\s"''`«»„“”‘’.,;:()\[\]{}<>/\\|&+*!?=#@№—–-]+') as word where word <> '';
end;

-- What a call is found by, with its place in time: the words of the customer's name, and #150 for every extension of ours that took part.
-- A search reads one stretch of one index and no call: a text index would find the calls as well, but must fetch each to tell its tenant and
-- its time, and an extension that seldom took part would be looked for in every call there is.
create table call_words (
  enterprise_number text not null,
  word text collate "C" not null,
  started_at timestamptz not null,
  call_id uuid not null,
  primary key (enterprise_number, word, started_at, call_id)
);
alter table call_words enable row level security;
create policy tenant on call_words using (enterprise_number = tenant()) with check (enterprise_number = tenant());
grant select, insert, update, delete on call_words to vochid_app;

create function terms_of(p_call calls) returns setof text language sql stable begin atomic
  select word from words_of(p_call.customer_name) as word
  union
  select '#' || number from unnest(p_call.rang || array[p_call.answered_by, p_call.last_talked, p_call.initiator]) as number where number is not null;
end;
insert into call_words select c.enterprise_number, term, c.started_at, c.id from calls c, terms_of(c) as term;

create function keep_words() returns trigger language plpgsql as $$
begin
  if tg_op <> 'INSERT' then
    delete from call_words where enterprise_number = old.enterprise_number and started_at = old.started_at and call_id = old.id
      and word in (select terms_of(old)) and (tg_op = 'DELETE' or word not in (select terms_of(new)));
  end if;
  if tg_op <> 'DELETE' then
    insert into call_words select new.enterprise_number, term, new.started_at, new.id from terms_of(new) as term on conflict do nothing;
  end if;
  return null;
end $$;
create trigger calls_words_new after insert on calls for each row execute function keep_words();
create trigger calls_words_changed after update of customer_name, rang, answered_by, last_talked, initiator on calls for each row
  when ((old.customer_name, old.rang, old.answered_by, old.last_talked, old.initiator)
    is distinct from (new.customer_name, new.rang, new.answered_by, new.last_talked, new.initiator)) execute function keep_words();
create trigger calls_words_gone after delete on calls for each row execute function keep_words();

create index deliveries_when on deliveries (enterprise_number, created_at);
create index deliveries_given_up on deliveries (enterprise_number, state, id desc) where state in ('dead', 'discarded', 'dropped');
create index integration_logs_delivery on integration_logs (enterprise_number, delivery_id) where delivery_id is not null;

-- Nodes and what they read, for the operator; secrets are not in it.
create function all_leases() returns setof leases language sql stable security definer set search_path = public as
  $$ select * from leases order by enterprise_number, pbx $$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace
      and p.proname in ('folded', 'words_of', 'terms_of', 'keep_words', 'all_leases') loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;

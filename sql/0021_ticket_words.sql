-- What a ticket is found by: words of its subject; # and the customer's number backwards, so that its end is a prefix; @ and the other side's name for it
-- (no word has either sign in it). In a table of their own and not a text index: under row-level security only comparisons of plain columns may reach an index.
create table ticket_words (
  enterprise_number text not null,
  word text collate "C" not null,
  ticket_id bigint not null,
  primary key (enterprise_number, word, ticket_id),
  foreign key (enterprise_number, ticket_id) references support_tickets (enterprise_number, id) on delete cascade
);
create index ticket_words_ticket on ticket_words (enterprise_number, ticket_id);
alter table ticket_words enable row level security;
create policy tenant on ticket_words using (enterprise_number = tenant()) with check (enterprise_number = tenant());
grant select, insert, update, delete on ticket_words to vochid_app;

create function ticket_terms(p_ticket support_tickets) returns setof text language sql stable begin atomic
  select word from words_of(p_ticket.subject) as word
  union select '#' || left(reverse(regexp_replace(p_ticket.customer_phone, '\D', '', 'g')), 40) where p_ticket.customer_phone is not null
  union select '@' || left(folded(p_ticket.remote_id), 200) where p_ticket.remote_id is not null;
end;
insert into ticket_words select t.enterprise_number, term, t.id from support_tickets t, ticket_terms(t) as term;

create function keep_ticket_words() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' then
    delete from ticket_words where enterprise_number = old.enterprise_number and ticket_id = old.id;
  end if;
  insert into ticket_words select new.enterprise_number, term, new.id from ticket_terms(new) as term;
  return null;
end $$;
create trigger tickets_words_new after insert on support_tickets for each row execute function keep_ticket_words();
create trigger tickets_words_changed after update of subject, customer_phone, remote_id on support_tickets for each row
  when ((old.subject, old.customer_phone, old.remote_id) is distinct from (new.subject, new.customer_phone, new.remote_id))
  execute function keep_ticket_words();

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname in ('ticket_terms', 'keep_ticket_words')
  loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;

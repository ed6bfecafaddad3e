-- Who talked with this customer last: asked while the customer waits.
create index calls_of_customer on calls (enterprise_number, customer_number, started_at desc) where customer_number is not null;

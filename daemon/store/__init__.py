"""PostgreSQL: the one store. Pools, migrations, the embedded server, one repository per noun."""

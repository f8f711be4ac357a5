"""PostgreSQL: accounts, messages, the outbox, the schema. The only room that speaks SQL."""

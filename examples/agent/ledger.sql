-- What the models have cost: a row for each turn that was taken, those that were taken back included.
create table if not exists ledger (
    run_id uuid not null,
    turn integer not null,
    cost_usd numeric not null,
    at timestamptz not null default clock_timestamp()
);

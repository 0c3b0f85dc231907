-- The travel agency's own table. A booking that was given back keeps its row.
create table if not exists booking (
    booking_id bigint generated always as identity primary key,
    run_id uuid not null,
    kind text not null,
    traveller text not null,
    city text not null,
    booked_at timestamptz not null default clock_timestamp(),
    given_back_at timestamptz
);

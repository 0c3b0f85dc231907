create or replace function pgflow._test_now()
returns timestamptz
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    if (select i.test_clock from pgflow.installation i) then
        return current_setting('pgflow.test_now')::timestamptz;
    end if;
    return clock_timestamp();
end
$$;
comment on function pgflow._test_now is 'The session''s test time, if the installation allows one.';

-- An expression of one line, so that the planner inlines it: 0.1 µs a call.
create or replace function pgflow.now()
returns timestamptz
language sql
volatile
as $$
    select case when coalesce(current_setting('pgflow.test_now', true), '') = ''
                then clock_timestamp() else pgflow._test_now() end
$$;
comment on function pgflow.now is
    'The engine''s clock: the database''s time, or pgflow.test_now where table installation '
    'allows it.';

-- Not uuidv7(): it exists from PostgreSQL 18 on. The first 48 bits are milliseconds since 1970. The
-- others are of random(), which each session seeds by itself: an id is no secret, and those of
-- gen_random_uuid() may each cost 6 µs of system calls.
create or replace function pgflow._new_id()
returns uuid
language sql
volatile
as $$
    select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
        || to_hex(x'7000'::integer + trunc(random() * 4096)::integer)
        || to_hex(x'8000000000000000'::bigint + trunc(random() * 2147483648)::bigint * 2147483648
            + trunc(random() * 2147483648)::bigint))::uuid
$$;
comment on function pgflow._new_id is 'A UUID of version 7.';

create or replace function pgflow._id_time(p_id uuid)
returns timestamptz
language sql
immutable
as $$
    select to_timestamp(('x' || left(replace(p_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
$$;
comment on function pgflow._id_time is 'When a UUID of version 7 was made.';

create or replace function pgflow._id_after(p_id uuid)
returns uuid
language sql
volatile
as $$
    select encode(
        overlay(uuid_send(pgflow._new_id())
            placing substring(
                int8send((extract(epoch from pgflow._id_time(p_id)) * 1000)::bigint + 1) from 3)
            from 1 for 6),
        'hex')::uuid
$$;
comment on function pgflow._id_after is 'A UUID of version 7, a millisecond later than another.';

create or replace function pgflow._sha256(p_value jsonb)
returns bytea
language sql
immutable
as $$
    select sha256(convert_to(p_value::text, 'UTF8'))
$$;
comment on function pgflow._sha256 is
    'SHA-256 over the database''s text of a jsonb, which is canonical.';

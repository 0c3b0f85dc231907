-- Ann claims what a conference cost, and the others decide. Run it beside a worker:
-- psql "$PGFLOW_DSN" -f examples/expense/desk.sql
\set ON_ERROR_STOP on
\set QUIET on
\set SHOW_CONTEXT never
set client_min_messages = warning;

-- The people are database roles; ann is a manager too.
select format('create role %I', role)
from unnest('{managers,directors,ann,bea,carl,dora}'::text[]) as role
where not exists (select from pg_roles r where r.rolname = role) \gexec
grant managers to ann, bea, carl;
grant directors to dora;
grant pgflow_approver to ann, bea, carl, dora;
grant pgflow_client to ann;

-- The task under a key, once the worker has come so far.
create function pg_temp.task(wanted text, run_id uuid) returns uuid language plpgsql as $$
declare
    v_task_id uuid;
begin
    for attempt in 1 .. 300 loop
        select i.task_id into v_task_id from pgflow.inbox i
        where i.step = wanted and i.run_id = task.run_id;
        exit when found;
        perform pg_sleep(0.1);
    end loop;
    return v_task_id;
end
$$;

create function pg_temp.outcome(run_id uuid) returns jsonb language plpgsql as $$
declare
    v_output jsonb;
begin
    for attempt in 1 .. 300 loop
        select r.output into v_output from pgflow.runs r
        where r.run_id = outcome.run_id and r.finished_at is not null;
        exit when found;
        perform pg_sleep(0.1);
    end loop;
    return v_output;
end
$$;

\echo Ann claims a conference.
set role ann;
select pgflow.enqueue('expense', '{"name": "ann"}', queue => 'expenses') as run \gset
reset role;
select pg_temp.task('claim', :'run') as task \gset

\echo At first she mistypes the category, and the database refuses:
set role ann;
\set ON_ERROR_STOP off
select pgflow.answer(:'task', '{"purpose": "a conference", "category": "fun", "amount": 1250}');
\set ON_ERROR_STOP on
select (pgflow.answer(:'task', '{"purpose": "a conference", "category": "travel", "amount": 1250}')).action;

reset role;
select pg_temp.task('approve', :'run') as task \gset
select title, assignee_role, quorum, quorum_of from pgflow.inbox where task_id = :'task';

\echo She is a manager, but may not approve what she claims herself:
set role ann;
\set ON_ERROR_STOP off
select pgflow.approve(:'task');
\set ON_ERROR_STOP on

\echo Bea and Carl approve; two of three are needed.
set role bea;
select (pgflow.approve(:'task', 'well deserved')).action;
set role carl;
select (pgflow.approve(:'task', 'fine')).action;
reset role;

\echo The bank says that it has paid, before the run or after it has begun to wait for that.
select pgflow.signal(:'run', 'payment', '{"reference": "B-1027"}') as event;
select jsonb_pretty(pg_temp.outcome(:'run')) as outcome;

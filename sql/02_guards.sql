-- The state machine refuses illegal moves to everybody, the tables' owner with a bare statement
-- included. What happens to many runs at once, a new run and a lease, is let through by the WHEN
-- conditions; the function, at 2 to 3 µs a row, sees the other moves. The conditions are short,
-- because each statement parses them anew: all moves in them cost 40 µs. A statement that doesn't
-- name the state makes no move, and parses none. A test compares the guards with table move. Only
-- a flow has no lease number: so no worker's write can be meant for it.

create or replace function pgflow._check_move()
returns trigger
language plpgsql
as $$
declare
    v_from text;
    v_legal boolean;
begin
    if tg_op = 'INSERT' then
        v_legal := case new.kind
            when 'handler' then new.state in ('scheduled', 'pending') and new.lease_no is not null
            when 'flow' then new.state = 'running' and new.lease_no is null
                and new.flow_version is not null
            when 'step_wait' then new.state in ('waiting_approval', 'waiting_event')
                and new.lease_no is null
            else false end;
    else
        v_from := old.state;
        v_legal := new.kind = old.kind and case
            when new.kind = 'flow' then new.state in ('running', 'paused', 'waiting_tool',
                'waiting_approval', 'waiting_event')
            when new.kind = 'step_wait' then new.state = 'paused'
                or v_from = 'paused' and new.state in ('waiting_approval', 'waiting_event')
            when new.state in ('pending', 'paused') then true
            when new.state = 'running' then v_from = 'pending'
            else v_from in ('running', 'paused')
                and new.state in ('waiting_tool', 'waiting_approval', 'waiting_event', 'scheduled')
            end;
    end if;
    if not v_legal then
        perform pgflow._refuse('PF201',
            format('run %s cannot go from %s to %s', new.run_id, coalesce(v_from, 'nothing'),
                new.state),
            json_build_object('run_id', new.run_id, 'from_state', v_from, 'to_state',
                new.state)::text,
            'Table pgflow.move has the legal moves; use the functions, which only make those.',
            'state');
    end if;
    return new;
end
$$;
comment on function pgflow._check_move is
    'Trigger function: raises PF201 for a move that is not in table move.';

create or replace trigger run_begins_in_a_first_state
before insert on pgflow.run
for each row
when (not (new.kind = 'handler' and new.state in ('scheduled', 'pending')
    and new.lease_no is not null))
execute function pgflow._check_move();

create or replace trigger run_moves_are_legal
before update of state on pgflow.run
for each row
when (old.state <> new.state and not (old.state = 'pending' and new.state = 'running'
    and new.kind = old.kind))
execute function pgflow._check_move();

create or replace function pgflow._refuse_change()
returns trigger
language plpgsql
as $$
begin
    perform pgflow._refuse('PF203',
        format('finished run %s cannot be %s', old.run_id,
            case tg_op when 'DELETE' then 'deleted' else 'changed' end),
        format('%s on %s is refused to everybody', lower(tg_op), tg_table_name),
        case tg_op when 'DELETE' then 'Retention takes it away: pgflow.set_retention().'
            else 'Use pgflow.retry(run_id) to do its work again.' end);
    return null;
end
$$;
comment on function pgflow._refuse_change is
    'Trigger function: raises PF203 for the change or delete of a finished run.';

create or replace function pgflow._refuse_delete()
returns trigger
language plpgsql
as $$
begin
    perform pgflow._refuse('PF203', 'live runs cannot be deleted',
        format('delete on %s is refused to everybody', tg_table_name),
        'A live run leaves its table by ending: pgflow.cancel(run_id).');
    return null;
end
$$;
comment on function pgflow._refuse_delete is
    'Trigger function: raises PF203 for the delete of live runs.';

create or replace function pgflow._refuse_truncate()
returns trigger
language plpgsql
as $$
begin
    perform pgflow._refuse('PF203', format('table %s cannot be truncated', tg_table_name),
        'its runs would be lost without an end', 'Cancel live runs; history goes by retention.');
    return null;
end
$$;
comment on function pgflow._refuse_truncate is 'Trigger function: raises PF203 for a truncate.';

-- pgflow.ending is set by _end() alone, for its one statement. A trigger for each row would lock
-- each once more.
create or replace trigger run_leaves_only_by_ending
before delete on pgflow.run
for each statement
when (coalesce(current_setting('pgflow.ending', true), '') <> 'on')
execute function pgflow._refuse_delete();

create or replace trigger run_finished_never_changes
before update on pgflow.run_finished
for each row
execute function pgflow._refuse_change();

-- pgflow.pruning is set by _delete_runs() alone, for its one statement.
create or replace trigger run_finished_goes_only_by_retention
before delete on pgflow.run_finished
for each row
when (coalesce(current_setting('pgflow.pruning', true), '') <> 'on')
execute function pgflow._refuse_change();

create or replace trigger run_is_never_truncated
before truncate on pgflow.run
for each statement
execute function pgflow._refuse_truncate();

create or replace trigger run_finished_is_never_truncated
before truncate on pgflow.run_finished
for each statement
execute function pgflow._refuse_truncate();

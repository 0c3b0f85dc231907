-- State values. A step's writes are stored as it completes, under its lease, and reduced when its
-- flow takes note of its end: all that ended together, in the order of the definition. That is a
-- checkpoint. The values of any moment are those of the last snapshot before it, with what the
-- checkpoints since have changed: at most 50 lines, however many steps the flow has.
--
-- Only flows that have channels have checkpoints; what there is to tell of others, flow_step has.

create or replace function pgflow._values(
    p_project text, p_run_id uuid, p_flow text, p_version integer, p_number integer
)
returns jsonb
language plpgsql
stable
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_from integer;
    v_snapshot jsonb;
begin
    select c.number, c.snapshot into v_from, v_snapshot from pgflow.checkpoint c
    where c.project_id = p_project and c.run_id = p_run_id and c.number <= p_number
      and c.snapshot is not null
    order by c.number desc
    limit 1;
    return (
        with changed as materialized (
            select c.number, c.changed from pgflow.checkpoint c
            where c.project_id = p_project and c.run_id = p_run_id
              and c.number > coalesce(v_from, 0) and c.number <= p_number
        )
        select jsonb_object_agg(d.channel, pgflow._reduced_onto(d.channel,
            -- Of a registered reducer the changes are values.
            case when d.reducer = any (pgflow._builtin_reducers()) then d.reducer else 'last' end,
            case when v_snapshot ? d.channel then v_snapshot -> d.channel
                 else d.default_value end,
            array(select c.changed -> d.channel from changed c where c.changed ? d.channel
                  order by c.number)))
        from pgflow.channel_definition d
        where d.project_id = p_project and d.flow = p_flow and d.version = p_version);
end
$$;
comment on function pgflow._values is
    'The values of all channels of a flow''s run at a checkpoint, of which 0 is its beginning; '
    'null if it has no channels.';

create or replace function pgflow._values_now(p_flow pgflow.run)
returns jsonb
language plpgsql
stable
as $$
begin
    if p_flow.checkpoint_no is null then
        return null;
    end if;
    return pgflow._values(p_flow.project_id, p_flow.run_id, p_flow.handler, p_flow.flow_version,
        p_flow.checkpoint_no);
end
$$;
comment on function pgflow._values_now is
    'The values of a flow''s channels; null if it has none.';

-- ---- what steps write

create or replace function pgflow._fitting(
    p_channel text, p_reducer text, p_old jsonb, p_value jsonb
)
returns jsonb
language plpgsql
as $$
declare
    v_fault text := pgflow._write_fault(p_reducer, p_value);
begin
    if p_reducer is null then
        perform pgflow._refuse_write(coalesce(p_channel, '?'), 'the flow has no such channel');
    elsif v_fault is not null then
        perform pgflow._refuse_write(p_channel, format('reducer %s takes %s (given: %s)', p_reducer,
            v_fault, pgflow._given(p_value)));
    elsif p_reducer <> all (pgflow._builtin_reducers()) then
        perform pgflow._called_reducer(p_channel, p_reducer, p_old, p_value);
    end if;
    return p_value;
end
$$;
comment on function pgflow._fitting is
    'What is to be written to a channel. Raises 22PF1 if it doesn''t fit.';

-- Before the runs end, and with them or not at all. What is under a lost lease is left out: the run
-- doesn't end either.
create or replace function pgflow._store_writes(
    p_project text, p_run_ids uuid[], p_lease_nos integer[], p_writes text[]
)
returns void
language plpgsql
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
begin
    insert into pgflow.channel_write (project_id, run_id, step, element, version, nth, channel,
        value)
    select p_project, coalesce(f.run_id, c.run_id), coalesce(c.step, '?'), coalesce(s.element, 0),
        coalesce(s.version, 0), w.nth, coalesce(w.write ->> 'channel', '?'),
        pgflow._fitting(w.write ->> 'channel', d.reducer,
            case when d.reducer <> all (pgflow._builtin_reducers())
                 then pgflow._values_now(f) -> d.channel end,
            coalesce(w.write -> 'value', 'null'))
    from unnest(p_run_ids, p_lease_nos, p_writes) as g (run_id, lease_no, writes)
    cross join lateral (
        select r.* from pgflow.run r
        where r.project_id = p_project and r.run_id = g.run_id and r.state = 'running'
          and r.lease_no = g.lease_no
        limit 1
    ) c
    cross join lateral jsonb_array_elements(g.writes::jsonb) with ordinality as w (write, nth)
    left join lateral (
        select r.* from pgflow.run r
        where r.project_id = p_project and r.run_id = c.parent_run_id and r.kind = 'flow'
        limit 1
    ) f on true
    left join lateral (
        select s.element, s.version from pgflow.flow_step s
        where s.project_id = p_project and s.run_id = f.run_id and s.step = c.step
          and s.voided_at is null and s.child_run_id = c.run_id
        limit 1
    ) s on true
    left join lateral (
        select d.channel, d.reducer from pgflow.channel_definition d
        where d.project_id = p_project and d.flow = f.handler and d.version = f.flow_version
          and d.channel = w.write ->> 'channel'
        limit 1
    ) d on true
    where g.writes is not null;
end
$$;
comment on function pgflow._store_writes is
    'Stores what steps write to channels, json texts of [{"channel": name, "value": any}], for '
    'runs that are held under these leases. Raises 22PF1.';

-- ---- checkpoints

create or replace function pgflow._add_checkpoint(
    p_flow pgflow.run, p_label text, p_changed jsonb, p_snapshot jsonb default null,
    p_payload jsonb default null
)
returns void
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_snapshot jsonb;
begin
    insert into pgflow.checkpoint (project_id, run_id, number, super_step, event_no, label, at,
        changed, snapshot, payload)
    values (p_flow.project_id, p_flow.run_id, p_flow.checkpoint_no, p_flow.super_step,
        case when p_label <> 'update' then p_flow.last_event_no end, p_label, v_now, p_changed,
        p_snapshot, p_payload);
    if p_label <> 'update' and pgflow._is_followed(p_flow.project_id) then
        perform pgflow._publish(p_flow.project_id, array[p_flow.run_id],
            array[p_flow.last_event_no]);
    end if;
    if p_flow.watched then
        perform pgflow._hint_watchers(p_flow.project_id, array[p_flow.run_id]);
    end if;
    if p_snapshot is null and p_flow.checkpoint_no % 50 = 0 then
        v_snapshot := pgflow._values_now(p_flow);
        update pgflow.checkpoint c set snapshot = v_snapshot
        where c.project_id = p_flow.project_id and c.run_id = p_flow.run_id
          and c.number = p_flow.checkpoint_no;
    end if;
end
$$;
comment on function pgflow._add_checkpoint is
    'Writes the checkpoint that a flow, and its events, have been counted up for; an update has '
    'an event that says who did it. The caller holds it.';

create or replace function pgflow._save_moment(
    p_project text, p_run_id uuid, p_label text, p_snapshot jsonb default null,
    p_payload jsonb default null
)
returns void
language plpgsql
as $$
declare
    v_flow pgflow.run;
begin
    update pgflow.run r
    set checkpoint_no = r.checkpoint_no + 1, last_event_no = r.last_event_no + 1
    where r.project_id = p_project and r.run_id = p_run_id and r.kind = 'flow'
      and r.checkpoint_no is not null
    returning r.* into v_flow;
    if found then
        perform pgflow._add_checkpoint(v_flow, p_label, '{}', p_snapshot, p_payload);
    end if;
end
$$;
comment on function pgflow._save_moment is
    'Writes a checkpoint of a flow, if it has channels, at which no step ended. The caller holds '
    'the flow.';

-- Nothing changes at a pause, so its checkpoint costs a line and the payload.
create or replace function pgflow._save_pause(p_run pgflow.run, p_wait jsonb)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
begin
    if v_run.kind = 'flow' and v_run.checkpoint_no is not null then
        v_run.checkpoint_no := v_run.checkpoint_no + 1;
        v_run.last_event_no := v_run.last_event_no + 1;
        perform pgflow._add_checkpoint(v_run,
            regexp_replace(p_wait ->> 'key', '^breakpoint/(\w+)/', '\1:'), '{}', null,
            p_wait -> 'payload');
    elsif v_run.step is not null and v_run.kind = 'handler' then
        perform pgflow._save_moment(v_run.project_id, v_run.parent_run_id,
            case p_wait ->> 'kind' when 'interrupt' then 'interrupt:' || v_run.parent_key
                else regexp_replace(p_wait ->> 'key', '^breakpoint/(\w+)/',
                    '\1:' || v_run.parent_key || '/') end,
            null, p_wait -> 'payload');
    end if;
    return v_run;
end
$$;
comment on function pgflow._save_pause is
    'Writes a checkpoint of a flow that has channels and stops at a breakpoint, or a step of which '
    'is interrupted; returns the run that is paused, whose row the caller writes, and which may be '
    'that flow. The caller holds both.';

create or replace function pgflow._save_checkpoints(
    p_project text, p_flow_ids uuid[], p_run_ids uuid[], p_steps text[]
)
returns void
language plpgsql
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_flow pgflow.run;
    v_changed jsonb;
    v_label text;
begin
    for v_flow in
        select r.* from unnest(p_flow_ids) as u (run_id)
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id and r.checkpoint_no is not null
            limit 1
        ) r
        order by r.run_id
    loop
        select coalesce('layer:' || max(d.layer) filter (where d.layered), 'steps') into v_label
        from unnest(p_run_ids, p_steps) as u (run_id, step)
        join pgflow._steps_of_flow(v_flow) as d on d.step = u.step
        where u.run_id = v_flow.run_id;
        select jsonb_object_agg(w.channel, pgflow._reduced_onto(w.channel, w.reducer,
            case when w.reducer <> all (pgflow._builtin_reducers()) then pgflow._values(p_project,
                v_flow.run_id, v_flow.handler, v_flow.flow_version, v_flow.checkpoint_no - 1)
                -> w.channel end, w.written))
        into v_changed
        from (
            select w.channel, c.reducer, array_agg(w.value order by d.place, s.element, w.nth)
                as written
            from unnest(p_run_ids, p_steps) as u (run_id, step)
            cross join lateral (
                select s.* from pgflow.flow_step s
                where s.project_id = p_project and s.run_id = u.run_id and s.step = u.step
                  and s.super_step = v_flow.super_step and s.voided_at is null
                  and s.state = 'completed'
                offset 0
            ) s
            cross join lateral (
                select w.channel, w.value, w.nth from pgflow.channel_write w
                where w.project_id = p_project and w.run_id = s.run_id and w.step = s.step
                  and w.element = s.element and w.version = s.version
                offset 0
            ) w
            cross join lateral (
                select c.reducer from pgflow.channel_definition c
                where c.project_id = p_project and c.flow = v_flow.handler
                  and c.version = v_flow.flow_version and c.channel = w.channel
                limit 1
            ) c
            cross join lateral (
                select d.place from pgflow._steps_of_flow(v_flow) as d
                where d.step = s.step
                limit 1
            ) d
            where u.run_id = v_flow.run_id
            group by w.channel, c.reducer
        ) w;
        perform pgflow._add_checkpoint(v_flow, v_label, coalesce(v_changed, '{}'));
    end loop;
end
$$;
comment on function pgflow._save_checkpoints is
    'Reduces what ended steps of flows wrote, in the order of their definitions, and writes a '
    'checkpoint of each. The caller holds the flows, and has counted them up.';

create or replace function pgflow.history(run_id uuid, project text default null)
returns setof pgflow.checkpoint_v1
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_project text := pgflow._enter_project(history.project);
    v_flow record;
begin
    select r.kind, r.handler, r.flow_version into v_flow from pgflow.run r
    where r.project_id = v_project and r.run_id = history.run_id
    union all
    select f.kind, f.handler, f.flow_version from pgflow.run_finished f
    where f.project_id = v_project and f.run_id = history.run_id;
    if not found then
        perform pgflow._refuse_gone(v_project, history.run_id, '');
    elsif v_flow.kind <> 'flow' then
        perform pgflow._refuse_value('run_id', 'the run of a flow', 'a ' || v_flow.kind);
    end if;
    return query
    with ended as (
        select s.super_step, array_agg(s.step::text order by d.place, s.element) as steps,
            max(s.ended_at) as at, 'layer:' || max(d.layer) filter (where d.layered) as layer
        from pgflow.flow_step s
        join (
            select a.step, a.place, a.layer, a.layered
            from pgflow._defined_steps(v_project, history.run_id, v_flow.handler,
                v_flow.flow_version, true) as a
            union all
            select o.step, o.place, o.layer, o.layered  -- they had ended, and count no more
            from pgflow.run_step o
            where o.project_id = v_project and o.run_id = history.run_id
              and o.withdrawn_at is not null
        ) d on d.step = s.step
        where s.project_id = v_project and s.run_id = history.run_id and s.super_step > 0
        group by s.super_step
    )
    select c.number, c.super_step, c.label::text, e.steps,
        array(select k from jsonb_object_keys(c.changed) as k order by k),
        pgflow._values(v_project, history.run_id, v_flow.handler, v_flow.flow_version, c.number),
        c.payload, c.at
    from pgflow.checkpoint c
    left join ended e on e.super_step = c.super_step
        and (c.label = 'steps' or c.label like 'layer:%')
    where c.project_id = v_project and c.run_id = history.run_id
    union all
    select e.super_step, e.super_step, coalesce(e.layer, 'steps'), e.steps, null, null, null, e.at
    from ended e
    where not exists (select from pgflow.checkpoint c
                      where c.project_id = v_project and c.run_id = history.run_id)
    order by 1;
end
$$;
comment on function pgflow.history is
    'The checkpoints of a flow''s run, live or finished, from the first on: after each super-step '
    'the steps that ended in it, the channels that it changed and the values of all. A flow '
    'without channels has no values. Example: select number, label, steps, "values" from '
    'pgflow.history(''...''). Raises PF101, PF102, PF502.';

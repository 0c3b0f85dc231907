-- What changes the values of a flow beside its steps: a person, going back, doing it again.

create or replace function pgflow._check_values(
    p_flow pgflow.run, p_updates jsonb, p_field text
)
returns void
language plpgsql
as $$
declare
    v_known text := (
        select string_agg(d.channel, ', ' order by d.channel) from pgflow.channel_definition d
        where d.project_id = p_flow.project_id and d.flow = p_flow.handler
          and d.version = p_flow.flow_version);
begin
    if jsonb_typeof(p_updates) <> 'object' or p_updates = '{}' then
        perform pgflow._refuse_value(p_field, 'an object of channels and their values',
            p_updates::text);
    end if;
    perform pgflow._refuse_value(pgflow._member(p_field, u.channel),
        case when d.channel is null
             then 'a channel of the flow: ' || coalesce(v_known, 'it has none')
             else pgflow._value_fault(d.reducer, u.value) end, u.value::text)
    from jsonb_each(p_updates) as u (channel, value)
    left join pgflow.channel_definition d on d.project_id = p_flow.project_id
        and d.flow = p_flow.handler and d.version = p_flow.flow_version and d.channel = u.channel
    where d.channel is null
       or u.value <> 'null' and pgflow._value_fault(d.reducer, u.value) is not null;
end
$$;
comment on function pgflow._check_values is
    'Refuses (PF101) values that the channels of a flow cannot have.';

create or replace function pgflow._update_values(
    p_flow pgflow.run, p_now timestamptz, p_updates jsonb
)
returns pgflow.run
language plpgsql
as $$
declare
    v_flow pgflow.run;
begin
    perform pgflow._check_values(p_flow, p_updates, 'command.update');
    update pgflow.run r
    set checkpoint_no = r.checkpoint_no + 1, last_event_no = r.last_event_no + 1
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id
    returning r.* into v_flow;
    perform pgflow._add_checkpoint(v_flow, 'update', p_updates,
        pgflow._values_now(p_flow) || p_updates);
    perform pgflow._event(v_flow, v_flow.last_event_no, 'checkpoint.saved', p_now,
        jsonb_build_object('number', v_flow.checkpoint_no, 'label', 'update', 'values', p_updates));
    return v_flow;
end
$$;
comment on function pgflow._update_values is
    'Replaces values of a flow''s channels; returns it as it is now. The caller holds it. Raises '
    'PF101.';

-- From what was written, because reducers know no way back. What a person set stands, and what was
-- written before that is gone.
create or replace function pgflow._values_left(
    p_project text, p_run_id uuid, p_flow text, p_version integer, p_with_uncounted boolean
)
returns jsonb
language plpgsql
as $$
begin
    return (
        select jsonb_object_agg(d.channel, pgflow._reduced_onto(d.channel, d.reducer,
            coalesce(u.value, d.default_value), (
                select array_agg(w.value
                    order by s.super_step nulls last, p.place, s.element, w.nth)
                from pgflow.flow_step s
                join pgflow.channel_write w on w.project_id = p_project and w.run_id = s.run_id
                    and w.step = s.step and w.element = s.element and w.version = s.version
                    and w.channel = d.channel
                join pgflow._defined_steps(p_project, p_run_id, p_flow, p_version, true) as p
                    on p.step = s.step
                where s.project_id = p_project and s.run_id = p_run_id and s.state = 'completed'
                  and s.voided_at is null
                  and coalesce(s.super_step > coalesce(u.super_step, -1), p_with_uncounted))))
        from pgflow.channel_definition d
        left join lateral (
            select c.super_step, c.changed -> d.channel as value from pgflow.checkpoint c
            where c.project_id = p_project and c.run_id = p_run_id and c.label in ('update', 'fork')
              and c.changed ? d.channel
            order by c.number desc
            limit 1
        ) u on true
        where d.project_id = p_project and d.flow = p_flow and d.version = p_version);
end
$$;
comment on function pgflow._values_left is
    'The values of a flow''s channels by what the steps that count wrote, with or without those '
    'that have ended and don''t count yet.';

create or replace function pgflow._take_back_writes(p_flow pgflow.run, p_label text)
returns void
language plpgsql
as $$
begin
    if p_flow.checkpoint_no is not null then
        perform pgflow._save_moment(p_flow.project_id, p_flow.run_id, p_label,
            pgflow._values_left(p_flow.project_id, p_flow.run_id, p_flow.handler,
                p_flow.flow_version, false));
    end if;
end
$$;
comment on function pgflow._take_back_writes is
    'Takes what steps wrote that count no more out of the values of their flow, which went to a '
    'step. The caller holds the flow.';

create or replace function pgflow._keep_values(
    p_version pgflow.flow_version, p_from uuid, p_to uuid
)
returns void
language plpgsql
as $$
begin
    insert into pgflow.channel_write (project_id, run_id, step, element, version, nth, channel,
        value)
    select w.project_id, p_to, w.step, w.element, k.version, w.nth, w.channel, w.value
    from pgflow.flow_step k
    join pgflow.flow_step s on s.project_id = k.project_id and s.run_id = p_from
        and s.step = k.step and s.element = k.element and s.voided_at is null
    join pgflow.channel_write w on w.project_id = s.project_id and w.run_id = s.run_id
        and w.step = s.step and w.element = s.element and w.version = s.version
    where k.project_id = p_version.project_id and k.run_id = p_to and k.state = 'completed';
    if not exists (select from pgflow.flow_step k
                   where k.project_id = p_version.project_id and k.run_id = p_to) then
        return;
    end if;
    if p_version.definition ? 'channels' then
        perform pgflow._save_moment(p_version.project_id, p_to, 'retry', pgflow._values_left(
            p_version.project_id, p_from, p_version.flow, p_version.version, true));
    end if;
end
$$;
comment on function pgflow._keep_values is
    'Gives a new run of a flow the values that another had, by the steps that are kept.';

-- ---- forks

-- What had ended by that super-step, and had not been gone back behind: with its output and with
-- what it wrote. All else begins anew.
create or replace function pgflow._fork_steps(
    p_version pgflow.flow_version, p_to uuid, p_fork jsonb
)
returns text[]
language plpgsql
as $$
declare
    v_from uuid := (p_fork ->> 'from')::uuid;
    v_super_step integer := (p_fork ->> 'super_step')::integer;
    v_updates jsonb := coalesce(nullif(p_fork -> 'updates', 'null'), '{}');
    v_number integer;
    v_values jsonb;
    v_flow pgflow.run;
    v_steps text[];
begin
    perform pgflow._keep_added_steps(p_version.project_id, v_from, p_to, v_super_step);
    with kept as (
        insert into pgflow.flow_step (project_id, run_id, step, element, version, state,
            needs_settled, needs_completed, needs_failed, super_step, attempts, child_run_id,
            ready_at, ended_at, error_code, error_detail, output, elements, elements_left)
        select s.project_id, p_to, s.step, s.element, 0, s.state, s.needs_settled,
            s.needs_completed, s.needs_failed, s.super_step, s.attempts, s.child_run_id, s.ready_at,
            s.ended_at, s.error_code, s.error_detail, s.output, s.elements, s.elements_left
        from pgflow.flow_step s
        where s.project_id = p_version.project_id and s.run_id = v_from
          and s.super_step <= v_super_step
          and coalesce(s.voided_super_step >= v_super_step, s.voided_at is null)
          and exists (  -- a step that was added since may have been skipped at once
              select from pgflow._defined_steps(p_version.project_id, p_to, p_version.flow,
                  p_version.version, true) as d
              where d.step = s.step)
        returning step, element
    ),
    written as (
        insert into pgflow.channel_write (project_id, run_id, step, element, version, nth, channel,
            value)
        select w.project_id, p_to, w.step, w.element, 0, w.nth, w.channel, w.value
        from kept k
        join pgflow.flow_step s on s.project_id = p_version.project_id and s.run_id = v_from
            and s.step = k.step and s.element = k.element and s.super_step <= v_super_step
            and coalesce(s.voided_super_step >= v_super_step, s.voided_at is null)
        join pgflow.channel_write w on w.project_id = s.project_id and w.run_id = s.run_id
            and w.step = s.step and w.element = s.element and w.version = s.version
    )
    select coalesce(array_agg(k.step), '{}') into v_steps from kept k where k.element = 0;
    select coalesce(min(c.number) filter (where c.super_step = v_super_step), 0) into v_number
    from pgflow.checkpoint c
    where c.project_id = p_version.project_id and c.run_id = v_from;
    v_values := pgflow._values(p_version.project_id, v_from, p_version.flow, p_version.version,
        v_number);
    update pgflow.run r
    set forked_from = v_from, super_step = v_super_step,
        checkpoint_no = r.checkpoint_no + v_number + 1,
        last_event_no = r.last_event_no + (r.checkpoint_no is not null)::integer
    where r.project_id = p_version.project_id and r.run_id = p_to
    returning r.* into v_flow;
    if v_values is not null then
        perform pgflow._add_checkpoint(v_flow, 'fork', v_updates, v_values || v_updates);
    end if;
    return v_steps;
end
$$;
comment on function pgflow._fork_steps is
    'Gives a new run what another had when it had come to a super-step; returns the steps that had '
    'ended by then.';

create or replace function pgflow._fork_flow(
    p_flow pgflow.run, p_super_step integer, p_updates jsonb
)
returns uuid
language plpgsql
as $$
begin
    if p_super_step is null or p_super_step not between 0 and p_flow.super_step then
        perform pgflow._refuse_value('super_step', 'from 0 to ' || p_flow.super_step
            || ', which is how far the flow has come', p_super_step::text);
    elsif p_updates is not null then
        perform pgflow._check_values(p_flow, p_updates, 'updates');
    end if;
    return pgflow._start_flow(
        pgflow._with_bindings_of(
            pgflow._found_flow(p_flow.project_id, p_flow.handler, p_flow.flow_version), p_flow,
            'be forked'),
        p_flow.input, p_flow.priority, null, null,
        coalesce(p_flow.correlation_id, p_flow.run_id::text), pgflow._new_id(), p_flow.tags, null,
        pgflow._budget_of(p_flow.project_id, p_flow.run_id),
        jsonb_build_object('from', p_flow.run_id, 'super_step', p_super_step,
            'updates', p_updates));
end
$$;
comment on function pgflow._fork_flow is
    'Starts a flow anew from where another run of it was after a super-step. The caller holds '
    'that. Raises PF101.';

-- What changes the values of a flow beside its steps: a person, going back, doing it again.

create or replace function pgflow._update_values(
    p_flow pgflow.run, p_now timestamptz, p_updates jsonb
)
returns pgflow.run
language plpgsql
as $$
declare
    v_flow pgflow.run;
    v_known text := (
        select string_agg(d.channel, ', ' order by d.channel) from pgflow.channel_definition d
        where d.project_id = p_flow.project_id and d.flow = p_flow.handler
          and d.version = p_flow.flow_version);
begin
    if jsonb_typeof(p_updates) <> 'object' or p_updates = '{}' then
        perform pgflow._refuse_value('command.update', 'an object of channels and their values',
            p_updates::text);
    end if;
    perform pgflow._refuse_value(pgflow._member('command.update', u.channel),
        case when d.channel is null
             then 'a channel of the flow: ' || coalesce(v_known, 'it has none')
             else pgflow._value_fault(d.reducer, u.value) end, u.value::text)
    from jsonb_each(p_updates) as u (channel, value)
    left join pgflow.channel_definition d on d.project_id = p_flow.project_id
        and d.flow = p_flow.handler and d.version = p_flow.flow_version and d.channel = u.channel
    where d.channel is null
       or u.value <> 'null' and pgflow._value_fault(d.reducer, u.value) is not null;
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
                join pgflow.step_definition p on p.project_id = p_project and p.flow = p_flow
                    and p.version = p_version and p.step = s.step
                where s.project_id = p_project and s.run_id = p_run_id and s.state = 'completed'
                  and s.voided_at is null
                  and coalesce(s.super_step > coalesce(u.super_step, -1), p_with_uncounted))))
        from pgflow.channel_definition d
        left join lateral (
            select c.super_step, c.changed -> d.channel as value from pgflow.checkpoint c
            where c.project_id = p_project and c.run_id = p_run_id and c.label = 'update'
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

create or replace function pgflow._take_back_writes(p_flow pgflow.run, p_step text)
returns void
language plpgsql
as $$
declare
    v_flow pgflow.run;
begin
    if p_flow.checkpoint_no is null then
        return;
    end if;
    update pgflow.run r set checkpoint_no = r.checkpoint_no + 1
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id
    returning r.* into v_flow;
    perform pgflow._add_checkpoint(v_flow, 'rollback:' || p_step, '{}', pgflow._values_left(
        v_flow.project_id, v_flow.run_id, v_flow.handler, v_flow.flow_version, false));
end
$$;
comment on function pgflow._take_back_writes is
    'Takes what steps wrote that count no more out of the values of their flow, which went back to '
    'a step. The caller holds the flow.';

create or replace function pgflow._keep_values(
    p_version pgflow.flow_version, p_from uuid, p_to uuid
)
returns void
language plpgsql
as $$
declare
    v_flow pgflow.run;
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
    update pgflow.run r set checkpoint_no = r.checkpoint_no + 1
    where r.project_id = p_version.project_id and r.run_id = p_to and r.checkpoint_no is not null
    returning r.* into v_flow;
    if found then
        perform pgflow._add_checkpoint(v_flow, 'retry', '{}', pgflow._values_left(
            v_flow.project_id, p_from, v_flow.handler, v_flow.flow_version, true));
    end if;
end
$$;
comment on function pgflow._keep_values is
    'Gives a new run of a flow the values that another had, by the steps that are kept.';

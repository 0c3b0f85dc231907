-- What the definition of a flow may say. It is checked whole before anything is stored, and all
-- that is wrong is told at once, with the name of the step.

create or replace function pgflow._members(p_object jsonb)
returns jsonb
language sql
immutable
as $$
    select coalesce(jsonb_object_agg(m.key, m.value), '{}')
    from jsonb_each(case jsonb_typeof(p_object) when 'object' then p_object end) as m
    where m.value <> 'null'
$$;
comment on function pgflow._members is 'An object without its members that are null.';

create or replace function pgflow._is_text(p_value jsonb, p_pattern text)
returns boolean
language sql
immutable
as $$
    select jsonb_typeof(p_value) = 'string' and (p_value #>> '{}') ~ p_pattern collate "C"
$$;
comment on function pgflow._is_text is 'Whether a value is a text of a pattern.';

create or replace function pgflow._is_number(p_value jsonb, p_from numeric, p_to numeric)
returns boolean
language sql
immutable
as $$
    select case jsonb_typeof(p_value) when 'number' then p_value::numeric between p_from and p_to
                                      else false end
$$;
comment on function pgflow._is_number is 'Whether a value is a number of a range.';

create or replace function pgflow._retry_faults(p_retry jsonb, out field text, out expected text)
returns setof record
language sql
immutable
as $$
    select 'retry.' || m.key, k.expected
    from jsonb_each(pgflow._members(p_retry)) as m
    left join (values
        ('max_attempts', 'a whole number from 1 to 1000', 1, 1000),
        ('base', 'seconds from 0 to 2592000', 0, 2592000),
        ('longest', 'seconds from 0 to 2592000', 0, 2592000),
        ('factor', 'a number from 1 to 100', 1, 100)
    ) as k (name, expected, lowest, highest) on k.name = m.key
    where not coalesce(pgflow._is_number(m.value, k.lowest, k.highest), false)
       or m.key = 'max_attempts' and (m.value #>> '{}')::numeric % 1 <> 0
$$;
comment on function pgflow._retry_faults is
    'The members of a step''s retry that are wrong; without what they must be if there is no such.';

create or replace function pgflow._wait_of(p_step jsonb)
returns jsonb
language sql
immutable
as $$
    select coalesce(p_step -> 'config', '{}')
        || jsonb_build_object('key', p_step -> 'name')
        || case p_step ->> 'type'
            when 'wait_event' then jsonb_build_object('kind', 'event', 'name',
                coalesce(p_step #> '{config,name}', p_step -> 'name'))
            when 'timer' then jsonb_build_object('kind', 'sleep')
            else jsonb_build_object(
                'kind', case p_step ->> 'type' when 'approval_gate' then 'approval'
                                               else 'form' end,
                'title', coalesce(p_step #> '{config,title}', p_step -> 'description',
                    p_step -> 'name'))
                || case p_step ->> 'type' when 'human_task' then jsonb_build_object('form',
                    coalesce(p_step #> '{config,form}', '{}')) else '{}' end
            end
$$;
comment on function pgflow._wait_of is
    'What a step that no worker executes waits for, as park is told it.';

create or replace function pgflow._wait_fault(p_step jsonb)
returns text
language plpgsql
stable
as $$
declare
    v_type text := p_step ->> 'type';
    v_known text[] := case v_type
        when 'wait_event' then '{name,timeout}'
        when 'timer' then '{seconds}'
        else '{title,assignee,assignee_role,requested_by,not_requester,quorum,quorum_of,form,'
            || 'due_in,policy,escalate_to,escalate_in,on_reject}' end::text[];
    v_odd text := (
        select string_agg(k, ', ' order by k)
        from jsonb_object_keys(case jsonb_typeof(p_step -> 'config') when 'object'
            then p_step -> 'config' end) as k
        where k <> all (v_known));
begin
    if v_type is null or v_type not in ('approval_gate', 'human_task', 'wait_event', 'timer')
        or jsonb_typeof(p_step -> 'config') <> 'object'
        or jsonb_typeof(p_step -> 'name') <> 'string'
    then
        return null;  -- which is told by itself
    elsif v_odd is not null then
        return format('an object of %s for a %s, without %s', array_to_string(v_known, ', '),
            v_type, v_odd);
    end if;
    perform pgflow._check_wait(pgflow._wait_of(p_step));
    return null;
exception
    when sqlstate 'PF101' or data_exception then
        return 'right for its type, ' || v_type || ': ' || replace(sqlerrm, 'waits.', 'config.');
end
$$;
comment on function pgflow._wait_fault is
    'What is wrong with the config of a step that no worker executes; null if it is right.';

create or replace function pgflow._step_faults(p_step jsonb, out field text, out expected text)
returns setof record
language sql
immutable
as $$
    select m.key, k.expected
    from (select * from jsonb_each(pgflow._members(p_step))
          union all
          select 'name', null where not pgflow._members(p_step) ? 'name') as m (key, value)
    left join (values
        ('name', 'a name of 1 to 100 letters, digits, _, . or -, which begins with none of . and -',
            pgflow._is_text(p_step -> 'name', '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$')),
        ('description', 'a text', jsonb_typeof(p_step -> 'description') = 'string'),
        ('type', 'the name of a step type, or left out: a handler''s',
            jsonb_typeof(p_step -> 'type') = 'string'),
        ('each', 'a SQL/JSON path of at most 1000 characters',
            jsonb_typeof(p_step -> 'each') = 'string'
                and char_length(p_step ->> 'each') between 1 and 1000),
        ('handler', 'a text of 1 to 200 characters',
            pgflow._is_text(p_step -> 'handler', '^.{1,200}$')),
        ('queue', 'a text of 1 to 100 characters',
            pgflow._is_text(p_step -> 'queue', '^.{1,100}$')),
        ('needs', 'a list of names of steps, each of them once',
            pgflow._are_names(p_step -> 'needs')),
        ('config', 'an object', jsonb_typeof(p_step -> 'config') = 'object'),
        ('budget', 'an object', jsonb_typeof(p_step -> 'budget') = 'object'),
        ('when', '', true),
        ('retry', 'an object of max_attempts, base, factor and longest',
            jsonb_typeof(p_step -> 'retry') = 'object'),
        ('timeout', 'seconds, more than 0 and at most 2592000',
            pgflow._is_number(p_step -> 'timeout', 0.001, 2592000)),
        ('artifact', 'as _artifact_faults() tells', true),
        ('role', 'a name of 1 to 100 letters, digits, _, . or -, which begins with none of . and -',
            pgflow._is_text(p_step -> 'role', '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$')),
        ('gates', 'a list of gates', jsonb_typeof(p_step -> 'gates') = 'array'),
        ('join', 'all, any, none_failed or one_failed',
            pgflow._is_text(p_step -> 'join', '^(all|any|none_failed|one_failed)$')),
        ('on_failure', 'fail, continue or {"run": a step}',
            case jsonb_typeof(p_step -> 'on_failure')
                when 'object' then jsonb_typeof(p_step #> '{on_failure,run}') = 'string'
                    and (p_step -> 'on_failure') - 'run' = '{}'
                else pgflow._is_text(p_step -> 'on_failure', '^(fail|continue)$') end)
    ) as k (name, expected, is_right) on k.name = m.key
    where not coalesce(k.is_right, false)
    union all
    select r.field, r.expected from pgflow._retry_faults(p_step -> 'retry') as r
    union all
    select u, 'left out: no worker executes a ' || (p_step ->> 'type')
    from unnest('{handler,queue,retry,timeout,budget,artifact,role}'::text[]) as u
    where pgflow._members(p_step) ? 'type' and pgflow._members(p_step) ? u
    union all
    select 'config', pgflow._wait_fault(p_step)
    where pgflow._wait_fault(p_step) is not null
$$;
comment on function pgflow._step_faults is
    'The members of a step that are wrong by themselves, and what each must be; null: left out.';

-- What makes one step wait for another: that it needs it, or runs when it has failed. Places count
-- from 1; of two steps of one name the first is meant.
create or replace function pgflow._flow_edges(p_steps jsonb)
returns table (from_place integer, to_place integer, name text, is_on_failure boolean)
language sql
stable
as $$
    with step as (
        select s.place::integer, s.step, s.step ->> 'name' as name
        from jsonb_array_elements(p_steps) with ordinality as s (step, place)
    ),
    named as (
        select distinct on (s.name) s.name, s.place from step s where s.name is not null
        order by s.name, s.place
    ),
    edge as (
        select s.place, n.name, false as is_on_failure
        from step s
        cross join jsonb_array_elements_text(
            case when pgflow._are_names(s.step -> 'needs') then s.step -> 'needs' end) as n (name)
        union all
        select s.place, s.step #>> '{on_failure,run}', true from step s
        where jsonb_typeof(s.step #> '{on_failure,run}') = 'string'
    )
    select case when e.is_on_failure then e.place else n.place end,
        case when e.is_on_failure then n.place else e.place end, e.name, e.is_on_failure
    from edge e
    left join named n using (name)
$$;
comment on function pgflow._flow_edges is
    'Which step of a definition comes before which, and the name by which; null where it is the '
    'name of none.';

-- Step by step away from those that need nothing: quadratic would be too slow for thousands.
create or replace function pgflow._layers(
    p_count integer, p_starts integer[], p_tos integer[]
)
returns integer[]
language plpgsql
immutable
as $$
declare
    v_left integer[] := array_fill(0, array[p_count]);
    v_layers integer[] := array_fill(0, array[p_count]);
    v_depths integer[] := array_fill(1, array[p_count]);
    v_queue integer[] := '{}';
    v_next integer := 1;
    v_place integer;
    v_to integer;
begin
    for v_edge in 1..coalesce(cardinality(p_tos), 0) loop
        v_left[p_tos[v_edge]] := v_left[p_tos[v_edge]] + 1;
    end loop;
    for v_place in 1..p_count loop
        if v_left[v_place] = 0 then
            v_queue[coalesce(cardinality(v_queue), 0) + 1] := v_place;
        end if;
    end loop;
    while v_next <= cardinality(v_queue) loop
        v_place := v_queue[v_next];
        v_next := v_next + 1;
        v_layers[v_place] := v_depths[v_place];
        for v_edge in p_starts[v_place]..p_starts[v_place + 1] - 1 loop
            v_to := p_tos[v_edge];
            v_depths[v_to] := greatest(v_depths[v_to], v_depths[v_place] + 1);
            v_left[v_to] := v_left[v_to] - 1;
            if v_left[v_to] = 0 then
                v_queue[cardinality(v_queue) + 1] := v_to;
            end if;
        end loop;
    end loop;
    return v_layers;
end
$$;
comment on function pgflow._layers is
    'The length of the longest way to each node of a graph, from 1; 0 for those in a cycle or '
    'behind one. p_tos are the ends of its edges, sorted by their beginnings; those of node n '
    'begin at p_starts[n].';

create or replace function pgflow._flow_layers(p_steps jsonb)
returns integer[]
language sql
stable
as $$
    with edge as (
        select distinct e.from_place, e.to_place from pgflow._flow_edges(p_steps) as e
        where e.from_place is not null and e.to_place is not null
    ),
    many as (
        select p.place, count(e.from_place) as many
        from generate_series(1, jsonb_array_length(p_steps) + 1) as p (place)
        left join edge e on e.from_place = p.place
        group by p.place
    )
    select pgflow._layers(jsonb_array_length(p_steps),
        array(select (1 + coalesce(sum(m.many) over (order by m.place
                  rows between unbounded preceding and 1 preceding), 0))::integer
              from many m order by m.place),
        array(select e.to_place from edge e order by e.from_place, e.to_place))
$$;
comment on function pgflow._flow_layers is
    'The layer of each step of a definition: the steps of the longest way to it, itself included; '
    '0 if it waits for itself.';

-- From a step that waits for itself, or for one that does, back to any such: that leads into a
-- cycle. Each cycle is told once, at the first of its steps that is met.
create or replace function pgflow._cycles(p_layers integer[], p_steps jsonb)
returns table (place integer, way text)
language plpgsql
stable
as $$
declare
    v_backs integer[] := array_fill(0, array[cardinality(p_layers)]);
    v_walks integer[] := array_fill(0, array[cardinality(p_layers)]);
    v_edge record;
    v_step integer;
begin
    for v_edge in
        select e.from_place, e.to_place from pgflow._flow_edges(p_steps) as e
        where p_layers[e.from_place] = 0 and p_layers[e.to_place] = 0
    loop
        v_backs[v_edge.to_place] := v_edge.from_place;
    end loop;
    for v_walk in 1..cardinality(p_layers) loop
        v_step := v_walk;
        while v_backs[v_step] > 0 and v_walks[v_step] = 0 loop
            v_walks[v_step] := v_walk;
            v_step := v_backs[v_step];
        end loop;
        continue when v_walks[v_step] <> v_walk;  -- it ended, or met one that was told
        place := v_step;
        way := p_steps -> (v_step - 1) ->> 'name';
        for v_hops in 1..20 loop
            v_step := v_backs[v_step];
            way := (p_steps -> (v_step - 1) ->> 'name') || case when v_hops = 20 then ' ... '
                else ' -> ' end || way;
            exit when v_step = place;
        end loop;
        return next;
    end loop;
end
$$;
comment on function pgflow._cycles is
    'The cycles of a definition: the place of one of the steps of each, and the way around it.';

create or replace function pgflow._graph_faults(p_steps jsonb, out place integer, out field text,
    out message text)
returns setof record
language sql
stable
as $$
    select e.to_place, 'needs', format('needs %s, which is no step of this flow', e.name)
    from pgflow._flow_edges(p_steps) as e
    where e.from_place is null
    union all
    select e.from_place, 'on_failure', format('on_failure names %s, which is no step of this flow',
        e.name)
    from pgflow._flow_edges(p_steps) as e
    where e.to_place is null
    union all
    select e.to_place, 'join',
        format('join must be one_failed or left out: step %s runs it when it has failed',
            p_steps -> (e.from_place - 1) ->> 'name')
    from pgflow._flow_edges(p_steps) as e
    where e.is_on_failure and p_steps -> (e.to_place - 1) ->> 'join' <> 'one_failed'
    union all
    select s.place::integer, 'needs', 'join one_failed must have a step that it needs'
    from jsonb_array_elements(p_steps) with ordinality as s (step, place)
    where s.step ->> 'join' = 'one_failed' and not exists (
        select from pgflow._flow_edges(p_steps) as e where e.to_place = s.place)
    union all
    select c.place, 'needs', 'waits for itself: ' || c.way
    from pgflow._cycles(pgflow._flow_layers(p_steps), p_steps) as c
$$;
comment on function pgflow._graph_faults is
    'What is wrong between the steps of a definition: unknown names, cycles, joins.';

create or replace function pgflow._output_faults(p_output jsonb, p_steps jsonb, out field text,
    out message text)
returns setof record
language sql
stable
as $$
    select pgflow._member('definition.output', m.key),
        format('output %s must be the name of a step of this flow (given: %s)', left(m.key, 100),
            left(m.value::text, 200))
    from jsonb_each(case jsonb_typeof(p_output) when 'object' then p_output end) as m
    where not exists (select from jsonb_array_elements(p_steps) as s
                      where s -> 'name' = m.value)
$$;
comment on function pgflow._output_faults is
    'The members of a flow''s output that name no step of it.';

create or replace function pgflow._flow_faults(p_flow jsonb, out field text, out message text)
returns setof record
language plpgsql
stable
as $$
declare
    v_steps jsonb := case when jsonb_typeof(p_flow -> 'steps') = 'array'
        then p_flow -> 'steps' else jsonb '[]' end;
begin
    return query
    select 'definition.' || m.key, m.key || case when k.name is null then ' is no member of a flow'
            else format(' must be %s (given: %s)', k.expected, left(m.value::text, 200)) end
    from (select * from jsonb_each(pgflow._members(p_flow))
          union all select u, jsonb 'null' from unnest('{name,steps}'::text[]) as u
          where not pgflow._members(p_flow) ? u) as m (key, value)
    left join (values
        ('name', 'a name of 1 to 100 letters, digits, _, . or -, which begins with none of . and -',
            pgflow._is_text(p_flow -> 'name', '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$')),
        ('description', 'a text', jsonb_typeof(p_flow -> 'description') = 'string'),
        ('queue', 'a text of 1 to 100 characters',
            pgflow._is_text(p_flow -> 'queue', '^.{1,100}$')),
        ('output', 'an object of names of steps', jsonb_typeof(p_flow -> 'output') = 'object'),
        ('budget', 'an object', jsonb_typeof(p_flow -> 'budget') = 'object'),
        ('channels', 'an object of channels', jsonb_typeof(p_flow -> 'channels') = 'object'),
        ('layered', 'true or false', jsonb_typeof(p_flow -> 'layered') = 'boolean'),
        ('input_schema', 'a JSON Schema that is an object',
            jsonb_typeof(p_flow -> 'input_schema') = 'object'),
        ('breakpoints', 'an object of before and after, lists of names of steps',
            jsonb_typeof(p_flow -> 'breakpoints') = 'object'),
        ('steps', 'a list of 1 to 10000 steps',
            jsonb_array_length(v_steps) between 1 and 10000)
    ) as k (name, expected, is_right) on k.name = m.key
    where not coalesce(k.is_right, false);
    return query
    select format('definition.steps[%s]', s.place - 1), format('step [%s]: must be an object '
        '(given: %s)', s.place - 1, left(s.step::text, 200))
    from jsonb_array_elements(v_steps) with ordinality as s (step, place)
    where jsonb_typeof(s.step) <> 'object';
    return query
    select format('definition.steps[%s].%s', s.place - 1, f.field),
        format('step %s: %s', coalesce(left(s.step ->> 'name', 100), format('[%s]', s.place - 1)),
            case when f.expected is null then f.field || ' is no member of a step'
                 else format('%s must be %s (given: %s)', f.field, f.expected, left(coalesce(
                     s.step #> string_to_array(f.field, '.'), 'null')::text, 200)) end)
    from jsonb_array_elements(v_steps) with ordinality as s (step, place)
    cross join lateral pgflow._step_faults(s.step) as f
    where jsonb_typeof(s.step) = 'object';
    return query
    select format('definition.steps[%s].name', s.place - 1),
        format('step %s: another step has this name', s.name)
    from (
        select t.step ->> 'name' as name, t.place,
            row_number() over (partition by t.step ->> 'name' order by t.place) as nth
        from jsonb_array_elements(v_steps) with ordinality as t (step, place)
    ) s
    where s.nth > 1 and s.name is not null;
    return query
    select format('definition.steps[%s].%s', g.place - 1, g.field),
        format('step %s: %s', coalesce(left(v_steps -> (g.place - 1) ->> 'name', 100),
            format('[%s]', g.place - 1)), g.message)
    from pgflow._graph_faults(v_steps) as g;
    return query
    select b.field, b.message from pgflow._budget_faults_of(p_flow, v_steps) as b;
    return query
    select format('definition.steps[%s].artifact', a.place - 1), format('step %s: %s',
        coalesce(left(v_steps -> (a.place - 1) ->> 'name', 100), format('[%s]', a.place - 1)),
        a.message)
    from pgflow._artifact_faults(v_steps) as a;
    return query
    select format('definition.steps[%s].%s', g.place - 1, g.field), format('step %s: %s',
        coalesce(left(v_steps -> (g.place - 1) ->> 'name', 100), format('[%s]', g.place - 1)),
        g.message)
    from (select * from pgflow._gate_faults(v_steps)
          union all select * from pgflow._pass_faults(v_steps)) g;
    return query
    select format('definition.steps[%s].each', e.place - 1),
        format('step %s: %s', v_steps -> (e.place - 1) ->> 'name', e.message)
    from pgflow._each_faults(v_steps) as e;
    return query
    select o.field, o.message from pgflow._output_faults(p_flow -> 'output', v_steps) as o;
    return query
    select s.field, s.message from pgflow._state_faults(p_flow) as s;
end
$$;
comment on function pgflow._flow_faults is 'All that is wrong with the definition of a flow.';

create or replace function pgflow._check_flow(p_project text, p_flow jsonb, p_types jsonb)
returns void
language plpgsql
as $$
declare
    v_faults jsonb;
begin
    if jsonb_typeof(p_flow) is distinct from 'object' then
        perform pgflow._refuse_value('definition', 'an object', left(p_flow::text, 200));
    elsif pg_column_size(p_flow) > 1048576 then
        perform pgflow._refuse_value('definition', 'at most 1 MB',
            pg_column_size(p_flow) || ' bytes');
    end if;
    v_faults := (
        select jsonb_agg(to_jsonb(f))
        from (select * from pgflow._type_faults(p_project, p_flow -> 'steps', p_types)
              union all
              select * from pgflow._flow_faults(pgflow._resolved_flow(p_flow, p_types))
              union all
              select * from pgflow._stop_faults('definition.breakpoints', p_flow -> 'breakpoints',
                  p_flow -> 'steps')) f);
    if v_faults is not null then
        perform pgflow._refuse('PF101', v_faults #>> '{0,message}',
            jsonb_build_object('faults', v_faults)::text,
            'Nothing was stored; the detail has all faults.', v_faults #>> '{0,field}');
    end if;
end
$$;
comment on function pgflow._check_flow is
    'Refuses (PF101) a definition, which names some types: the first fault in the message, all in '
    'the detail.';

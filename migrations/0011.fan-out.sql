-- Fan-out: a step that is executed once for each element of a list. And sub-flows: a step that is a
-- flow itself. No installation has rows yet that would be read under a lock.
-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid
-- squawk-ignore-file require-concurrent-index-creation, require-concurrent-index-deletion
set local role pgflow_owner;

alter table pgflow.step_definition
    add column each_path jsonpath,
    drop constraint type_is_known,
    add constraint type_is_known check (type in ('handler', 'flow', 'approval_gate', 'human_task',
        'wait_event', 'timer')),
    add constraint only_what_works_is_done_for_each check (
        each_path is null or type in ('handler', 'flow'));
comment on column pgflow.step_definition.each_path is
    'Finds in the step''s input the elements for each of which it is executed.';
comment on column pgflow.step_definition.type is
    'handler: a worker executes it; flow: another flow; else what it waits for. config has the '
    'particulars.';

-- Element 0 is the row of the step itself; the outputs are those of the others.
alter table pgflow.flow_step
    add column elements integer,
    add column elements_left integer,
    drop constraint running_has_a_run,
    drop constraint output_iff_completed,
    add constraint running_has_a_run_or_elements check (
        state <> 'running' or num_nonnulls(child_run_id, elements) > 0),
    add constraint output_iff_completed check (case when elements is null
        then (state = 'completed') = (output is not null) else output is null end),
    add constraint elements_left_of_elements check (elements_left between 0 and elements);
comment on column pgflow.flow_step.element is
    'From 1 for each element of a step that is done for each; 0: the step itself.';
comment on column pgflow.flow_step.elements is
    'How many it has, of a step that is done for each; its output is the list of theirs.';
comment on column pgflow.flow_step.elements_left is 'How many of them have not ended.';

-- Whether a flow has steps left is asked after each end: ten thousand elements are one step.
drop index pgflow.step_is_unsettled;
create index step_is_unsettled on pgflow.flow_step (project_id, run_id)
    where state in ('pending', 'running') and voided_at is null and element = 0;

insert into pgflow.error_code (error_code, class, description) values
    ('E-RUN-019', 'fatal',
        'The each of a step found no list in the step''s input.');

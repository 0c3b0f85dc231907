-- The line of a flow's timeline that says that its report is final. The report itself is no row: it
-- is read from what the run left behind, which never changes.
set local role pgflow_owner;

insert into pgflow.event_type (type, description) values
    ('report.written', 'The flow is about to end: what pgflow.report() says of it is final.');

-- What the roles of the flow are bound to. The models are those of script.json; another model is
-- another version, and runs that have started keep the one that they have.
select agent, version from pgflow.define_agent('planner', 'large', 'script', '{"temperature": 0}');
select agent, version from pgflow.define_agent('coder', 'small', 'script');
select agent, version from pgflow.define_agent('careful-coder', 'large', 'script');
select agent, version from pgflow.define_agent('reviewer', 'large', 'script', '{"temperature": 0}');

import random, os, json
import psycopg, pytest
from datetime import timedelta
from psycopg.types.json import Jsonb

BAD = {
"gap": """select run_id, array_agg(event_no order by event_no) from pgflow.timeline where project_id='default' group by 1
          having max(event_no) <> count(*) or count(distinct event_no) <> count(*) or min(event_no) <> 1""",
"both": "select run_id from pgflow.run join pgflow.run_finished using (project_id, run_id)",
"open tasks of ended": "select t.* from pgflow.task t where t.state='open' and not exists (select from pgflow.run r where r.run_id=t.run_id and r.project_id=t.project_id)",
"stuck wait": """select r.run_id, r.waits_for from pgflow.run r where r.state like 'waiting%' and not exists (
     select from pgflow.task t where t.run_id=r.run_id and t.key = any(r.waits_for) and t.state='open')""",
"satisfied wait": """select r.run_id from pgflow.run r where r.state like 'waiting%' and (select count(*) from pgflow.journal j where j.run_id=r.run_id and j.key=any(r.waits_for)) >= case when wait_any then 1 else cardinality(waits_for) end""",
"too many": "select queue, count(*) from pgflow.run where state='running' and queue='lim' and project_id='default' group by 1 having count(*)>2",
"slot without": "select * from pgflow.run r where state='running' and slotted and not exists (select from pgflow.slot s where s.run_id=r.run_id and s.lease_no=r.lease_no)",
"running without beat": "select r.run_id from pgflow.run r where state='running' and not exists (select from pgflow.worker_beat b where b.project_id=r.project_id and b.worker_id=r.worker_id)",
"news": "select r.run_id from pgflow.run r where r.news <> (select count(*) from pgflow.journal j where j.run_id=r.run_id and j.news is not null)",
"pending hidden": "select r.run_id from pgflow.run r join pgflow.queue q using (project_id,queue) where r.state='pending' and not r.priority = any(q.priorities)",
"attempts": "select run_id from pgflow.run where attempt >= max_attempts",
"steps": "select r.run_id from pgflow.run r where r.project_id='default' and r.step_count <> (select count(*) from pgflow.journal j where j.run_id=r.run_id and j.kind='step')",
}
OUT = {"done","already","lost","refused","news"}

@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS","6"))))
def test_fuzz(engine, seed):
    if "kept" and engine.value("select count(*) from pgflow.run")>0: pytest.skip()
    rnd = random.Random(seed*7919+int(os.environ.get("BASE","0")))
    engine.call("define_queue", queue="lim", max_concurrent=2)
    W=["w:1","w:2","w:3"]
    for w in W: engine.worker(w, ["default","lim"], [{"handler":"h","retry_base":rnd.choice([0,1,5])}])
    leases=[]; ended_leases=[]; runs=[]; marks={w:None for w in W}
    log=[]
    def some(): return rnd.choice(runs) if runs else None
    for step in range(400):
        op=rnd.choice(["enq","enq","acq","acq","acq","complete","fail","release","park","step","approve","approve","reject","cancel","pause","resume","resume","tick","beat","later","emit","retry","stop","multi"])
        log.append(op)
        try:
            if op=="enq":
                kw={}
                if rnd.random()<.2: kw["run_at"]=engine.now+timedelta(seconds=rnd.choice([1,30]))
                if rnd.random()<.2: kw["deadline"]=engine.now+timedelta(seconds=rnd.choice([5,60,200]))
                if rnd.random()<.3: kw["idempotency_key"]=f"k{rnd.randrange(4)}"
                runs.append(engine.enqueue(queue=rnd.choice(["default","lim"]),priority=rnd.choice([0,0,3]),max_attempts=rnd.choice([1,2,3]),**kw))
            elif op=="acq":
                w=rnd.choice(W)
                try: l=engine.acquire(rnd.choice([1,3]),marks[w] if rnd.random()<.7 else None,worker_id=w,queues=["default","lim"],listening=rnd.random()<.8)
                except psycopg.Error as e:
                    if e.sqlstate!="PF302": raise
                    engine.worker(w, ["default","lim"]); continue
                marks[w]=l.marks
                for x in l.leases: leases.append((w,x))
            elif op in("complete","fail","release","park","step","multi") and leases:
                i=rnd.randrange(len(leases)); w,x=leases[i]
                if op=="complete": r=engine.complete(x,output=rnd.choice(["1","{bad"]))
                elif op=="fail": r=engine.fail(x,code=rnd.choice(["E-RUN-001","E-RUN-012"]),retries=[rnd.random()<.8])
                elif op=="release": r=engine.release(x)
                elif op=="step": r=engine.record_steps(x,**{rnd.choice("xyz"):"1",rnd.choice("uvw"):"2"})
                elif op=="multi":
                    batch=[y for _,y in rnd.choices(leases,k=5)]
                    verb=rnd.choice(["complete","fail","release","steps"])
                    if verb=="steps":
                        r=engine.call("record_step",run_ids=[b.run_id for b in batch],lease_nos=[b.lease_no for b in batch],keys=[rnd.choice("pqrs") for _ in batch],digests=["aa"]*5,values=[rnd.choice(["1","{bad"]) for _ in batch])
                    else: r=getattr(engine,verb)(*batch)
                else:
                    keys=rnd.sample("abcdef",rnd.choice([1,2]))
                    r=[engine.park(x,*[{"key":k,"on_reject":rnd.choice(["cancel","resume"]),**({"due_in":rnd.choice([5,100])} if rnd.random()<.4 else {})} for k in keys],news=rnd.choice([x.body["news"],0,1,2]),wait_any=rnd.random()<.5)]
                assert all(y["outcome"] in OUT for y in r)
                if op not in("step","multi") and rnd.random()<.8: leases.pop(i)
            elif op in("approve","reject"):
                t=engine.rows("select task_id from pgflow.task order by random() limit 1")
                if t: getattr(engine,op)(t[0]["task_id"])
            elif op in("cancel","pause","resume","retry") and runs:
                r=engine.tell(op,run_id=some())
                if op=="retry": runs.append(r)
            elif op=="tick": engine.tick()
            elif op=="beat":
                w=rnd.choice(W); mine=[x for v,x in leases if v==w]
                r=engine.beat(*[x for x in mine if rnd.random()<.8],worker_id=w)
                lost={(y["run_id"]) for y in r}
                leases=[(v,x) for v,x in leases if not (v==w and x.run_id in lost)]
            elif op=="later": engine.later(seconds=rnd.choice([0.1,1,6,20,70]))
            elif op=="emit" and runs: engine.call("emit",run_id=some(),type="note",idempotency_key=rnd.choice([None,"a","b"]))
            elif op=="stop" and rnd.random()<.3: engine.call("stop_worker",worker_id=rnd.choice(W))
        except psycopg.Error as e:
            if not (e.sqlstate or "").startswith("PF"): print(log[-10:]); raise
        for name,q in BAD.items():
            rows=engine.rows(q)
            assert not rows,(name,step,log[-8:],rows[:3])
    # liveness: everything can be brought to an end
    for w in W: engine.worker(w, ["default","lim"])
    for i in range(300):
        engine.later(seconds=30)
        for (rid,) in [tuple(r.values()) for r in engine.rows("select run_id from pgflow.run where state='paused'")]: engine.call("resume",run_id=rid)
        for (tid,) in [tuple(r.values()) for r in engine.rows("select task_id from pgflow.task where state='open'")]:
            try: engine.approve(tid)
            except psycopg.Error: pass
        engine.beat(worker_id="w:2"); engine.beat(worker_id="w:3")
        l=engine.acquire(50,marks["w:1"],worker_id="w:1",queues=["default","lim"]); marks["w:1"]={**l.marks,"looked_at":0}
        if l.leases: engine.complete(*l.leases)
        if engine.value("select count(*) from pgflow.run")==0: break
    assert engine.value("select count(*) from pgflow.run")==0, engine.rows("select * from pgflow.run")
    assert engine.value("select count(*) from pgflow.slot")==0, engine.rows("select * from pgflow.slot")

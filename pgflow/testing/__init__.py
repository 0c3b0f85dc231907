"""A kit for testing handlers with the real engine: a database per test, and time under control.

Installed with pgflow, pytest finds the fixtures `pgflow_scene`, `pgflow_dsn` and `pgflow_app`:

    from shop import app, publish

    def test_an_article_waits_for_its_editor(pgflow_scene):
        scene = pgflow_scene.use(app)
        run_id = app.sync.enqueue(publish, {"text": "Postgres is enough"})
        scene.run_until_idle()
        scene.approve("editor", comment="fine")
        scene.run_until_idle()
        assert scene.output(run_id) == "3 words, approved: fine"

Without pytest, `Scene` works on any database that `pgflow.testing.databases` makes.
"""

from __future__ import annotations

from pgflow.testing.clock import Clock
from pgflow.testing.scene import Scene
from pgflow.testing.tasks import NoSuchTask, Task
from pgflow.testing.work import StillBusy

__all__ = ["Clock", "NoSuchTask", "Scene", "StillBusy", "Task"]

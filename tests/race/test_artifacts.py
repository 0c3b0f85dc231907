"""Schemas that are defined at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.race.staging import Blocked, held
from tests.sql.test_schemas import ARTICLE, define

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine


def test_two_that_define_the_same_schema_make_one_version(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    one, other = connect(), connect()
    with held(one):
        first = define(one, ARTICLE)
        defining = blocked(other, lambda: define(other, ARTICLE), by=one)
    assert defining.result() == first
    assert engine.value("select count(*) from pgflow.schemas where schema = 'article'") == 1

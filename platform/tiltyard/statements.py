"""Statements that Django writes once and that are then only asked with other values.

For a page that puts six questions to the database Django takes longer to write them as SQL, which is the same every
time, than PostgreSQL takes to answer. What a statement gives are the same objects as those of its queryset.

    RUN = Statement(lambda: Run.objects.select_related("submission").filter(pk=Given("run", models.UUIDField())))
    runs = RUN.ask(run=run_id)
"""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.query import get_related_populators
from django.db.models.sql.compiler import SQLCompiler

M = TypeVar("M", bound=models.Model)
_KEPT = "tiltyard_statements"  # an attribute of a connection


class Given(models.Value):
    """A value that is named when the statement is asked. None is no value: SQL has another operator for it."""

    def __init__(self, name: str, output_field: "models.Field[Any, Any]") -> None:
        super().__init__(name, output_field=output_field)

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> Any:  # noqa: ARG002
        return "%s", [self]


class Statement(Generic[M]):
    """A queryset of models, with the values of its filters left open.

    `write` is called once for each connection, whose own SQL it becomes; so nothing in it may be read from a clock, a
    setting that tests change, or the database. What it prefetches is not: that would be another statement.
    """

    def __init__(self, write: Callable[[], models.QuerySet[M]]) -> None:
        self._write = write

    def ask(self, **values: Any) -> list[M]:
        """The models, in the queryset's order. Raises KeyError when a value is missing."""
        connection = connections[DEFAULT_DB_ALIAS]
        # With the connection, so that both go together: each thread has one, and the SQL holds on to it.
        kept: dict[Statement[Any], _Written[Any]] = vars(connection).setdefault(_KEPT, {})
        written: _Written[M] | None = kept.get(self)
        if written is None:
            written = kept[self] = _Written(self._write(), connection)
        return written.ask(values)

    def first(self, **values: Any) -> M | None:
        """The first of them, or None."""
        return next(iter(self.ask(**values)), None)


class _Written(Generic[M]):
    """What `ModelIterable` finds out for each query anew."""

    def __init__(self, queryset: models.QuerySet[M], connection: BaseDatabaseWrapper) -> None:
        compiler = queryset.query.get_compiler(connection=connection)
        self._sql, self._parameters = compiler.as_sql()
        self._connection = connection
        self._compiler = compiler
        select, chosen = compiler.select or [], compiler.klass_info or {}
        self._converters = compiler.get_converters([column[0] for column in select])
        places = chosen["select_fields"]
        self._own = slice(places[0], places[-1] + 1)
        self._names = [column[0].target.attname for column in select[self._own]]
        self._related = get_related_populators(chosen, select, DEFAULT_DB_ALIAS)  # type: ignore[call-arg]  # of Django 6
        self._annotated = [(name, itemgetter(place)) for name, place in (compiler.annotation_col_map or {}).items()]
        self._model = queryset.model

    def ask(self, values: dict[str, Any]) -> list[M]:
        with self._connection.cursor() as cursor:
            cursor.execute(self._sql, [self._value(one, values) for one in self._parameters])
            rows = cursor.fetchall()
        if self._converters:
            rows = list(self._compiler.apply_converters(rows, self._converters))
        return [self._object(row) for row in rows]

    def _value(self, parameter: Any, values: dict[str, Any]) -> Any:
        if not isinstance(parameter, Given):
            return parameter
        field = parameter.output_field
        return field.get_db_prep_value(values[parameter.value], connection=self._connection)

    def _object(self, row: Any) -> M:
        found = self._model.from_db(DEFAULT_DB_ALIAS, self._names, row[self._own])
        for related in self._related:
            related.populate(row, found)
        for name, read in self._annotated:
            setattr(found, name, read(row))
        return found

"""The database: SQLite in a file, or PostgreSQL, with one way of opening, asking and failing.

Every function blocks; whoever lives on an event loop calls by `asyncio.to_thread`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement

from service.domain import Parameters
from service.errors import JobsUnreachable, SetupError
from service.evaluation.pipeline.reporter import Failed
from service.evaluation.record import Progress, Record, State
from service.evaluation.results import GateOutcome, Metric, PanelResult
from service.evaluation.specification import FORMAT, PinnedModel, Specification

__all__ = [
    "LAYOUT",
    "Database",
    "Now",
    "evaluations",
    "insist_on_room",
    "jobs_url",
    "layout",
    "metadata",
    "queue_url",
    "read_record",
    "reports",
    "runners",
    "to_text",
]


_BUSY_S, _CONNECT_S, _SILENT_MS = 20, 5, 15_000
_POOL = 5
_OPENING_LOCK = 0x666F756E74  # of PostgreSQL's advisory locks: who makes the tables


class Now(ColumnElement[float]):
    """Seconds since 1970 by the database's clock: runners' own clocks may differ."""

    type = sa.Double()
    inherit_cache = True


@compiles(Now, "sqlite")
def _now_of_sqlite(element: Now, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Now, "postgresql")
def _now_of_postgresql(element: Now, compiler: Any, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def jobs_url(text: str) -> URL:
    """Read --jobs.

    Raises:
        SetupError: it is neither sqlite:///PATH nor postgresql://…
    """
    try:
        url = make_url(text)
    except sa.exc.ArgumentError as error:
        raise SetupError(
            f"--jobs is no URL; write sqlite:///PATH or postgresql://USER@HOST/DATABASE ({error})"
        ) from None
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite", database=str(Path(url.database).expanduser().absolute()))
    if kind in ("postgresql", "postgres") and url.database:
        return url.set(drivername="postgresql+psycopg")
    raise SetupError("--jobs must be sqlite:///PATH or postgresql://USER@HOST/DATABASE, "
                     f"not {url.render_as_string(hide_password=True)}")  # fmt: skip


def queue_url(url: URL) -> str:
    """Where the queue is kept: the same PostgreSQL database, or a second file next to the first."""
    if url.get_backend_name() != "sqlite":
        return url.set(drivername="postgresql").render_as_string(hide_password=False)
    file = Path(str(url.database))
    return f"sqlite:///{file.with_name(f'{file.stem}-queue{file.suffix}')}"


def insist_on_room(error: Exception) -> None:
    """Give up where a file has no room to write; servers that have none are waited for.

    Raises:
        Failed: there is none.
    """
    if "disk is full" in str(error):  # SQLite's words
        raise Failed("no space left for the database of evaluations; make room, and ask again") from error


class Database:
    """An open database.

    Args:
        url: as `jobs_url` gives it.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.shown = url.render_as_string(hide_password=True)
        self._engine = _engine(url)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self.url.get_backend_name() == "sqlite"

    def open(self) -> None:
        """Make the tables where they are missing.

        Raises:
            SetupError: it cannot be reached or written, or has another layout.
        """
        try:
            if self.is_sqlite:
                Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._engine.begin() as connection:
                if not self.is_sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENING_LOCK)))
                _make_tables(connection, self.shown)
        except OSError as error:
            raise SetupError(
                f"the folder of {self.shown} cannot be made: {error}; name another with --jobs, or another --state-dir"
            ) from error
        except sa.exc.SQLAlchemyError as error:
            raise SetupError(f"evaluations cannot be kept in {self.shown}: {_plain(error)}; check --jobs") from error

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may write.

        Raises:
            JobsUnreachable: the database does not answer.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.IntegrityError:
            raise
        except sa.exc.SQLAlchemyError as error:
            raise JobsUnreachable(f"the database of evaluations does not answer: {_plain(error)}") from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that only reads.

        Raises:
            JobsUnreachable: the database does not answer.
        """
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise JobsUnreachable(f"the database of evaluations does not answer: {_plain(error)}") from error

    def close(self) -> None:
        """Let go of connections."""
        self._engine.dispose()


def _engine(url: URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        # Each connection is one thread's at a time; the pool hands it from one to the next.
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S, "check_same_thread": False}, pool_size=_POOL)
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_at_once)
        return engine
    waiting = {"connect_timeout": _CONNECT_S, "keepalives_idle": _CONNECT_S, "tcp_user_timeout": _SILENT_MS}
    return sa.create_engine(
        url, connect_args=waiting, pool_size=_POOL, pool_pre_ping=True, pool_timeout=_CONNECT_S, max_overflow=_POOL
    )


def _set_up_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say so
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_at_once(connection: sa.Connection) -> None:
    if connection.get_isolation_level() != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # rather than to find at the first write that it was too late


def _make_tables(connection: sa.Connection, shown: str) -> None:
    there = set(sa.inspect(connection).get_table_names())
    ours = set(metadata.tables)
    if layout.name in there:
        versions = connection.execute(sa.select(layout.c.version)).scalars().all()
        if versions != [LAYOUT]:
            found = ", ".join(map(str, versions)) or "none"
            raise SetupError(f"{shown} has layout {found} of evaluations, and this Fount reads {LAYOUT}; use the Fount "
                             "that made it, or name another database with --jobs")  # fmt: skip
        return
    if there & ours:
        raise SetupError(f"{shown} has tables named {', '.join(sorted(there & ours))} that are not Fount's, or are of "
                         "an unknown layout; name another database with --jobs")  # fmt: skip
    metadata.create_all(connection)
    connection.execute(sa.insert(layout).values(version=LAYOUT))


def _plain(error: sa.exc.SQLAlchemyError) -> str:
    """What went wrong, without the statement."""
    told = str(getattr(error, "orig", None) or error)
    return " ".join(told.split())[:300]


# FOLDED FROM service.evaluation.jobs.database:
# The tables: evaluations, their reports, runners that are alive, and the version of this layout. One layout for
# SQLite and PostgreSQL. The engine that queues keeps tables of its own beside these.


LAYOUT = 1
"""Of these tables. A database with another one is refused."""

metadata = sa.MetaData()

layout = sa.Table(
    "fount_layout",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

evaluations = sa.Table(
    "fount_evaluations",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("request_id", sa.String(128)),  # NULL: the request had none
    sa.Column("request_digest", sa.Text, nullable=False),
    sa.Column("specification", sa.Text, nullable=False),  # JSON
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("stage", sa.Text, nullable=False, default=""),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("total", sa.Integer, nullable=False, default=0),
    sa.Column("update_unix_s", sa.Double, nullable=False, default=0.0),
    sa.Column("metrics", sa.Text, nullable=False, default="[]"),  # JSON
    sa.Column("panels", sa.Text, nullable=False, default="[]"),  # JSON
    sa.Column("gates", sa.Text, nullable=False, default="[]"),  # JSON
    sa.Column("create_unix_s", sa.Double, nullable=False),
    sa.Column("start_unix_s", sa.Double, nullable=False, default=0.0),
    sa.Column("end_unix_s", sa.Double, nullable=False, default=0.0),
    sa.Column("report_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("enqueued", sa.Boolean, nullable=False, default=False),  # the engine knows it
    sa.Column("owner", sa.String(64), nullable=False, default=""),  # the turn of a runner that may write
    sa.Column("runner", sa.String(64), nullable=False, default=""),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),  # taken up without getting further since
    sa.UniqueConstraint("subject", "request_id", name="fount_evaluations_request"),
    sa.Index("fount_evaluations_state", "state", "create_unix_s"),
    sa.Index("fount_evaluations_subject", "subject", "id"),
)

reports = sa.Table(
    "fount_reports",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("bundle", sa.LargeBinary, nullable=False),
)

runners = sa.Table(
    "fount_runners",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("start_unix_s", sa.Double, nullable=False),
    sa.Column("beat_unix_s", sa.Double, nullable=False),
)


# FOLDED FROM service.evaluation.jobs.database:
# Between rows of the table of evaluations and the values that the service has of them.


_LISTS = ("metrics", "panels", "gates")


def to_text(values: Sequence[Metric | PanelResult | GateOutcome]) -> str:
    """As a column keeps them."""
    return json.dumps([each.to_json() for each in values], separators=(",", ":"), allow_nan=False)


def read_record(row: sa.RowMapping, keep_s: float) -> Record:
    """One evaluation; lists that were not selected are empty.

    Args:
        row: columns by name.
        keep_s: how long evaluations are kept once they have ended.
    """
    lists = {name: json.loads(row.get(name, "[]")) for name in _LISTS}
    return Record(
        id=row["id"],
        subject=row["subject"],
        request_id=row["request_id"] or "",
        request_digest=row["request_digest"],
        specification=_read_specification(json.loads(row["specification"]), row["model"]),
        state=State(row["state"]),
        reason=row["reason"],
        progress=Progress(stage=row["stage"], done=row["done"], total=row["total"], update_unix_s=row["update_unix_s"]),
        metrics=tuple(Metric.from_json(each) for each in lists["metrics"]),
        panels=tuple(PanelResult.from_json(each) for each in lists["panels"]),
        gates=tuple(GateOutcome.from_json(each) for each in lists["gates"]),
        create_unix_s=row["create_unix_s"],
        start_unix_s=row["start_unix_s"],
        end_unix_s=row["end_unix_s"],
        expire_unix_s=row["end_unix_s"] + keep_s if row["end_unix_s"] else 0.0,
        report_bytes=row["report_bytes"],
    )


def _read_specification(value: Mapping[str, Any], model: str) -> Specification:
    """To show, not to run: one of another format is read as far as it can be."""
    try:
        read = Specification.from_json({**value, "format": FORMAT})
    except ValueError:
        return _nothing_but(model, value.get("format"))
    return replace(read, format=value["format"])


def _nothing_but(model: str, made_with: Any) -> Specification:
    unknown = PinnedModel(name="", version="", digest="", numerics="")
    return Specification(
        model=replace(unknown, name=model),
        model_labels=(),
        extractor=unknown,
        classifier=unknown,
        classifier_labels=(),
        dataset="",
        dataset_digest="",
        training_split="",
        held_out_split="",
        training_rows=0,
        held_out_rows=0,
        classes=(),
        image_shape=(0, 0, 0),
        count=0,
        seed=0,
        parameters=Parameters(),
        panels=(),
        gates=(),
        code_version="",
        format=made_with if isinstance(made_with, int) else 0,
    )

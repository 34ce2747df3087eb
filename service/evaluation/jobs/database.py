"""The database of evaluations: SQLite in a file, or PostgreSQL; its tables, and how it is opened.

Transactions enter as `write` and `read` blocks of SQLAlchemy; failures leave as `JobsUnreachable`. Every function
blocks; callers on an event loop use threads. The tables are the same on SQLite and PostgreSQL. DBOS keeps tables of its
own in the same PostgreSQL database, or in a second SQLite file.
"""

from __future__ import annotations

import json
import logging
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

from fount.files import make_private_file
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
    "error_text",
    "evaluations",
    "jobs_url",
    "layout",
    "metadata",
    "queue_url",
    "raise_if_full",
    "read_record",
    "reports",
    "to_json_text",
]

LAYOUT = 2
"""Version of the tables. Version 1 is upgraded when it is opened; any other is refused."""

_BUSY_S, _CONNECT_S, _SILENT_MS = 20, 5, 15_000
_POOL_SIZE = 5
_OPENING_LOCK = 0x666F756E74  # PostgreSQL advisory lock: held by the process that makes or upgrades the tables
_ERROR_CHARACTERS = 300

_log = logging.getLogger(__name__)

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
    sa.Column("update_unix_s", sa.Double, nullable=False, default=0.0),  # last report or heartbeat of the runner
    sa.Column("metrics", sa.Text, nullable=False, default="[]"),  # JSON
    sa.Column("panels", sa.Text, nullable=False, default="[]"),  # JSON
    sa.Column("gates", sa.Text, nullable=False, default="[]"),  # JSON
    sa.Column("create_unix_s", sa.Double, nullable=False),
    sa.Column("start_unix_s", sa.Double, nullable=False, default=0.0),  # 0: not started
    sa.Column("end_unix_s", sa.Double, nullable=False, default=0.0),  # 0: not ended
    sa.Column("report_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("lease", sa.String(64), nullable=False, default=""),  # token of the lease that may write; empty: none
    sa.Column("runner", sa.String(64), nullable=False, default=""),  # the runner that acquired the last lease
    sa.Column("attempts", sa.Integer, nullable=False, default=0),  # leases acquired since it last made progress
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

_UPGRADE_FROM_1 = (
    "ALTER TABLE fount_evaluations RENAME COLUMN owner TO lease",
    "ALTER TABLE fount_evaluations DROP COLUMN enqueued",
    "DROP TABLE fount_runners",
)


class Now(ColumnElement[float]):
    """Seconds since 1970 by the clock of the database; the clocks of runners may differ."""

    type = sa.Double()
    inherit_cache = True


@compiles(Now, "sqlite")
def _now_of_sqlite(element: Now, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Now, "postgresql")
def _now_of_postgresql(element: Now, compiler: Any, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def jobs_url(text: str) -> URL:
    """Parse --jobs.

    Raises:
        SetupError: the text is neither sqlite:///PATH nor postgresql://…
    """
    try:
        url = make_url(text)
    except sa.exc.ArgumentError as error:
        raise SetupError(
            f"--jobs is not a URL; write sqlite:///PATH or postgresql://USER@HOST/DATABASE ({error})"
        ) from None
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite", database=str(Path(url.database).expanduser().absolute()))
    if kind in ("postgresql", "postgres") and url.database:
        return url.set(drivername="postgresql+psycopg")
    raise SetupError("--jobs must be sqlite:///PATH or postgresql://USER@HOST/DATABASE, "
                     f"not {url.render_as_string(hide_password=True)}")  # fmt: skip


def queue_url(url: URL) -> str:
    """Return where DBOS keeps its tables: the same PostgreSQL database, or a second SQLite file in the same folder."""
    if url.get_backend_name() != "sqlite":
        return url.set(drivername="postgresql").render_as_string(hide_password=False)
    file = Path(str(url.database))
    return f"sqlite:///{file.with_name(f'{file.stem}-queue{file.suffix}')}"


def _make_private(*files: Path) -> None:
    """Create the files of SQLite, or close them to other users; its journals get the modes of the files.

    Raises:
        OSError: they cannot be created.
    """
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        journals = [journal for end in ("-wal", "-shm") if (journal := file.with_name(file.name + end)).exists()]
        for each in (file, *journals):
            if wrong := make_private_file(each):
                _log.warning("%s: it holds evaluations; chmod 600, or name another database with --jobs", wrong)


class Database:
    """The database of evaluations."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._shown_url = url.render_as_string(hide_password=True)
        self._is_sqlite = url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(url) if self._is_sqlite else _postgresql_engine(url)

    def open(self) -> None:
        """Create the tables where they are missing, and upgrade those of an earlier layout.

        Raises:
            SetupError: the database cannot be reached or written, or has an unknown layout.
        """
        try:
            if self._is_sqlite:
                _make_private(Path(str(self._url.database)), Path(queue_url(self._url).removeprefix("sqlite:///")))
            with self._engine.begin() as connection:
                if not self._is_sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENING_LOCK)))
                _prepare_tables(connection, self._shown_url)
        except OSError as error:
            raise SetupError(f"the folder of {self._shown_url} cannot be created: {error}; name another with --jobs, "
                             "or another --state-dir") from error  # fmt: skip
        except sa.exc.SQLAlchemyError as error:
            raise SetupError(
                f"evaluations cannot be kept in {self._shown_url}: {error_text(error)}; check --jobs"
            ) from error

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Run a transaction that may write.

        Raises:
            JobsUnreachable: the database does not answer.
        """
        with _unreachable(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a connection that only reads.

        Raises:
            JobsUnreachable: the database does not answer.
        """
        with _unreachable(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def to_json_text(values: Sequence[Metric | PanelResult | GateOutcome]) -> str:
    """Encode values for a JSON column."""
    return json.dumps([each.to_json() for each in values], separators=(",", ":"), allow_nan=False)


def read_record(row: sa.RowMapping, keep_s: float) -> Record:
    """Build a record from a row; lists that were not selected are empty. `keep_s`: how long ended ones are kept."""
    lists = {name: json.loads(row.get(name, "[]")) for name in ("metrics", "panels", "gates")}
    return Record(
        id=row["id"],
        subject=row["subject"],
        request_id=row["request_id"] or "",
        request_digest=row["request_digest"],
        specification=_read_specification(json.loads(row["specification"]), row["model"]),
        state=State(row["state"]),
        reason=row["reason"],
        progress=Progress(
            stage=row["stage"], done=row["done"], total=row["total"], update_unix_s=row["update_unix_s"] or None
        ),
        metrics=tuple(Metric.from_json(each) for each in lists["metrics"]),
        panels=tuple(PanelResult.from_json(each) for each in lists["panels"]),
        gates=tuple(GateOutcome.from_json(each) for each in lists["gates"]),
        create_unix_s=row["create_unix_s"],
        start_unix_s=row["start_unix_s"] or None,
        end_unix_s=row["end_unix_s"] or None,
        expire_unix_s=row["end_unix_s"] + keep_s if row["end_unix_s"] else None,
        report_bytes=row["report_bytes"],
    )


def error_text(error: BaseException) -> str:
    """Return one line about a database error, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:_ERROR_CHARACTERS]


def raise_if_full(error: Exception) -> None:
    """Fail an evaluation whose SQLite file cannot grow; a server without space is waited for instead.

    Raises:
        Failed: the disk is full.
    """
    if "disk is full" in str(error):  # SQLite's message
        raise Failed("no space left for the database of evaluations; free some, and evaluate again") from error


def _sqlite_engine(url: URL) -> sa.Engine:
    # Only one thread uses a connection at a time; the pool passes it from one to the next.
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S, "check_same_thread": False}, pool_size=_POOL_SIZE)
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin_immediate)
    return engine


def _postgresql_engine(url: URL) -> sa.Engine:
    timeouts = {"connect_timeout": _CONNECT_S, "keepalives_idle": _CONNECT_S, "tcp_user_timeout": _SILENT_MS}
    return sa.create_engine(
        url,
        connect_args=timeouts,
        pool_size=_POOL_SIZE,
        pool_pre_ping=True,
        pool_timeout=_CONNECT_S,
        max_overflow=_POOL_SIZE,
    )


def _set_up_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # `_begin_immediate` begins transactions
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: sa.Connection) -> None:
    if connection.get_isolation_level() != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # a deferred transaction could fail at its first write


@contextmanager
def _unreachable() -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.SQLAlchemyError as error:
        raise JobsUnreachable(f"the database of evaluations does not answer: {error_text(error)}") from error


def _prepare_tables(connection: sa.Connection, shown_url: str) -> None:
    existing = set(sa.inspect(connection).get_table_names())
    if layout.name in existing:
        versions = connection.execute(sa.select(layout.c.version)).scalars().all()
        if versions == [1]:
            for statement in _UPGRADE_FROM_1:
                connection.exec_driver_sql(statement)
            connection.execute(sa.update(layout).values(version=LAYOUT))
        elif versions != [LAYOUT]:
            found = ", ".join(map(str, versions)) or "none"
            raise SetupError(f"{shown_url} has layout {found} of evaluations, and this Fount reads {LAYOUT}; "
                             "use the version that created it, or name another database with --jobs")  # fmt: skip
        return
    if foreign := sorted(existing & set(metadata.tables)):
        raise SetupError(f"{shown_url} has tables named {', '.join(foreign)} that Fount did not create, or that have "
                         "an unknown layout; name another database with --jobs")  # fmt: skip
    metadata.create_all(connection)
    connection.execute(sa.insert(layout).values(version=LAYOUT))


def _read_specification(value: Mapping[str, Any], model: str) -> Specification:
    """Read a specification for display: one of another format is read as far as possible."""
    try:
        read = Specification.from_json({**value, "format": FORMAT})
    except ValueError:
        return _unreadable_specification(model, value.get("format"))
    return replace(read, format=value["format"])


def _unreadable_specification(model: str, written_format: Any) -> Specification:
    unknown = PinnedModel(name="", version="", digest="", numerics="")
    texts = ("dataset", "dataset_digest", "training_split", "held_out_split", "code_version")
    lists = ("model_labels", "classifier_labels", "classes", "panels", "gates")
    fields: dict[str, Any] = dict.fromkeys(texts, "") | dict.fromkeys(lists, ())
    return Specification(
        model=replace(unknown, name=model),
        extractor=unknown,
        classifier=unknown,
        image_shape=(0, 0, 0),
        training_rows=0,
        held_out_rows=0,
        count=0,
        seed=0,
        parameters=Parameters(),
        format=written_format if isinstance(written_format, int) else 0,
        **fields,
    )

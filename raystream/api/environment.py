"""The environment: where a job begins, and what submits it.

An environment holds the configuration and one logical graph at a time.  A call of
`execute` or `submit` makes a plan of the graph, gives it to a runner and begins a new
graph, so that a script may run several jobs one after the other.
"""

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, Unpack

from raystream.api import ambient
from raystream.api.bindings import bound
from raystream.api.client import (
    TERMINAL,
    Collector,
    EnoughCollectedError,
    JobClient,
    JobResult,
    print_lines,
    runner_named,
)
from raystream.api.explain import explain_plan
from raystream.api.factories import OperatorFactory
from raystream.api.operator_options import (
    OperatorOptions,
    chain_hint,
    checked_name,
    makes_dead_letters,
    sharing_group,
)
from raystream.api.runner import Runner, Submission
from raystream.api.stream import DataStream
from raystream.config.load import load_config
from raystream.config.options import JobConfig
from raystream.errors import ConfigError, GraphError
from raystream.graph.chaining import plan_job
from raystream.graph.logical import LogicalGraph, LogicalNode, OperatorKind, Upstream, is_text
from raystream.graph.physical import PhysicalPlan
from raystream.ids import JobStatus, draw_job_id
from raystream.operators.dead_letters import DEAD_LETTERS, DeadLetter
from raystream.operators.sink_operator import SinkOperator
from raystream.operators.source import Source
from raystream.operators.source_operator import SourceOperator
from raystream.operators.watermarks import WatermarkStrategy, checked_strategy
from raystream.storage.latest import LATEST
from raystream.storage.stores import to_url

logger = logging.getLogger(__name__)

T = TypeVar("T")


class StreamEnvironment:
    """Builds a job and runs it.

    Args:
        config: a YAML file, a mapping of configuration keys, or a `JobConfig`.
        runner: "ray", "local", or an object that runs jobs.
        parallelism: number of subtasks of operators that do not say one.
        options: any configuration key, `.` and `-` written as `_`
            (`execution_checkpointing_interval="30s"`).

    Keyword arguments win over `-D` of the command line, that over files, those over defaults.

    Raises:
        ConfigError: a file, key or value that cannot be used.

    Example:
        >>> env = StreamEnvironment(runner="local", parallelism=2)
        >>> env.config.parallelism
        2
    """

    def __init__(
        self,
        config: ambient.ConfigSource | None = None,
        *,
        runner: str | Runner | None = None,
        parallelism: int | None = None,
        **options: object,
    ) -> None:
        named: dict[str, object] = {
            "execution_runner": runner if isinstance(runner, str) else None,
            "parallelism_default": parallelism,
        }
        keywords = {**options, **{key: value for key, value in named.items() if value is not None}}
        self._config = ambient.current().load(config, keywords)
        self._runner = None if isinstance(runner, str) else runner
        self._graph = LogicalGraph()

    @property
    def config(self) -> JobConfig:
        """The configuration, of all layers together."""
        return self._config

    def from_source(
        self,
        source: Source,
        *,
        watermarks: WatermarkStrategy | None = None,
        **options: Unpack[OperatorOptions],
    ) -> DataStream[Any]:
        """Return the stream of the records of a source.

        Args:
            source: where they come from.
            watermarks: how their event time is found, in each split of the source by itself.
            options: as for every operator.

        Raises:
            GraphError: the argument is not a source, or the watermarks are not given as a strategy.
        """
        if isinstance(source, type) or not callable(getattr(source, "open_reader", None)):
            raise GraphError(
                "argument of from_source is not a source",
                hint="pass an object of a source class, such as FileSource.lines(path)",
                argument=repr(source)[:80],
            )
        arguments: tuple[Any, ...] = ()
        if watermarks is not None:
            arguments = checked_strategy(watermarks), self._config.pipeline.auto_watermark_interval_ms
        factory = OperatorFactory(SourceOperator, source, arguments)
        return self._add_source(factory, "from_source", type(source).__name__, options)

    def from_collection(self, collection: Iterable[T], **options: Unpack[OperatorOptions]) -> DataStream[T]:
        """Return the stream of the records of a collection; it is read now, and shipped with the job.

        Its parallelism is 1 by default, so that the records keep their order.
        """
        if not isinstance(collection, Iterable):
            raise GraphError("argument of from_collection cannot be iterated", argument=repr(collection)[:80])
        options = {"parallelism": 1, **options}
        factory = OperatorFactory(SourceOperator, bound("collection-source")(collection))
        return self._add_source(factory, "from_collection", "collection", options)

    def dead_letters(self) -> DataStream[DeadLetter]:
        """Return the dead letters of all operators so far that have `on_error="dead-letter"`.

        Raises:
            GraphError: there are none.
        """
        makers = [node.id for node in self._graph if node.dead_letters]
        if not makers:
            raise GraphError(
                "dead letters of a job that makes none",
                hint='say on_error="dead-letter" at an operator first: map(parse, on_error="dead-letter")',
            )
        return DataStream(self, self._graph, tuple(Upstream(node=node, tag=DEAD_LETTERS) for node in makers))

    def execute(self, name: str | None = None) -> JobResult:
        """Run the job to its end, or, under `raystream run --detached`, until all slots run.

        A Ctrl-C meanwhile cancels the job.

        Args:
            name: of the job; by default that of the script.

        Raises:
            GraphError: the program does not describe a job that can run.
            ConfigError: the job cannot start as configured.
            JobFailedError: the job failed; with the operator and the traceback of the user's code.
        """
        client = self.submit(name)
        if ambient.current().detached:
            return client.wait_until(frozenset({JobStatus.RUNNING}), None, print_lines)
        return _wait_or_cancel(client, client.wait)

    def submit(self, name: str | None = None) -> JobClient:
        """Start the job and return at once; errors as for `execute`, except those of the running job."""
        plan = self._plan()
        _warn_about_generated_uids(plan, self._config)
        return self._submit(name, plan, self._config)

    def explain(self) -> str:
        """Return the plan of the job as text, without running it; errors as for `execute`."""
        return explain_plan(self._plan(), slot_cpus=self._config.slot.cpus)

    def _submit(
        self, name: str | None, plan: PhysicalPlan, config: JobConfig, *, collects: bool = False
    ) -> JobClient:
        around = ambient.current()
        job_name = name or _script_name()
        if not is_text(job_name):
            raise GraphError(
                "name of a job is not a text", hint="snapshots and the job log hold it as UTF-8", name=name
            )
        _check_sources(plan, config)
        _check_sinks(self._graph, config)
        runner = around.runner or self._runner or runner_named(config.runner)
        handle = runner.submit(
            Submission(
                job_id=draw_job_id(),
                name=job_name,
                plan=plan,
                config=_with_absolute_paths(config),
                detached=around.detached,
                address=around.address,
                collects=collects,
            )
        )
        self._graph.seal(job_name)
        self._graph = LogicalGraph()
        around.submitted.append(handle.job_id)
        return JobClient(handle)

    def _plan(self) -> PhysicalPlan:
        _check_ends(self._graph)
        return plan_job(
            self._graph,
            parallelism=self._config.parallelism,
            max_parallelism=self._config.max_parallelism,
        )

    def _add_source(
        self, factory: OperatorFactory, operation: str, name: str, options: OperatorOptions
    ) -> DataStream[Any]:
        node = LogicalNode(
            id=self._graph.next_id(),
            kind=OperatorKind.SOURCE,
            chain=chain_hint(options, operation),
            name=checked_name(options, operation, name),
            factory=factory,
            upstreams=(),
            uid=options.get("uid"),
            parallelism=options.get("parallelism"),
            max_parallelism=options.get("max_parallelism"),
            slot_sharing_group=sharing_group(options),
            stateful=True,
            source=factory.function,
            dead_letters=makes_dead_letters(options, operation, OperatorKind.SOURCE),
        )
        self._graph.add(node)
        return DataStream(self, self._graph, (Upstream(node=node.id),))

    def _collect(self, stream: DataStream[T], limit: int | None) -> list[T]:
        """Run the job with the stream going to the client; see `DataStream.execute_and_collect`."""
        if limit is not None and limit < 1:
            raise GraphError("limit of execute_and_collect is below 1", limit=limit)
        endless = not all(node.source.bounded for node in self._graph if node.source is not None)
        if endless and limit is None:
            raise GraphError(
                "execute_and_collect of a stream that never ends",
                hint="say how many records you want: execute_and_collect(limit=100)",
            )
        stream._collect_to(bound("collect-sink")(), limit)
        collector = Collector(limit)
        config = _delivering(self._config) if endless else self._config
        client = self._submit(None, self._plan(), config, collects=True)
        try:
            _wait_or_cancel(client, lambda: client.wait_until(TERMINAL, None, collector))
        except EnoughCollectedError:
            client.cancel()
            client.wait_until(TERMINAL, None, collector.drop_values)
        return collector.values if limit is None else collector.values[:limit]


COLLECT_INTERVAL_MS = 200
"""Time between two deliveries of an endless stream's records to the client."""


def _delivering(config: JobConfig) -> JobConfig:
    """Return the configuration with checkpoints, at which collected records are delivered."""
    if config.checkpointing.interval_ms is not None:
        return config
    delivery = {
        "execution_checkpointing_interval": f"{COLLECT_INTERVAL_MS}ms",
        "restart_strategy_type": config.restart.type,  # Not the one that comes with checkpoints.
    }
    return load_config(config, keywords=delivery)


def _wait_or_cancel(client: JobClient, wait: Callable[[], JobResult]) -> JobResult:
    """Wait for the job's end; an interrupt cancels the job, a second one leaves it."""
    try:
        return wait()
    except KeyboardInterrupt:
        client.cancel()
        client.wait_until(TERMINAL, None, print_lines)
        raise


def _script_name() -> str:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(path).stem if path else "job"


def _with_absolute_paths(config: JobConfig) -> JobConfig:
    """Return the configuration as processes with another working directory understand it."""
    checkpointing, path = config.checkpointing, config.recovery.path
    directory, savepoints = checkpointing.directory, checkpointing.savepoint_directory
    return replace(
        config,
        checkpointing=replace(
            checkpointing,
            directory=None if directory is None else to_url(directory),
            savepoint_directory=None if savepoints is None else to_url(savepoints),
        ),
        recovery=replace(config.recovery, path=path if path is None or path == LATEST else to_url(path)),
    )


def _check_ends(graph: LogicalGraph) -> None:
    """Refuse a job whose records all go nowhere, and warn of operators whose records do.

    An operator that works by its side effects may be meant to have no sink, so it runs (Flink does the same).

    Raises:
        GraphError: there are operators, but no sink, or dead letters without one.
    """
    read = {upstream.node for node in graph for upstream in node.upstreams}
    sinks = [node for node in graph if node.kind is OperatorKind.SINK]
    loose = [node.label for node in graph if node.id not in read and node.kind is not OperatorKind.SINK]
    if loose and not sinks:
        raise GraphError(
            "stream has no sink",
            hint="end it with .sink_to(...) or .print(); DiscardSink() drops what nobody needs",
            operator=", ".join(loose),
        )
    read_letters = {up.node for node in graph for up in node.upstreams if up.tag == DEAD_LETTERS}
    lost = [node.label for node in graph if node.dead_letters and node.id not in read_letters]
    if lost:
        raise GraphError(
            "dead letters have no sink",
            hint='end them too: env.dead_letters().sink_to(FileSink.json_lines("dead-letters"))',
            operator=", ".join(lost),
        )
    for operator in loose:
        logger.warning("stream has no sink, its records go nowhere", extra={"operator": operator})


def _check_sources(plan: PhysicalPlan, config: JobConfig) -> None:
    """Refuse sources that cannot be read again where a restart would have to.

    Raises:
        ConfigError: checkpointing is on and a source has no positions to return to.
    """
    if config.checkpointing.interval_ms is None:
        return
    for vertex in plan.vertices:
        if vertex.source is not None and not vertex.source.rewindable:
            raise ConfigError(
                "source cannot be read again from a position, which exactly-once needs",
                hint="use a source that can, or switch checkpointing off",
                operator=vertex.operators[0].name,
            )


def _check_sinks(graph: LogicalGraph, config: JobConfig) -> None:
    """Refuse a job whose output would never become visible.

    Raises:
        ConfigError: a sink commits at checkpoints, there are none, and the input never ends.
    """
    endless = any(node.source is not None and not node.source.bounded for node in graph)
    if config.checkpointing.interval_ms is not None or not endless:
        return
    for node in graph:
        if isinstance(node.factory, OperatorFactory) and node.factory.operator is SinkOperator:
            sink = node.factory.function
            if getattr(sink, "transactional", False):  # A user's sink may not say it.
                raise ConfigError(
                    "sink publishes at checkpoints, but there are none and the input never ends",
                    hint="set execution.checkpointing.interval, 10s for example",
                    operator=node.name,
                )


def _warn_about_generated_uids(plan: PhysicalPlan, config: JobConfig) -> None:
    """Tell which states will be lost when the program's structure changes.

    Sources and sinks have state that lives in checkpoints only, so without them it is no loss.
    """
    checkpoints = config.checkpointing.interval_ms is not None
    names = [
        operator.name
        for vertex in plan.vertices
        for position, operator in enumerate(vertex.operators)
        if operator.uid_generated and operator.stateful and (checkpoints or (vertex.keyed and position == 0))
    ]
    if names:
        logger.warning(
            "operators with state have generated uids; give them uid= to keep state when the job changes",
            extra={"operators": names},
        )

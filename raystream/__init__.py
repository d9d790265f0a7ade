"""Stateful stream jobs in Python on a Ray cluster, exactly once.

Everything that a job imports stands here or in `raystream.connectors`; the rest of the
package is not public.  Ray is imported when the first job is submitted to it.
"""

from raystream.api.bindings import bind as _bind
from raystream.api.checkpointed import CheckpointedFunction
from raystream.api.client import JobClient, JobResult
from raystream.api.co_functions import (
    BroadcastProcessFunction,
    CoFlatMapFunction,
    CoMapFunction,
    CoProcessFunction,
    KeyedBroadcastProcessFunction,
    KeyedCoProcessFunction,
)
from raystream.api.connected import BroadcastConnectedStream, BroadcastStream, ConnectedStreams
from raystream.api.environment import StreamEnvironment
from raystream.api.functions import (
    AggregateFunction,
    FilterFunction,
    FlatMapFunction,
    KeyedProcessFunction,
    MapFunction,
    ProcessFunction,
    ReduceFunction,
)
from raystream.api.side_outputs import OutputTag
from raystream.api.stream import DataStream, KeyedStream, StreamSink
from raystream.clock import TimeDomain
from raystream.config.options import JobConfig
from raystream.errors import (
    CheckpointError,
    ClusterNotFoundError,
    ConfigError,
    GraphError,
    JobFailedError,
    JobNotFoundError,
    KeyTypeError,
    RaystreamError,
    StateError,
    StateRestoreError,
    StorageError,
    UserCodeError,
)
from raystream.graph.slot_sharing import SlotSharingGroup
from raystream.ids import JobStatus
from raystream.metrics.user import Counter, Gauge, Histogram, Meter, MetricGroup
from raystream.operators.dead_letters import DeadLetter
from raystream.operators.two_phase_sink import TwoPhaseCommitSink
from raystream.operators.watermarks import WatermarkStrategy
from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.ttl import StateTtl, TtlCleanup, TtlUpdate, TtlVisibility

_bind("ray", "raystream.cluster.client:RayRunner")
_bind("local", "raystream.runtime.local_cluster:LocalRunner")
_bind("collection-source", "raystream.connectors.basic:CollectionSource")
_bind("collect-receiver", "raystream.connectors.basic:CollectReceiver")
_bind("collect-sink", "raystream.connectors.basic:CollectSink")
_bind("print-sink", "raystream.connectors.basic:PrintSink")

__all__ = [
    "AggregateFunction",
    "AggregatingStateDescriptor",
    "BroadcastConnectedStream",
    "BroadcastProcessFunction",
    "BroadcastStream",
    "CheckpointError",
    "CheckpointedFunction",
    "ClusterNotFoundError",
    "CoFlatMapFunction",
    "CoMapFunction",
    "CoProcessFunction",
    "ConfigError",
    "ConnectedStreams",
    "Counter",
    "DataStream",
    "DeadLetter",
    "FilterFunction",
    "FlatMapFunction",
    "Gauge",
    "GraphError",
    "Histogram",
    "JobClient",
    "JobConfig",
    "JobFailedError",
    "JobNotFoundError",
    "JobResult",
    "JobStatus",
    "KeyTypeError",
    "KeyedBroadcastProcessFunction",
    "KeyedCoProcessFunction",
    "KeyedProcessFunction",
    "KeyedStream",
    "ListStateDescriptor",
    "MapFunction",
    "MapStateDescriptor",
    "Meter",
    "MetricGroup",
    "OutputTag",
    "ProcessFunction",
    "RaystreamError",
    "ReduceFunction",
    "ReducingStateDescriptor",
    "SlotSharingGroup",
    "StateError",
    "StateRestoreError",
    "StateTtl",
    "StorageError",
    "StreamEnvironment",
    "StreamSink",
    "TimeDomain",
    "TtlCleanup",
    "TtlUpdate",
    "TtlVisibility",
    "TwoPhaseCommitSink",
    "UserCodeError",
    "ValueStateDescriptor",
    "WatermarkStrategy",
]

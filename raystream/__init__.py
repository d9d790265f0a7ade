"""Stateful stream jobs in Python on a Ray cluster, exactly once.

Everything that a job imports stands here or in `raystream.connectors`; the rest of the
package is not public.  Ray is imported when the first job is submitted to it.
"""

from raystream.api.bindings import bind as _bind
from raystream.api.client import JobClient, JobResult
from raystream.api.environment import StreamEnvironment
from raystream.api.functions import (
    FilterFunction,
    FlatMapFunction,
    KeyedProcessFunction,
    MapFunction,
    ProcessFunction,
    ReduceFunction,
)
from raystream.api.stream import DataStream, KeyedStream, OutputTag, StreamSink
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
from raystream.ids import JobStatus
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor

_bind("ray", "raystream.cluster.client:RayRunner")
_bind("local", "raystream.runtime.local_cluster:LocalRunner")
_bind("collection-source", "raystream.connectors.basic:CollectionSource")
_bind("collect-receiver", "raystream.connectors.basic:CollectReceiver")
_bind("collect-sink", "raystream.connectors.basic:CollectSink")
_bind("print-sink", "raystream.connectors.basic:PrintSink")

__all__ = [
    "CheckpointError",
    "ClusterNotFoundError",
    "ConfigError",
    "DataStream",
    "FilterFunction",
    "FlatMapFunction",
    "GraphError",
    "JobClient",
    "JobConfig",
    "JobFailedError",
    "JobNotFoundError",
    "JobResult",
    "JobStatus",
    "KeyTypeError",
    "KeyedProcessFunction",
    "KeyedStream",
    "ListStateDescriptor",
    "MapFunction",
    "MapStateDescriptor",
    "OutputTag",
    "ProcessFunction",
    "RaystreamError",
    "ReduceFunction",
    "StateError",
    "StateRestoreError",
    "StorageError",
    "StreamEnvironment",
    "StreamSink",
    "UserCodeError",
    "ValueStateDescriptor",
]

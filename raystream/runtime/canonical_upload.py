"""The state of one operator subtask on its way into a canonical savepoint: chunks become parts, parts files.

The files are written by whoever made the upload (`raystream.runtime.upload`), which can stop it between two
chunks and two pieces of a file.
"""

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from raystream.graph.physical import Vertex
from raystream.handles import (
    FileHandle,
    InlineHandle,
    KeyedStateHandle,
    NamedFile,
    OperatorStateHandle,
)
from raystream.ids import OperatorUid
from raystream.keygroup import groups_of_subtask
from raystream.state.backend import KeyedSnapshot
from raystream.state.canonical_files import NewFile, Part
from raystream.state.canonical_operators import OperatorPartHead, write_operator_part
from raystream.state.canonical_part import SubtaskHead
from raystream.state.canonical_snapshot import PartsWriter, encode_index
from raystream.state.operator_state import OperatorState
from raystream.storage.layout import part_file


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalUpload:
    """Stores the state of one operator subtask.

    Attributes:
        vertex: that the operator belongs to.
        created_ms: wall time at which the savepoint was triggered.
        look: raises when nothing more is to be written.
        store: stores a part under a path in the savepoint.
    """

    uid: OperatorUid
    vertex: Vertex
    subtask: int
    created_ms: int
    look: Callable[[], None]
    store: Callable[[str, Part], FileHandle]

    def keyed(self, snapshot: KeyedSnapshot) -> KeyedStateHandle:
        """Store keyed state.

        Raises:
            StateError: a value is too large for Parquet, or the local disk failed.
            StorageError: the store refused.
        """
        max_parallelism = self.vertex.max_parallelism
        groups = groups_of_subtask(self.subtask, max_parallelism, self.vertex.parallelism)
        head = SubtaskHead(
            uid=self.uid,
            subtask=self.subtask,
            groups=groups,
            max_parallelism=max_parallelism,
            taken=snapshot.taken,
        )
        writer = PartsWriter(head, snapshot.states, _files_in(snapshot.local_directory))
        try:
            for state, group, chunk in snapshot.chunks():
                self.look()
                writer.add(state, group, chunk)
            parts = writer.finish()
            files = tuple(
                NamedFile(
                    local=written.local,
                    file=self.store(part_file(self.uid, written.info.name, self.subtask), written.part),
                )
                for written in parts
            )
        finally:
            writer.discard()
        return KeyedStateHandle(
            groups=groups,
            entries=sum(written.part.entries for written in parts),
            data=InlineHandle(data=encode_index(writer.index(parts))),
            files=files,
        )

    def operator(self, state: OperatorState, keyed: Collection[str]) -> OperatorStateHandle:
        """Store operator state.

        Args:
            state: encoded.
            keyed: names of keyed states of the operator, which may be the same.

        Raises:
            StateError: a value is too large for Parquet, or the local disk failed.
            StorageError: the store refused.
        """
        self.look()
        head = OperatorPartHead(
            uid=self.uid,
            subtask=self.subtask,
            max_parallelism=self.vertex.max_parallelism,
            taken_ms=self.created_ms,
        )
        # A file beside that of the keyed state; no state of a program has this name.
        name = f"_operator_{state.name}" if state.name in keyed else state.name
        part = write_operator_part(head, state, _files_in(None))
        try:
            handle = self.store(part_file(self.uid, name, self.subtask), part)
        finally:
            part.close()
        return OperatorStateHandle(
            name=state.name, mode=state.mode, element_count=len(state.elements), data=handle
        )


def _files_in(directory: Path | None) -> NewFile:
    def new_file() -> IO[bytes]:
        return tempfile.TemporaryFile(dir=directory)

    return new_file

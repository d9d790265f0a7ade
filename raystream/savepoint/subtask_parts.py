"""The state of one operator subtask as parts of a canonical savepoint: chunks become parts, parts files.

The files are written by whoever stores the savepoint: the upload of a snapshot (`raystream.runtime.upload`),
which can stop it between two chunks and two pieces of a file, or a program (`raystream.savepoint.write`).
"""

import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from raystream.handles import (
    FileHandle,
    Footer,
    InlineHandle,
    KeyedStateHandle,
    NamedFile,
    OperatorStateHandle,
    StateInfo,
)
from raystream.ids import OperatorUid
from raystream.keygroup import groups_of_subtask
from raystream.state.canonical_files import NewFile, Part
from raystream.state.canonical_index import encode_index
from raystream.state.canonical_operators import OperatorPartHead, write_operator_part
from raystream.state.canonical_part import SubtaskHead
from raystream.state.canonical_snapshot import PartsWriter
from raystream.state.chunk_form import Chunk
from raystream.state.operator_state import OperatorState
from raystream.state.ttl import Moment
from raystream.storage.layout import part_file


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtaskParts:
    """Stores the state of one operator subtask.

    Attributes:
        max_parallelism: number of key groups of the operator.
        parallelism: number of its subtasks.
        created_ms: wall time at which the savepoint was triggered.
        store: stores a part, which its handle describes.
        look: raises when nothing more is to be written.
    """

    uid: OperatorUid
    subtask: int
    max_parallelism: int
    parallelism: int
    created_ms: int
    store: Callable[[FileHandle, Part], None]
    look: Callable[[], None]

    def keyed(
        self,
        states: Sequence[StateInfo],
        chunks: Iterable[tuple[int, int, Chunk]],
        *,
        taken: Moment,
        directory: Path | None = None,
    ) -> KeyedStateHandle:
        """Store keyed state.

        Args:
            states: all, also those without chunks.
            chunks: each behind the position of its state and its key group, which do not fall in a state.
            taken: time of the snapshot.
            directory: for local files; the temporary one by default.

        Raises:
            StateCorruptError: a chunk is not what its form says.
            StateError: a value is too large for Parquet, or the local disk failed.
            StorageError: the store refused.
        """
        groups = groups_of_subtask(self.subtask, self.max_parallelism, self.parallelism)
        head = SubtaskHead(
            uid=self.uid,
            subtask=self.subtask,
            groups=groups,
            max_parallelism=self.max_parallelism,
            taken=taken,
        )
        writer = PartsWriter(head, states, _files_in(directory))
        try:
            for state, group, chunk in chunks:
                self.look()
                writer.add(state, group, chunk)
            parts = writer.finish()
            files = tuple(
                NamedFile(
                    local=written.local,
                    file=self._stored(written.info.name, written.part),
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
            max_parallelism=self.max_parallelism,
            taken_ms=self.created_ms,
        )
        # A file beside that of the keyed state; no state of a program has this name.
        name = f"_operator_{state.name}" if state.name in keyed else state.name
        part = write_operator_part(head, state, _files_in(None))
        try:
            handle = self._stored(name, part)
        finally:
            part.close()
        return OperatorStateHandle(
            name=state.name, mode=state.mode, element_count=len(state.elements), data=handle
        )

    def _stored(self, name: str, part: Part) -> FileHandle:
        handle = FileHandle(
            path=part_file(self.uid, name, self.subtask),
            size_bytes=part.size_bytes,
            checksum=part.checksum,
            footer=Footer(size_bytes=part.footer_bytes, checksum=part.footer_checksum),
        )
        self.store(handle, part)
        return handle


def _files_in(directory: Path | None) -> NewFile:
    def new_file() -> IO[bytes]:
        return tempfile.TemporaryFile(dir=directory)

    return new_file

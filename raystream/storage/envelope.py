"""The envelope of every JSON file that we store: what it is, its format version, its checksum.

    {"raystream":"snapshot","format":1,"checksum":"<16 hex>","content":{...}}

Knows no content.  The envelope itself never changes, so that any version of raystream can say
of any file whether it is whole and whether it is too new.  The checksum (xxh3-64) covers kind,
version and the bytes of the content as they stand: a cut file or a flipped bit is found before
anything is decoded.
"""

import msgspec
import xxhash

from raystream.errors import StateCorruptError, StateRestoreError


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    raystream: str
    format: int
    checksum: str
    content: msgspec.Raw


_DECODER = msgspec.json.Decoder(_Envelope)


def seal(kind: str, version: int, content: bytes) -> bytes:
    """Return the bytes of a file around a JSON document.

    Args:
        kind: what the file is; letters and `-`.
        version: format version of the content.
        content: one JSON value.
    """
    checksum = _checksum(kind, version, content)
    head = f'{{"raystream":"{kind}","format":{version},"checksum":"{checksum}","content":'
    return b"".join((head.encode(), content, b"}"))


def unseal(kind: str, version: int, data: bytes, *, path: str) -> tuple[int, bytes]:
    """Return the format version and the content of a file.

    Args:
        kind: what the file has to be.
        version: the version that we write; that one and the one before are read.
        data: the whole file.
        path: named in errors.

    Raises:
        StateCorruptError: the file is damaged.
        StateRestoreError: the file is something else, or of a version that is not read.
    """
    try:
        envelope = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if data.startswith(b'{"raystream":'):
            raise StateCorruptError(
                f"{kind} file is damaged", path=path, cause=str(error), hint=_DAMAGED
            ) from error
        raise StateRestoreError(f"file is not a raystream {kind}", path=path, hint=_OTHER) from error
    content = bytes(envelope.content)
    if envelope.checksum != _checksum(envelope.raystream, envelope.format, content):
        raise StateCorruptError(
            f"{kind} file is damaged", path=path, cause="checksum does not match", hint=_DAMAGED
        )
    if envelope.raystream != kind:
        raise StateRestoreError(
            f"file is not a raystream {kind}", path=path, found=envelope.raystream, hint=_OTHER
        )
    if envelope.format > version:
        raise StateRestoreError(
            f"{kind} file has a newer format than this version of raystream reads",
            path=path,
            format=envelope.format,
            newest_readable=version,
            hint="upgrade raystream to the version that wrote it, or newer",
        )
    if envelope.format < max(1, version - 1):
        raise StateRestoreError(
            f"{kind} file has an older format than this version of raystream reads",
            path=path,
            format=envelope.format,
            oldest_readable=max(1, version - 1),
            hint="restore and save it with the version of raystream in between",
        )
    return envelope.format, content


_DAMAGED = "restore the file from a backup, or start from another checkpoint or savepoint"
_OTHER = "give the directory of a checkpoint or savepoint, or the _metadata file in it"


def _checksum(kind: str, version: int, content: bytes) -> str:
    hasher = xxhash.xxh3_64(f"{kind} {version} ".encode())
    hasher.update(content)
    return hasher.hexdigest()

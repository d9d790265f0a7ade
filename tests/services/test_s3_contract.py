"""Object stores keep the promises that every store makes."""

from tests.unit.storage.contract import FileSystemContract


class TestObjectStores(FileSystemContract):
    """Runs the contract against every server."""

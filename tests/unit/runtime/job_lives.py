"""Job masters that begin where another one has died."""

from tests.unit.runtime.coordinator_world import World


def next_life(directory, *, at_ms=0, **options):
    """Return the world of a job master that begins where another one has died, after its first restart."""
    world = World(directory, **options)
    world.clock.now_ms = at_ms
    return world.start().restart()


def restored(world):
    """Return the directories that the last attempt restores from."""
    return {
        part.directory
        for subtasks in world.restored.values()
        for restore in subtasks.values()
        for part in restore.values()
    }

"""A job that sets timers of both kinds for each of its records, and what it publishes."""

from raystream import KeyedProcessFunction, MapStateDescriptor, WatermarkStrategy
from raystream.connectors.files import FileSink

KEYS = 13


class Remind(KeyedProcessFunction):
    """Publishes `[key, time]` of each timer of event time, and each record, which a timer of processing
    time releases, or else the end of the input."""

    def open(self, ctx):
        self.held = ctx.get_map_state(MapStateDescriptor("held", int))

    def process_element(self, value, ctx):
        self.held[value] = None
        ctx.timers.register_event_time(value)
        ctx.timers.register_event_time(value)
        ctx.timers.register_event_time(1 << 60)
        ctx.timers.register_processing_time(ctx.timers.current_processing_time + value % 50)

    def on_timer(self, timestamp, ctx):
        if timestamp < 1 << 40:
            yield ctx.current_key, timestamp
        else:
            yield from self.held
            self.held.clear()


STRATEGY = WatermarkStrategy.for_bounded_out_of_orderness("1s").with_timestamp_assigner(lambda value: value)


def add_reminders(env, source, out, strategy=STRATEGY, parse=lambda value: value):
    """Add the job to an environment; every value passes through `parse`."""
    values = env.from_source(source, watermarks=strategy, name="values", uid="values").map(parse)
    reminders = values.key_by(lambda value: value % KEYS).process(Remind(), name="remind", uid="remind")
    reminders.sink_to(FileSink.json_lines(str(out)), name="out", uid="out")


def expected(values):
    """Return, sorted, what the job publishes for distinct values."""
    return sorted([*([value % KEYS, value] for value in values), *values], key=repr)

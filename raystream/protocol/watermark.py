"""Event time of one subtask, from the watermarks of its input channels: the state machine.

            the last open channel falls idle: forward the highest watermark of all, then idle
    ACTIVE ------------------------------------------------------------------------------------> IDLE
      ^ |                                                                                         |
      | +-- watermark, idle, active or end of a channel: forward the minimum, if it has grown     |
      +-------------------------------------------------------------------------------------------+
            an idle channel becomes active, or the last open one has ended: forward active

A channel is *open* until it has ended; one that has ended, or has sent the last watermark there is,
stands for every time to come and keeps nobody waiting, so it counts neither as idle nor as active.
The event time of the subtask is the minimum over the channels that are open and active.  A channel
that comes back from idleness behind the event time that was reached meanwhile does not count until
it has caught up: event time never goes back, and does not stand still for it either.

When the last active channel falls idle, event time goes on to the highest watermark of all, which is
what it would have been had the channels fallen idle in another order.

Source: Flink `StatusWatermarkValve`, except that a channel that has sent the last watermark no
longer counts, so that an input that has ended does not declare the time of an idle one to be over.
"""

from dataclasses import dataclass

from raystream.protocol.history import History

BEGINNING_MS = -(1 << 63)
"""Event time before the first watermark."""
END_MS = (1 << 63) - 1
"""Event time when no record can follow."""


@dataclass(frozen=True, slots=True)
class ForwardWatermark:
    """Event time has come to here: fire timers, then tell every output."""

    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class ForwardIdle:
    """Tell every output not to wait for this subtask."""


@dataclass(frozen=True, slots=True)
class ForwardActive:
    """Tell every output to wait for this subtask again."""


Command = ForwardWatermark | ForwardIdle | ForwardActive


class WatermarkValve:
    """Decides when event time passes on, given watermarks and idleness of the input channels.

    Invariant: the watermarks that it forwards grow, and idle and active are forwarded in turn.

    Args:
        channel_count: input channels of the subtask, at least 1.
    """

    def __init__(self, channel_count: int) -> None:
        assert channel_count > 0, "a subtask without inputs has no watermarks to join"
        self._watermarks_ms = [BEGINNING_MS] * channel_count
        self._idle = [False] * channel_count
        self._event_time_ms = BEGINNING_MS
        self._forwarded_idle = False
        self._history: History[Command] = History()

    @property
    def event_time_ms(self) -> int:
        """The watermark that was forwarded last."""
        return self._event_time_ms

    def watermark_received(self, channel: int, timestamp_ms: int) -> list[Command]:
        """Handle a watermark; one that is not above the channel's last is ignored.

        Raises:
            ProtocolError: the channel said that it is idle, and not that it is active again.
        """
        if self._idle[channel] and timestamp_ms < END_MS:
            raise self._history.broken("watermark on an idle channel", channel=channel, at_ms=timestamp_ms)
        self._watermarks_ms[channel] = max(self._watermarks_ms[channel], timestamp_ms)
        return self._history.done("watermark_received", (channel, timestamp_ms), self._pass_on())

    def idle_received(self, channel: int) -> list[Command]:
        """Handle word that a channel will be silent for a while."""
        self._idle[channel] = True
        return self._history.done("idle_received", channel, self._pass_on())

    def active_received(self, channel: int) -> list[Command]:
        """Handle word that a channel is not silent any more."""
        self._idle[channel] = False
        return self._history.done("active_received", channel, self._pass_on())

    def channel_ended(self, channel: int) -> list[Command]:
        """Handle the end of a channel: no record will come that could be early for any watermark."""
        self._watermarks_ms[channel] = END_MS
        return self._history.done("channel_ended", channel, self._pass_on())

    def validate(self) -> None:
        """Assert every invariant."""
        reached = self._reached_ms()
        assert reached is None or reached <= self._event_time_ms, "event time was not passed on"
        assert self._forwarded_idle == self._all_idle()

    def _pass_on(self) -> list[Command]:
        commands: list[Command] = []
        idle = self._all_idle()
        if self._forwarded_idle and not idle:
            self._forwarded_idle = False
            commands.append(ForwardActive())
        reached = self._reached_ms()
        if reached is not None and reached > self._event_time_ms:
            self._event_time_ms = reached
            commands.append(ForwardWatermark(reached))
        if idle and not self._forwarded_idle:
            self._forwarded_idle = True
            commands.append(ForwardIdle())
        return commands

    def _all_idle(self) -> bool:
        """True when some channel is open and none of those is active."""
        open_idle = [
            idle
            for idle, watermark_ms in zip(self._idle, self._watermarks_ms, strict=True)
            if watermark_ms < END_MS
        ]
        return bool(open_idle) and all(open_idle)

    def _reached_ms(self) -> int | None:
        """Return the event time that the channels stand for; None while all active ones lag behind."""
        open_ms = [watermark_ms for watermark_ms in self._watermarks_ms if watermark_ms < END_MS]
        if not open_ms:
            return END_MS
        if self._all_idle():
            return max(open_ms)
        caught_up = (
            watermark_ms
            for watermark_ms, idle in zip(self._watermarks_ms, self._idle, strict=True)
            if not idle and self._event_time_ms <= watermark_ms < END_MS
        )
        return min(caught_up, default=None)

"""What moves on a channel."""

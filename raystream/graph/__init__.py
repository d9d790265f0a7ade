"""From the user's calls to a physical plan."""

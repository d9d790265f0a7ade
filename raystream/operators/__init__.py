"""What runs inside a subtask, testable without one."""

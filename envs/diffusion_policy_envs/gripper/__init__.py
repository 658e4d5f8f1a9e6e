"""A parallel gripper over a table, which several tasks share: its physics, its pictures, its environment."""

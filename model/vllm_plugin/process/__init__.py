"""Configure the engine's process: executor, preload, parent-death watch."""

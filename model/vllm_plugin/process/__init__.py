"""Run inside the engine's process: executor, preload, parent-death watch, branch scoring."""

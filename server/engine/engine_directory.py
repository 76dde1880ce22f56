"""Hold the files of one engine: vLLM's sockets, and the pipe through which it sends the scores of images."""

import asyncio
import os
import tempfile
from pathlib import Path

from medmoe.model.unlike_training.score_pipe import ScoreReader


class EngineDirectory:
    """A temporary directory for each engine: a killed process does not remove its sockets."""

    def __init__(self) -> None:
        """Tell vLLM where its sockets go, and read the pipe from now on, on the running event loop."""
        self._directory = tempfile.TemporaryDirectory(prefix="medmoe-engine-")
        os.environ["VLLM_RPC_BASE_PATH"] = self._directory.name
        self.scores = ScoreReader(Path(self._directory.name) / "image-scores")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.scores.fileno, self.scores.read)

    def remove(self) -> None:
        """Close the pipe and remove the directory. Call it once, when the engine is gone."""
        self._loop.remove_reader(self.scores.fileno)
        self.scores.close()
        self._directory.cleanup()

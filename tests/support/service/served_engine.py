"""Run the server's `main` over another engine."""

from collections.abc import Callable

import medmoe.server.__main__ as server
from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import Engine
from medmoe.server.settings import Settings


def serve_over(make: Callable[[MedMoEConfig, Prompt], Engine]) -> int:
    """Serve by the settings of the environment with engines from `make`. Returns the exit status."""

    def build_engine(settings: Settings) -> Engine:
        config = MedMoEConfig.from_directory(settings.model)
        return make(config, Prompt.from_directory(settings.model, config))

    server.build_engine = build_engine
    return server.main()

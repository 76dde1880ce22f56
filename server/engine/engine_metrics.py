"""Keep the Prometheus series of one vLLM engine apart from those of the next."""

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

_PREFIX = "vllm:"


class EngineSeries:
    """A registry of one engine's series; vLLM puts all into the process's and drops them for the next engine."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

    def take(self) -> None:
        """Move the series of the engine that was built last out of the process's registry."""
        # vLLM itself finds them in this way.
        for collector in list(REGISTRY._collector_to_names):
            if str(getattr(collector, "_name", "")).startswith(_PREFIX):
                REGISTRY.unregister(collector)
                self._registry.register(collector)

    def exposition(self) -> bytes:
        """Return the engine's series and those of the process in Prometheus' text format."""
        return generate_latest(self._registry) + generate_latest(REGISTRY)

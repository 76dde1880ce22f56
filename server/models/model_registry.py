"""Keep the models of a service: the active one, and another that stands by or was active before."""

from collections.abc import Iterator
from difflib import get_close_matches

from medmoe.server.errors import UnknownModel
from medmoe.server.models.served_model import ServedModel
from medmoe.server.observability.request_record import RequestRecord

_LONGEST_NAME = 256


class ModelRegistry:
    """The active model, which answers requests that name none, and at most one other."""

    def __init__(self, active: ServedModel) -> None:
        self.active = active
        self.other: ServedModel | None = None
        """A model that is loading, stands by, or was active before; None without one."""

    def __iter__(self) -> Iterator[ServedModel]:
        """Iterate over the models, the active one first."""
        yield self.active
        if self.other is not None:
            yield self.other

    def listed(self) -> dict[str, ServedModel]:
        """Return the models that are offered by the names to list.

        The active one has its own name; another of the same name is listed by its pinned name, and once it is ready.
        """
        found = {self.active.name: self.active}
        if self.other is not None and self.other.is_offered:
            same = self.other.name == self.active.name
            found.setdefault(self.other.pinned_name if same else self.other.name, self.other)
        return found

    def pinned(self) -> dict[str, ServedModel]:
        """Return the models by their pinned names; of two with the same weights the active one."""
        return {model.pinned_name: model for model in reversed(tuple(self))}

    def find(self, name: str | None) -> ServedModel:
        """Return the model of a name or a pinned name, the active one for None.

        Of two with one name it is the active one. Raises UnknownModel.
        """
        if name is None:
            return self.active
        listed = self.listed()
        for model in listed.values():
            if name in (model.name, model.pinned_name):
                return model
        near = get_close_matches(name[:_LONGEST_NAME], listed, n=1)
        # The proposal is a name of ours: a message never repeats what a client sent.
        proposal = f"; did you mean {near[0]}?" if near else ""
        raise UnknownModel(f"{UnknownModel.default_message}{proposal}", param="model")

    def choose(self, name: str | None, record: RequestRecord) -> ServedModel:
        """Return the model that answers a request, which counts as its own from now on.

        Raises UnknownModel, and what Readiness.require raises.
        """
        model = self.find(name)
        model.readiness.require()
        model.begin(record)
        return model

    def finished(self, record: RequestRecord) -> None:
        """Stop counting a request that has ended."""
        for model in self:
            model.finished(record)

    def swap(self) -> None:
        """Make the other model the active one, and the active one the other, between two requests."""
        assert self.other is not None
        self.active, self.other = self.other, self.active

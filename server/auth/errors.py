"""Define the failures of authentication and authorisation; medmoe.server.errors draws the whole tree."""

from medmoe.server.auth.scopes import Scope
from medmoe.server.errors import ServerError, TryLater, Unauthenticated


class InvalidToken(Unauthenticated):
    """The bearer token is not a valid token of the identity provider for this service."""

    default_message = "the token is not valid"


class UnknownSigningKey(InvalidToken):
    """The token names a key that the provider did not have when its keys were fetched."""

    default_message = "the provider has no such signing key"


class InsufficientScope(ServerError):
    """The key or token does not have the scope that the route needs."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"this needs the scope {scope}, which the key or token does not have")
        self.scope = scope


class ProviderUnavailable(TryLater):
    """The identity provider's keys are not known yet, because it cannot be reached."""

    default_message = "the identity provider cannot be reached"

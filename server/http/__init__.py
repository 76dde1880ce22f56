"""Handle what every route shares: middleware, bodies, streams, errors."""

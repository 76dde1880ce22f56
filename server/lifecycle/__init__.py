"""Start, supervise, drain and administer the service."""

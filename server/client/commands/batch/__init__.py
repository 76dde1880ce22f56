"""Answer many questions by a service, or by actors on a Ray cluster."""

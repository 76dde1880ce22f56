"""`medmoe ask | classify | stats | batch | bench`: the client at a command line.

Found through the entry points `medmoe.commands`; errors of medmoe.client become one line in
medmoe.model.cli.
"""

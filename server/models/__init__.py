"""Keep the models of a service: each is a checkpoint with its engine and all that its answers depend on."""

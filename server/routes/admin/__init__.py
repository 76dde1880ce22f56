"""Define the routes for operators who change what is served."""

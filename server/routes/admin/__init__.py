"""The routes for operators who change what is served."""

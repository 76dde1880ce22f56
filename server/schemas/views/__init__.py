"""Define the requests and responses of the routes that show an image."""

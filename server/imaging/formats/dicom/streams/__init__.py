"""Split encapsulated pixel data into code streams, read their headers and decode them."""

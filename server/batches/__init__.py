"""Keep files and batches on disk, and answer the lines of batches while no other request waits."""

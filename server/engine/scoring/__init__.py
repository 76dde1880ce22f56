"""Score given answers: the requests for the nodes of their trie, and one forward pass over the tree of their tokens."""

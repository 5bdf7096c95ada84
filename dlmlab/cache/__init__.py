"""Caches: which positions a forward pass computes anew. One paper a file; see `dlmlab.policy` for their contract."""

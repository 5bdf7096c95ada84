"""Triton kernels, for GPUs. Nothing here is imported unless a model asks for it (`dlmlab.model.fast`)."""

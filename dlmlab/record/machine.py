"""The machine that a run is on, and how torch is set there."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

COMMAND_SECONDS = 20.0


def machine() -> dict[str, Any]:
    """Describe the operating system, processor and GPUs."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "os": platform.platform(),
        "cpu": cpu_name(),
        "id": identity(),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": [_describe_gpu(index) for index in range(torch.cuda.device_count())] if cuda else [],
        "driver": _driver() if cuda else None,
        "cuda": torch.version.cuda,
    }


def identity() -> str:
    """Return a name for this machine that tells it from others of the same kind, and tells nothing else of it."""
    try:
        own = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        own = ""
    return hashlib.sha256(f"dlmlab {own or platform.node()}".encode()).hexdigest()[:12]


def cpu_name() -> str:
    """Return the processor's name as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def torch_settings() -> dict[str, Any]:
    """Return the settings that decide torch's precision and determinism."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "fp16_reduced_precision_reduction": torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
        "bf16_reduced_precision_reduction": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "flash_attention": torch.backends.cuda.flash_sdp_enabled(),
        "cudnn_attention": torch.backends.cuda.cudnn_sdp_enabled(),
        "memory_efficient_attention": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "ATEN_CPU_CAPABILITY": os.environ.get("ATEN_CPU_CAPABILITY"),
    }


def _describe_gpu(index: int) -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_properties(index)
    return {"name": gpu.name, "memory_gb": round(gpu.total_memory / 1e9, 1), "capability": f"{gpu.major}.{gpu.minor}"}


def _driver() -> str | None:
    answer = answer_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return answer.splitlines()[0] if answer else None


def answer_of(*command: str) -> str | None:
    """Return what a command prints; None where it is missing, fails or hangs."""
    # Inside a hook, git's variables would name another repository than the command's.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

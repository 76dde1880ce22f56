"""Run vLLM's GPU engine on a CPU: its worker, runner and Triton kernels, in Triton's interpreter.

What has no source in Python or Triton is replaced: CUDA C++ operators (operators.py), streams and events (host_cuda.py)
and the driver (nvml.py). Graphs, FlashAttention, NCCL, memory and speed remain untried.
"""

"""Device code: imported only where Triton is there, and only when a kernel is launched."""

"""Live devices: evidence from GPUs (NVML) and NVSwitches (NSCQ), the system's state, and the ready state.

Nothing is loaded before it is asked for.
"""

"""What a node tells about itself. psutil is imported where it is used: the link is up before."""

from __future__ import annotations

import os
import platform
import socket
import sys
from typing import Any, Final

import msgspec

import fleetwire
from fleetwire.core import limits

_MOUNTS: Final = 64
_ADDRESSES: Final = 64
# Made of memory, or pictures of the kernel: no disk of anybody's.
_NO_DISK: Final = frozenset(
    {"autofs", "cgroup", "cgroup2", "devtmpfs", "nsfs", "overlay", "proc", "squashfs", "sysfs"}
)


def collect() -> dict[str, Any]:
    """Return the facts, at most 64 KiB as JSON. Blocks for some milliseconds; what cannot be
    learnt on this machine is left out. Sizes are bytes, times seconds, shares percent.
    """
    import psutil  # noqa: PLC0415 (see the module)

    memory = psutil.virtual_memory()
    swap = psutil.swap_memory()
    facts: dict[str, Any] = {
        "hostname": socket.gethostname(),
        "os": sys.platform,
        "os_name": _os_name(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "python": platform.python_version(),
        "agent_version": fleetwire.__version__,
        "boot_time": int(psutil.boot_time()),
        "cpu": {
            "count": os.cpu_count() or 1,
            "model": _cpu_model(),
            "percent": psutil.cpu_percent(interval=None),
        },
        "memory": {
            "total": memory.total,
            "available": memory.available,
            "percent": memory.percent,
            "swap_total": swap.total,
            "swap_used": swap.used,
        },
        "disks": _disks(),
        "addresses": _addresses(),
    }
    if hasattr(os, "getloadavg"):
        facts["load"] = [round(value, 2) for value in os.getloadavg()]
    return fitted(facts)


def labels() -> dict[str, str]:
    """Return the labels a node has by its nature."""
    system = {"linux": "linux", "darwin": "darwin", "win32": "windows"}.get(
        sys.platform, sys.platform
    )
    machine = platform.machine().lower()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    return {"os": system, "arch": arch, "hostname": socket.gethostname()}


def load() -> float:
    """Return the load of the last minute, 0 where there is none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def fitted(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts without their longest lists where they would pass the limit."""
    small = dict(facts)
    for key in ("disks", "addresses"):
        if len(msgspec.json.encode(small)) <= limits.INVENTORY_BYTES:
            return small
        small[key] = small.get(key, [])[:8]
    if len(msgspec.json.encode(small)) > limits.INVENTORY_BYTES:
        return {"hostname": str(facts.get("hostname", ""))[:255]}
    return small


def _disks() -> list[dict[str, Any]]:
    import psutil  # noqa: PLC0415 (see the module)

    found = []
    for part in psutil.disk_partitions(all=False)[:_MOUNTS]:
        if part.fstype in _NO_DISK:
            continue
        try:
            usage = psutil.disk_usage(part.mountpoint)
        except OSError:
            continue  # unmounted meanwhile, or not for us to see
        found.append(
            {
                "mount": part.mountpoint,
                "device": part.device,
                "type": part.fstype,
                "total": usage.total,
                "free": usage.free,
                "percent": usage.percent,
            }
        )
    if not found:  # in a container nothing looks like a disk: the root then
        usage = psutil.disk_usage(os.path.abspath(os.sep))
        found.append(
            {"mount": os.sep, "total": usage.total, "free": usage.free, "percent": usage.percent}
        )
    return found


def _addresses() -> list[dict[str, str]]:
    import psutil  # noqa: PLC0415 (see the module)

    found = []
    for interface, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if address.family not in {socket.AF_INET, socket.AF_INET6}:
                continue
            text = address.address.partition("%")[0]
            if not text.startswith(("127.", "fe80:")) and text != "::1":
                found.append({"interface": interface, "address": text})
    return found[:_ADDRESSES]


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return f"{platform.system()} {platform.version()}"[:200]


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in {"model name", "Model"}:
                    return value.strip()
    except OSError:
        return platform.processor()
    return platform.processor()

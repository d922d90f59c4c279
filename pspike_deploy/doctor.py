"""What ``pspike doctor`` finds out: what works on this machine."""

from __future__ import annotations

from typing import Any


def diagnose() -> dict[str, Any]:
    """What works on this machine, as facts and as sentences."""
    import torch

    from pspike_deploy.pipeline import versions
    from pspike_deploy.simulators.lava.environment import describe_environment

    found = versions()
    lava = describe_environment()
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if cuda else None
    if lava["environment"]:
        lava_sentence = f"ready: {lava['environment']['python']}"
        if any("netx" in environment["extras"] for environment in lava["cached"]):
            lava_sentence += "; .net files run, too"
    else:
        lava_sentence = f"not ready; {lava['error']['fix']}"
    return {
        "versions": found,
        "lava": lava,
        "cuda": device,
        "sentences": {
            "Python": found["python"],
            "packages": ", ".join(f"{n} {v}" for n, v in found.items() if n != "python"),
            "reference": f"runs on {device}" if cuda else "runs on the CPU (no CUDA device)",
            "Lava": lava_sentence,
            "platform": lava["note"],
        },
    }

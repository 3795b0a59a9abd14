"""train_sere.py with the FSDP of configs/accelerate/fsdp.yaml, on CPU processes: `torchrun --nproc_per_node 2` this.

accelerate's launcher would ask for GPUs; the plugin it makes of the file does not.
"""

import sys
from pathlib import Path

import yaml
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import train_sere  # noqa: E402
from modeling_sere.training.refining import refinement  # noqa: E402


def make(**options) -> Accelerator:
    settings = yaml.safe_load((ROOT / "configs" / "accelerate" / "fsdp.yaml").read_text())["fsdp_config"]
    settings = {name.removeprefix("fsdp_"): value for name, value in settings.items()} | {
        "fsdp_version": settings["fsdp_version"], "auto_wrap_policy": settings["fsdp_auto_wrap_policy"].lower(),
        "cpu_offload": settings["fsdp_offload_params"],
    }  # fmt: skip
    for name in ("version", "offload_params"):
        settings.pop(name)
    accelerator = Accelerator(**options)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**settings)
    for state in (AcceleratorState, PartialState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    return accelerator


def gather(sharded):
    """Tell how the weights lie before they are brought together."""
    spread = [name for name, weight in sharded.named_parameters() if type(weight).__name__ == "DTensor"]
    layers = {type(module).__name__ for module in sharded.modules() if hasattr(module, "unshard")}
    print("spread:", len(spread), "of", len(list(sharded.parameters())), sorted(layers), flush=True)
    return bring_together(sharded)


bring_together, refinement.gather = refinement.gather, gather
train_sere.Accelerator = make
if __name__ == "__main__":
    train_sere.main()

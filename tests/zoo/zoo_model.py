"""What an entry of the zoo is, and how its module is made with seeded weights."""

import dataclasses
from collections.abc import Callable

import torch

SEED = 20
EXPORT_BATCH = 2
EXPORT_SEQ_LEN = 32
IGNORE_INDEX = -100


@dataclasses.dataclass(frozen=True)
class ZooModel:
    """One entry of the zoo."""

    name: str
    build: Callable[[], torch.nn.Module]
    inputs: tuple[str, ...]
    about: str
    vocab_size: int = 256
    min_seq_len: int = 2
    max_seq_len: int = 8192
    dynamic: bool = True
    # Predicts hidden tokens in place, so only some positions have a label.
    is_masked_lm: bool = False
    # Its inputs are images, of which only the batch may change.
    is_image: bool = False
    dtype: torch.dtype = torch.float32
    # The fp32 module whose numbers the references hold, where it is not `build` itself.
    build_oracle: Callable[[], torch.nn.Module] | None = None
    # Which reference files are written. `llama_static` has the weights and numbers of `llama`;
    # with dropout there are no numbers that a test could hold.
    references: tuple[str, ...] = ("batch", "other_shape", "train")
    # The archive carries no weights: its parameters are exported as fake tensors.
    is_graph_only: bool = False
    # Stored as briefly as possible: no outer frames and modules, every reference sampled.
    is_brief: bool = False
    # Larger than the weights in the repository should be: exported only when asked for by name.
    is_on_demand: bool = False


def initialize(entry: ZooModel) -> torch.nn.Module:
    """The entry's module with its seeded weights, in training mode."""
    torch.manual_seed(SEED)
    module = entry.build()
    # Libraries start norms at one and biases at zero, which would hide a forgotten one.
    generator = torch.Generator().manual_seed(SEED + 1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.to(entry.dtype).train()


def initialize_oracle(entry: ZooModel) -> torch.nn.Module:
    """The fp32 module with exactly the weights of the entry's archive."""
    module = (entry.build_oracle or entry.build)()
    module.load_state_dict(initialize(entry).state_dict())
    return module.float().train()


def dynamic_shapes(entry: ZooModel):
    """Batch and sequence of every input are symbols, unless the entry is static."""
    if not entry.dynamic:
        return None
    batch = torch.export.Dim("batch", min=1, max=1024)
    seq_len = torch.export.Dim("seq_len", min=entry.min_seq_len, max=entry.max_seq_len)
    if entry.is_image:
        return {name: {0: batch} for name in entry.inputs}
    return {
        name: {0: batch} if name == "patches" else {0: batch, 1: seq_len} for name in entry.inputs
    }

"""Sequence-parallel training of the benchmark's Llama in PyTorch: Ulysses over gloo.

    python ulysses_llama.py --world-size=2 --threads=1 --seq-len=4096 --json
    python ulysses_llama.py --check       compares loss and gradients with one process

Written as one would for speed: each rank holds S/P tokens, and an attention costs two collectives
forward, one all_to_all_single for q, k and v together and one for its output, and two backward.
Losses are summed and divided by the number of tokens of all ranks, and gradients are all-reduced
in one flat buffer that the gradients are views of.

B batch, S sequence, P ranks, N heads, G key/value heads, H head_dim.
"""

import json
import os
import tempfile

import llama_training as peer

ATTENTION_NAME = "ulysses_gloo"


def register_attention(world_size: int) -> None:
    """Makes Hugging Face's Llama call our attention, on local tokens and without a mask."""
    import torch
    import torch.distributed as dist
    from torch.nn import functional as F
    from transformers import AttentionInterface

    class AllToAll(torch.autograd.Function):
        """Row r of dim 0 goes to rank r; the result's row r came from rank r."""

        @staticmethod
        def forward(context, x):
            out = torch.empty_like(x)
            dist.all_to_all_single(out, x)
            return out

        @staticmethod
        def backward(context, grad):
            out = torch.empty_like(grad, memory_format=torch.contiguous_format)
            dist.all_to_all_single(out, grad.contiguous())
            return out

    def attention(module, q, k, v, attention_mask, scaling=None, **kwargs):
        """q [B, N, S/P, H], k and v [B, G, S/P, H] -> [B, S/P, N, H], None."""
        P = world_size
        B, N, S_local, H = q.shape
        # A rank's share of the heads of q, k and v side by side: [P, B, (N + 2G)/P, S/P, H].
        heads = [x.view(B, P, x.size(1) // P, S_local, H) for x in (q, k, v)]
        packed = torch.cat(heads, dim=2).transpose(0, 1).contiguous()
        # [P, B, n, S/P, H] from the P parts of the sequence -> [B, n, S, H].
        received = AllToAll.apply(packed)
        whole = received.permute(1, 2, 0, 3, 4).reshape(B, received.size(2), P * S_local, H)
        q, k, v = whole.split([N // P, k.size(1) // P, v.size(1) // P], dim=1)
        out = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=q.size(1) != k.size(1)
        )
        # [B, N/P, S, H] -> [P, B, S/P, N/P, H] -> all heads of the local tokens.
        out = out.view(B, N // P, P, S_local, H).permute(2, 0, 3, 1, 4).contiguous()
        out = AllToAll.apply(out)
        return out.permute(1, 2, 0, 3, 4).reshape(B, S_local, N, H), None

    AttentionInterface.register(ATTENTION_NAME, attention)


def make_flat_gradients(model):
    """One buffer of which every parameter's gradient is a view."""
    import torch

    parameters = list(model.parameters())
    flat = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    offset = 0
    for parameter in parameters:
        parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()
    return flat


def make_step(arguments, rank):
    import torch
    import torch.distributed as dist
    from torch.nn import functional as F

    model = peer.build_model(arguments.dtype, ATTENTION_NAME)
    optimizer = peer.make_optimizer(model)
    flat_gradients = make_flat_gradients(model)
    batch = peer.make_batch(arguments.batch_size, arguments.seq_len, model.config.vocab_size)
    input_ids, next_tokens = (x.chunk(arguments.world_size, dim=1)[rank].clone() for x in batch)
    S_local = input_ids.size(1)
    position_ids = torch.arange(rank * S_local, (rank + 1) * S_local).unsqueeze(0)

    def forward_backward():
        """The global mean loss; leaves the sum over ranks in every gradient."""
        flat_gradients.zero_()
        num_valid = (next_tokens != -100).sum()
        dist.all_reduce(num_valid)
        logits = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), next_tokens.flatten(), reduction="sum")
        del logits
        loss = loss / num_valid
        loss.backward()
        dist.all_reduce(flat_gradients)
        loss = loss.detach()
        dist.all_reduce(loss)
        return loss.item()

    def step():
        loss = forward_backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), peer.CLIP_NORM)
        optimizer.step()
        return loss

    return model, optimizer, forward_backward, step


def measure(arguments, rank):
    meter = peer.AllocatorMeter()
    meter.start()
    model, optimizer, _, step = make_step(arguments, rank)
    losses = [step(), step()]
    peak_bytes = meter.stop_and_peak_bytes()
    persistent_bytes = peer.persistent_bytes(model, optimizer)
    del model, optimizer, step

    _, _, _, step = make_step(arguments, rank)
    seconds = peer.time_steps(step, arguments.warmup_steps, arguments.steps)
    return {
        "peer": "pytorch_ulysses_gloo",
        "world_size": arguments.world_size,
        "threads": arguments.threads,
        "dtype": arguments.dtype,
        "batch_size": arguments.batch_size,
        "seq_len": arguments.seq_len,
        "first_losses": losses,
        **peer.summarize(seconds, arguments.batch_size * arguments.seq_len),
        "peak_bytes": peak_bytes,
        "persistent_bytes": persistent_bytes,
        "peak_bytes_above_persistent": peak_bytes - persistent_bytes,
    }


def check(arguments, rank):
    """Largest difference of loss and gradients from one process on the whole sequence."""
    model, _, forward_backward, _ = make_step(arguments, rank)
    loss = forward_backward()
    whole = peer.build_model(arguments.dtype)
    input_ids, next_tokens = peer.make_batch(
        arguments.batch_size, arguments.seq_len, whole.config.vocab_size
    )
    expected = whole(
        input_ids=input_ids, labels=next_tokens, shift_labels=next_tokens, use_cache=False
    ).loss
    expected.backward()
    difference = max(
        ((p.grad - q.grad).abs().max() / q.grad.abs().max()).item()
        for p, q in zip(model.parameters(), whole.parameters())
    )
    return {"loss": loss, "expected_loss": expected.item(), "gradient_difference": difference}


def run_rank(rank, arguments, store_path):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(arguments.threads)
    store = dist.FileStore(store_path, arguments.world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=arguments.world_size)
    register_attention(arguments.world_size)
    result = (check if arguments.check else measure)(arguments, rank)
    dist.barrier()
    dist.destroy_process_group()
    if rank != 0:
        return
    if arguments.json or arguments.check:
        print(json.dumps(result))
        return
    print(
        f"pytorch ulysses (gloo), {arguments.world_size} ranks x {arguments.threads} threads, "
        f"S = {arguments.seq_len}: {result['step_seconds_median']:.3f} s a step, "
        f"{result['tokens_per_second']:.0f} tokens/s, rank 0 peak "
        f"{result['peak_bytes_above_persistent'] / 2**20:.1f} MiB above parameters, gradients "
        f"and optimizer state"
    )


def main():
    parser = peer.make_parser("Trains the benchmark's Llama with Ulysses over gloo.")
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--check", action="store_true", help="compare with one process and stop")
    arguments = parser.parse_args()
    if arguments.seq_len % arguments.world_size:
        parser.error("--seq-len must be a multiple of --world-size")
    peer.limit_threads(arguments.threads)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # Ranks share the machine.
    import torch.multiprocessing as multiprocessing

    with tempfile.TemporaryDirectory() as scratch:
        store_path = os.path.join(scratch, "store")
        multiprocessing.spawn(run_rank, (arguments, store_path), nprocs=arguments.world_size)


if __name__ == "__main__":
    main()

"""One process of PyTorch eager on the benchmark's Llama: step time and peak allocator bytes.

    python eager_llama.py --threads=2 --seq-len=4096 --json
"""

import json

import llama_training as peer


def main():
    parser = peer.make_parser("Trains the benchmark's Llama with PyTorch eager.")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    peer.limit_threads(arguments.threads)
    import torch

    def make_step():
        model = peer.build_model(arguments.dtype)
        optimizer = peer.make_optimizer(model)
        input_ids, next_tokens = peer.make_batch(
            arguments.batch_size, arguments.seq_len, model.config.vocab_size
        )

        def step():
            optimizer.zero_grad()
            output = model(
                input_ids=input_ids, labels=next_tokens, shift_labels=next_tokens, use_cache=False
            )
            loss = output.loss
            del output  # The logits are not needed beside their gradient.
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), peer.CLIP_NORM)
            optimizer.step()
            return loss.item()

        return model, optimizer, step

    # Two steps: only the second has gradients, optimizer state and activations at once.
    meter = peer.AllocatorMeter()
    meter.start()
    model, optimizer, step = make_step()
    losses = [step(), step()]
    peak_bytes = meter.stop_and_peak_bytes()
    persistent_bytes = peer.persistent_bytes(model, optimizer)
    del model, optimizer, step

    _, _, step = make_step()
    seconds = peer.time_steps(step, arguments.warmup_steps, arguments.steps)
    result = {
        "peer": "pytorch_eager",
        "torch": torch.__version__,
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
    if arguments.json:
        print(json.dumps(result))
        return
    print(
        f"pytorch eager, {arguments.threads} threads, S = {arguments.seq_len}: "
        f"{result['step_seconds_median']:.3f} s a step, "
        f"{result['tokens_per_second']:.0f} tokens/s, "
        f"peak {result['peak_bytes_above_persistent'] / 2**20:.1f} MiB above parameters, "
        f"gradients and optimizer state"
    )


if __name__ == "__main__":
    main()

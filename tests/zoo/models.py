"""The models of the zoo: how each is built, called and exported.

Each Hugging Face model is subclassed so that forward() returns the loss alone. A subclass, unlike
a wrapper module, keeps the parameter names of the original, so its weights load into either.
"""

import torch
import transformers
from torch.nn import functional as F

from families import FAMILIES
from plain_transformer import PlainTransformer
from zoo_model import ZooModel


class LlamaForCausalLMLoss(transformers.LlamaForCausalLM):
    """Labels are the tokens themselves: the shift by one is part of the graph."""

    def forward(self, input_ids, labels):
        return super().forward(input_ids=input_ids, labels=labels, use_cache=False).loss


class LlamaForCausalLMAutocastLoss(LlamaForCausalLMLoss):
    """Parameters in fp32, the forward pass in bf16 where autocast says so."""

    def forward(self, input_ids, labels):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(input_ids, labels)


class LlamaForCausalLMMaskedLoss(transformers.LlamaForCausalLM):
    """Takes a padding mask, and labels that the caller has already shifted by one."""

    def forward(self, input_ids, attention_mask, shift_labels):
        logits = (
            super()
            .forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            .logits
        )
        return F.cross_entropy(logits.view(-1, logits.size(-1)), shift_labels.view(-1))


class GPT2LMHeadModelLoss(transformers.GPT2LMHeadModel):
    def forward(self, input_ids, labels):
        return super().forward(input_ids=input_ids, labels=labels, use_cache=False).loss


class BertForMaskedLMLoss(transformers.BertForMaskedLM):
    def forward(self, input_ids, attention_mask, labels):
        return (
            super()
            .forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
            .loss
        )


def llama_config(**changes):
    sizes = dict(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        # 1 / sqrt(hidden): with the usual 0.02 attention would be almost uniform and a wrong
        # mask or position would hardly show in the loss.
        initializer_range=0.125,
        attention_dropout=0.0,
        attn_implementation="sdpa",
    )
    return transformers.LlamaConfig(**{**sizes, **changes})


def llama_bench_config():
    """Ordinary initial weights: this model is trained, not compared with references."""
    return llama_config(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        initializer_range=0.02,
    )


def gpt2_config(dropout=0.0, **changes):
    sizes = dict(
        vocab_size=256,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_inner=128,
        n_positions=512,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.125,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        resid_pdrop=dropout,
        attn_implementation="sdpa",
    )
    return transformers.GPT2Config(**{**sizes, **changes})


def bert_config(**changes):
    sizes = dict(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        # Key biases have no gradient in theory. At 0.125 their rounding noise alone would reach
        # the tolerance of the tests.
        initializer_range=0.05,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    return transformers.BertConfig(**{**sizes, **changes})


def plain_model():
    return PlainTransformer(
        vocab_size=256, hidden_size=64, num_heads=4, num_layers=2, intermediate_size=256
    )


LLAMA_INPUTS = ("input_ids", "labels")
BERT_INPUTS = ("input_ids", "attention_mask", "labels")

ZOO = (
    ZooModel(
        "llama",
        lambda: LlamaForCausalLMLoss(llama_config()),
        LLAMA_INPUTS,
        "Llama with grouped heads; no mask given; labels shifted in the graph",
        references=("batch", "bf16", "other_shape", "train"),
    ),
    ZooModel(
        "llama_static",
        lambda: LlamaForCausalLMLoss(llama_config()),
        LLAMA_INPUTS,
        "`llama` exported with batch 2 and 32 tokens as constants",
        dynamic=False,
        references=(),
    ),
    ZooModel(
        "llama_mask",
        lambda: LlamaForCausalLMMaskedLoss(llama_config()),
        ("input_ids", "attention_mask", "shift_labels"),
        "`llama` with a padding mask, labels shifted by the caller",
        references=("batch", "other_shape"),
    ),
    ZooModel(
        "llama_bf16",
        lambda: LlamaForCausalLMLoss(llama_config()),
        LLAMA_INPUTS,
        "`llama` with every parameter in bf16",
        dtype=torch.bfloat16,
        references=("batch",),
    ),
    ZooModel(
        "llama_autocast",
        lambda: LlamaForCausalLMAutocastLoss(llama_config()),
        LLAMA_INPUTS,
        "`llama` with fp32 parameters under `torch.autocast` to bf16",
        build_oracle=lambda: LlamaForCausalLMLoss(llama_config()),
        references=("batch",),
    ),
    ZooModel(
        "gpt2",
        lambda: GPT2LMHeadModelLoss(gpt2_config()),
        LLAMA_INPUTS,
        "GPT-2: 512 learned positions, LayerNorm, biases, tied embeddings",
        max_seq_len=512,
        references=("batch", "bf16", "other_shape", "train"),
    ),
    ZooModel(
        "gpt2_dropout",
        lambda: GPT2LMHeadModelLoss(gpt2_config(dropout=0.1)),
        LLAMA_INPUTS,
        "`gpt2` with dropout 0.1, of hidden values and of attention",
        max_seq_len=512,
        references=(),
    ),
    ZooModel(
        "gpt2_long",
        lambda: GPT2LMHeadModelLoss(gpt2_config(n_positions=4096)),
        LLAMA_INPUTS,
        "`gpt2` with 4096 positions, graph only",
        max_seq_len=4096,
        references=(),
        is_graph_only=True,
    ),
    ZooModel(
        "bert",
        lambda: BertForMaskedLMLoss(bert_config()),
        BERT_INPUTS,
        "BERT masked LM: bidirectional, padding mask, tied embeddings, labels not shifted",
        is_masked_lm=True,
        max_seq_len=512,
    ),
    ZooModel(
        "bert_long",
        lambda: BertForMaskedLMLoss(bert_config(max_position_embeddings=4096)),
        BERT_INPUTS,
        "`bert` with 4096 positions, graph only",
        is_masked_lm=True,
        max_seq_len=4096,
        references=(),
        is_graph_only=True,
    ),
    ZooModel(
        "plain",
        plain_model,
        ("input_ids", "targets"),
        "own decoder: matmul, softmax, matmul; sinusoidal positions; labels shifted outside",
    ),
    ZooModel(
        "llama_bench",
        lambda: LlamaForCausalLMLoss(llama_bench_config()),
        LLAMA_INPUTS,
        "the model of the speed benchmark: hidden 512, 4 layers, vocabulary 8192",
        vocab_size=8192,
        references=(),
        is_on_demand=True,
    ),
    *FAMILIES,
)

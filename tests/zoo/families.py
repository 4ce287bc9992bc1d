"""Other families of the zoo: as small as their features allow, and each as Hugging Face builds it.

All have 2 layers, hidden 32, 4 heads of 8, vocabulary 128. What is not stock is told where it
stands.
"""

import torch
import transformers

from patches_and_text import PatchesAndText
from zoo_model import ZooModel

VOCAB_SIZE = 128
IMAGE_SIZE = 16
PATCH_SIZE = 4
NUM_CLASSES = 10
LANGUAGE_INPUTS = ("input_ids", "labels")
MASKED_INPUTS = ("input_ids", "attention_mask", "labels")
IMAGE_INPUTS = ("pixel_values", "labels")


def loss_class(model_class, inputs, **options):
    """`model_class` whose forward() takes `inputs` by name and returns the loss alone.

    A subclass, as in models.py, so that parameters keep their names. torch.export reads the
    signature, so each set of inputs has a function of its own.
    """

    def call(self, **batch):
        return model_class.forward(self, **batch, **options).loss

    def language(self, input_ids, labels):
        return call(self, input_ids=input_ids, labels=labels)

    def masked(self, input_ids, attention_mask, labels):
        return call(self, input_ids=input_ids, attention_mask=attention_mask, labels=labels)

    def image(self, pixel_values, labels):
        return call(self, pixel_values=pixel_values, labels=labels)

    forwards = {LANGUAGE_INPUTS: language, MASKED_INPUTS: masked, IMAGE_INPUTS: image}
    return type(f"{model_class.__name__}Loss", (model_class,), {"forward": forwards[inputs]})


def decoder_config(config_class, **changes):
    sizes = dict(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        initializer_range=0.15,
        attention_dropout=0.0,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    return config_class(**{**sizes, **changes})


def qwen2():
    config = decoder_config(transformers.Qwen2Config, tie_word_embeddings=True)
    return loss_class(transformers.Qwen2ForCausalLM, MASKED_INPUTS, use_cache=False)(config)


def qwen3():
    config = decoder_config(transformers.Qwen3Config)
    return loss_class(transformers.Qwen3ForCausalLM, LANGUAGE_INPUTS, use_cache=False)(config)


def mistral():
    config = decoder_config(transformers.MistralConfig, sliding_window=10)
    return loss_class(transformers.MistralForCausalLM, LANGUAGE_INPUTS, use_cache=False)(config)


def mixtral():
    """Experts as batched products of gathered weights, one of the ways that the library offers."""
    config = decoder_config(
        transformers.MixtralConfig,
        intermediate_size=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        router_aux_loss_coef=0.1,
        sliding_window=None,
    )
    config._experts_implementation = "batched_mm"
    return loss_class(transformers.MixtralForCausalLM, LANGUAGE_INPUTS, use_cache=False)(config)


def qwen3_moe():
    """Experts as the library exports them by default: rows sorted by expert, in groups.

    Each token has all experts: which ones a router chooses would be a matter of rounding.
    """
    config = decoder_config(
        transformers.Qwen3MoeConfig, num_experts=4, num_experts_per_tok=4, moe_intermediate_size=16
    )
    model_class = loss_class(transformers.Qwen3MoeForCausalLM, LANGUAGE_INPUTS, use_cache=False)
    model = model_class(config)
    model.config._experts_implementation = "grouped_mm"
    return model


def opt():
    config = transformers.OPTConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        word_embed_proj_dim=32,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        # As for BERT in models.py: key biases have no gradient but rounding noise.
        init_std=0.06,
        pad_token_id=1,
        attn_implementation="sdpa",
    )
    return loss_class(transformers.OPTForCausalLM, MASKED_INPUTS, use_cache=False)(config)


def roberta():
    config = transformers.RobertaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=130,
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    return loss_class(transformers.RobertaForMaskedLM, MASKED_INPUTS)(config)


def vit():
    config = transformers.ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        num_labels=NUM_CLASSES,
        initializer_range=0.06,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    return loss_class(transformers.ViTForImageClassification, IMAGE_INPUTS)(config)


def mamba2():
    config = transformers.Mamba2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_hidden_layers=2,
        num_heads=8,
        head_dim=8,
        state_size=8,
        n_groups=2,
        expand=2,
        chunk_size=8,
        initializer_range=0.15,
    )
    return loss_class(transformers.Mamba2ForCausalLM, LANGUAGE_INPUTS, use_cache=False)(config)


def t5():
    config = transformers.T5Config(
        vocab_size=VOCAB_SIZE,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=32,
        dropout_rate=0.0,
        initializer_factor=1.0,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    model_class = transformers.T5ForConditionalGeneration
    return loss_class(model_class, MASKED_INPUTS, use_cache=False)(config)


def entry(name, build, inputs, about, **options):
    common = dict(
        vocab_size=VOCAB_SIZE,
        min_seq_len=4,
        max_seq_len=512,
        references=("batch", "other_shape", "odd_length"),
        is_brief=True,
    )
    return ZooModel(name, build, inputs, about, **(common | options))


FAMILIES = (
    entry("qwen2", qwen2, MASKED_INPUTS, "Qwen2: biases of q, k, v; tied embeddings; padding mask"),
    entry("qwen3", qwen3, LANGUAGE_INPUTS, "Qwen3: norms of each query and key head"),
    entry("mistral", mistral, LANGUAGE_INPUTS, "Mistral: a sliding window of 10"),
    entry("mixtral", mixtral, LANGUAGE_INPUTS, "Mixtral: 2 of 4 experts, with the auxiliary loss"),
    entry(
        "qwen3_moe",
        qwen3_moe,
        LANGUAGE_INPUTS,
        "Qwen3-MoE in bf16: 4 experts, sorted and grouped",
        dtype=torch.bfloat16,
        references=("batch",),
        is_brief=False,
    ),
    entry("opt", opt, MASKED_INPUTS, "OPT: positions counted from the padding mask"),
    entry(
        "roberta",
        roberta,
        MASKED_INPUTS,
        "RoBERTa masked LM: positions counted from tokens that are not padding",
        is_masked_lm=True,
        max_seq_len=128,
    ),
    entry(
        "vit",
        vit,
        IMAGE_INPUTS,
        "ViT: patches by a convolution, class token, image classes",
        is_image=True,
        references=("batch",),
    ),
    entry(
        "mamba2",
        mamba2,
        LANGUAGE_INPUTS,
        "Mamba2: causal convolution and scan in chunks of 8, as plain ATen ops",
        dynamic=False,
    ),
    entry("t5", t5, MASKED_INPUTS, "T5: encoder and decoder, relative position bias"),
    entry(
        "patches_and_text",
        lambda: PatchesAndText(vocab_size=VOCAB_SIZE, hidden_size=32, num_heads=4, num_layers=2),
        ("patches", "input_ids", "labels"),
        "own decoder: projected patches and embedded text in one causal sequence",
    ),
)

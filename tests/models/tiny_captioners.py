"""Tiny random networks that write, with tokenizers made here, saved to folders as hub models are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, pre_tokenizers, processors

#: Without types, which say less of these many classes than their names do.
hf: Any = transformers

_WORDS = ("a", "an", "the", "of", "on", "in", "is", "photo", "picture", "cat", "dog", "man", "red", "two", "street")
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789?!"
_SIZE = {"height": 32, "width": 32}
_CROP = {"size": {"shortest_edge": 32}, "crop_size": _SIZE}
_LAYER = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "initializer_range": 0.5}
_VISION = {**_LAYER, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16}
_CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save_blip(folder: Path, *, positions: int = 512, layers: int = 1) -> Path:
    """A BLIP."""
    tokenizer = wordpiece()
    text = {
        **_LAYER,
        **_special(tokenizer, bos="[CLS]", eos="[SEP]", pad="[PAD]"),
        "sep_token_id": tokenizer.sep_token_id,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "num_hidden_layers": layers,
        "max_position_embeddings": positions,
    }
    config = hf.BlipConfig(text_config=text, vision_config=_VISION)
    processor = hf.BlipProcessor(hf.BlipImageProcessor(size=_SIZE), tokenizer)
    return _save(folder, lambda: hf.BlipForConditionalGeneration(config), processor)


def save_git(folder: Path) -> Path:
    """A GIT."""
    tokenizer = wordpiece()
    config = hf.GitConfig(
        vision_config=_VISION,
        vocab_size=len(tokenizer),
        num_hidden_layers=1,
        max_position_embeddings=64,
        **_LAYER,
        **_special(tokenizer, bos="[CLS]", eos="[SEP]", pad="[PAD]"),
    )
    processor = hf.GitProcessor(hf.CLIPImageProcessor(**_CROP), tokenizer)
    return _save(folder, lambda: hf.GitForCausalLM(config), processor)


def save_vit_gpt2(folder: Path) -> Path:
    """A ViT and a GPT-2, saved without a processor that joins their image processor and tokenizer."""
    tokenizer = _bytewise(bos_token="<|end|>", eos_token="<|end|>", pad_token="<|end|>")
    special = _special(tokenizer, bos="<|end|>", eos="<|end|>", pad="<|end|>")
    decoder = hf.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=4, n_positions=64, initializer_range=0.5, **special
    )
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(hf.ViTConfig(**_VISION), decoder)

    def network() -> Any:
        joined = hf.VisionEncoderDecoderModel(config)
        joined.generation_config = hf.GenerationConfig(decoder_start_token_id=special["bos_token_id"], **special)
        return joined

    return _save(folder, network, hf.ViTImageProcessor(size=_SIZE), tokenizer)


def save_blip2(folder: Path, *, encoder_decoder: bool) -> Path:
    """A BLIP-2 with a T5 or an OPT."""
    tokenizer = _bytewise(
        "$A </s>" if encoder_decoder else "</s> $A",
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
    )
    special = {"vocab_size": len(tokenizer), **_special(tokenizer, bos="</s>", eos="</s>", pad="<pad>")}
    t5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 4}
    opt = {"model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 32, "num_hidden_layers": 1}
    opt |= {"num_attention_heads": 4, "max_position_embeddings": 128, "init_std": 0.5}
    config = hf.Blip2Config(
        vision_config=_VISION,
        qformer_config={**_LAYER, "num_hidden_layers": 1, "encoder_hidden_size": 32, "vocab_size": 30},
        text_config={**(t5 if encoder_decoder else opt), **special, "decoder_start_token_id": special["pad_token_id"]},
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor = hf.Blip2Processor(hf.BlipImageProcessor(size=_SIZE), tokenizer, num_query_tokens=4)
    return _save(folder, lambda: hf.Blip2ForConditionalGeneration(config), processor)


def save_llava(folder: Path) -> Path:
    """A LLaVA, which is a chat model."""
    tokenizer = _bytewise(
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="<pad>",
        extra_special_tokens=["<image>", "<|user|>", "<|assistant|>"],
    )
    text = hf.LlamaConfig(
        **_LAYER,
        **_special(tokenizer, bos="<s>", eos="<|end|>", pad="<pad>"),
        vocab_size=len(tokenizer),
        num_hidden_layers=1,
        max_position_embeddings=512,
    )
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**{**_VISION, "num_hidden_layers": 2}),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(**_CROP),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_CHAT,
    )
    return _save(folder, lambda: hf.LlavaForConditionalGeneration(config), processor)


def _save(folder: Path, network: Callable[[], Any], *processors: Any) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network().save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    return folder


def _special(tokenizer: Any, **tokens: str) -> dict[str, int]:
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}


def wordpiece() -> Any:
    """Whole words, and letters for all others; no capitals."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *_WORDS, *_CHARACTERS, *(f"##{character}" for character in _CHARACTERS)])
    return hf.BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})


def _bytewise(form: str = "$A", **special: Any) -> Any:
    """A token for each byte; the processor puts special ones around a text in this form."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[])
    )
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=[("</s>", len(alphabet))])
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)

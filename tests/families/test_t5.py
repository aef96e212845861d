"""T5: its tokenizer, its names, what it makes of a prompt."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import T5Config, T5EncoderModel

from engine.families.base import Padding
from engine.families.parts import t5
from engine.families.parts.dit_kind import stored_t5
from engine.families.parts.filling import filled
from engine.families.parts.layers import Storage, can_keep, keep_stored
from engine.families.parts.t5_tokenizer import t5_tokenizer, t5_tokenizer_from_json
from engine.families.parts.tokenizer import BadTokenizer
from engine.weights.header import read_header
from engine.weights.keymaps import UnknownLayout
from engine.weights.t5 import is_t5, t5_config, t5_name

CONFIG = {"vocab_size": 32128, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 3, "num_layers": 2,
          "relative_attention_num_buckets": 8, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0}  # fmt: skip


def reference() -> T5EncoderModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return T5EncoderModel(T5Config(**CONFIG)).eval()


def ours(dtype: torch.dtype = torch.float32) -> nn.Module:
    module = t5.build(CONFIG)
    state = {name: tensor for name, tensor in reference().state_dict().items() if "embed_tokens" not in name}
    layers = [name for name, layer in module.named_modules() if can_keep(layer) and "relative" not in name]
    keep_stored(module, dict.fromkeys(layers, Storage(dtype)))
    state = {n: t.to(dtype) if n.removesuffix(".weight") in layers else t for n, t in state.items()}
    module.load_state_dict(state, assign=True)
    return module.eval()


def test_the_tokenizer_is_t5s():
    tokenizer = t5_tokenizer()
    assert len(tokenizer) == 32100 and (tokenizer.end, tokenizer.pad) == (1, 0)
    ids = [3, 9, 1131, 3, 20400, 4125, 16, 8, 2983, 6, 3117, 6419]
    assert tokenizer.encode("a red fox standing in the snow, detailed photograph") == ids
    assert tokenizer.encode("\n a  red\tfox ") == [3, 9, 1131, 3, 20400, 3] and tokenizer.encode("猫") == [3, 2]


def test_a_tokenizer_of_another_kind_is_refused():
    with pytest.raises(BadTokenizer, match=r"a\.json"):
        t5_tokenizer_from_json("{}", Path("a.json"))


def test_a_prompt_is_padded_and_its_padding_is_seen():
    tokenizer, module = t5_tokenizer(), ours()
    with torch.no_grad():
        hidden = t5.encode_prompt(module, tokenizer, "a red fox", (), Padding(least=12))
        ids = torch.tensor([[3, 9, 1131, 3, 20400, 1, *[0] * 6]])
        torch.testing.assert_close(hidden, reference()(ids).last_hidden_state)
        assert t5.encode_prompt(module, tokenizer, "a red fox " * 5, (), Padding(least=12)).shape == (1, 26, 16)


def test_weights_scale_the_distance_to_an_empty_prompt():
    tokenizer, module = t5_tokenizer(), ours()
    with torch.no_grad():
        weighted = t5.encode_prompt(module, tokenizer, "a (red:1.5) fox", (), Padding(least=8))
        plain = t5.encode_prompt(module, tokenizer, "a red fox", (), Padding(least=8))
        empty = t5.encode_prompt(module, tokenizer, "", (), Padding(least=8))
    torch.testing.assert_close(weighted[:, 2], (plain - empty)[:, 2] * 1.5 + empty[:, 2])
    assert torch.equal(weighted[:, [0, 1, 3, 4, 5, 6, 7]], plain[:, [0, 1, 3, 4, 5, 6, 7]])


@pytest.mark.parametrize("layer", [-1, -2, -3, -24])
def test_an_earlier_layer_is_normed_and_one_too_early_means_the_last(layer: int):
    """What CLIPSetLastLayer asks of every encoder of a pair."""
    tokenizer, module, whole = t5_tokenizer(), ours(), reference()
    states: list[torch.Tensor] = []
    for block in whole.encoder.block:
        block.register_forward_hook(lambda module, inputs, output: states.append(output[0]))
    with torch.no_grad():
        got = t5.encode_prompt(module, tokenizer, "a red fox", (), Padding(least=8), layer)
        last = whole(torch.tensor([[3, 9, 1131, 3, 20400, 1, 0, 0]])).last_hidden_state
        expected = whole.encoder.final_layer_norm(states[0]) if layer == -2 else last
        torch.testing.assert_close(got, expected)
        again = t5.encode_prompt(module, tokenizer, "a red fox", (), Padding(least=8))
    torch.testing.assert_close(again, last)
    assert layer != -2 or not torch.allclose(got, last, atol=1e-2), "the layers differ"


def test_captions_of_different_length_are_one_batch():
    captions = ["a red fox", "a red fox in the snow"]
    module, tokenizer = ours(), t5_tokenizer()
    whole = t5.encode_captions(module, tokenizer, captions, 12)
    torch.testing.assert_close(whole[:1], t5.encode_prompt(module, tokenizer, captions[0], (), Padding(least=12)))
    cut = t5.encode_captions(module, tokenizer, captions, 5)
    assert cut.shape == (2, 5, 16) and torch.equal(cut[0], cut[1]), "both begin alike and are cut before they differ"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_stored_weights_are_used_in_float32(dtype: torch.dtype):
    """transformers' own feed-forward would round what goes into `wo` to the type of `wo`."""
    module, plain = ours(dtype), reference()
    rounded = {
        n: t.to(dtype).float() if t.ndim == 2 and "relative" not in n else t for n, t in plain.state_dict().items()
    }
    plain.load_state_dict(rounded)
    with torch.no_grad():
        hidden = t5.encode_prompt(module, t5_tokenizer(), "a red fox", (), Padding(least=8))
        torch.testing.assert_close(hidden, plain(torch.tensor([[3, 9, 1131, 3, 20400, 1, 0, 0]])).last_hidden_state)
    assert hidden.dtype == torch.float32


def test_shapes_say_the_config(tmp_path: Path):
    state = {name: tensor.contiguous() for name, tensor in reference().state_dict().items() if "embed" not in name}
    save_file(state, tmp_path / "a.safetensors")
    tensors = read_header(tmp_path / "a.safetensors").tensors
    assert is_t5(tensors) and not is_t5({})
    assert t5_config(tensors) == CONFIG
    with pytest.raises(UnknownLayout, match=r"shared\.weight"):
        t5_config({})


@pytest.mark.parametrize("tables", [("shared",), ("encoder.embed_tokens",), ("shared", "encoder.embed_tokens")])
def test_the_table_of_words_has_either_name_or_both(tmp_path: Path, tables: tuple[str, ...]):
    state = {name: tensor.contiguous() for name, tensor in reference().state_dict().items() if "embed" not in name}
    words = state.pop("shared.weight")
    save_file(state | {f"{name}.weight": words.clone() for name in tables}, tmp_path / "a.safetensors")
    module = filled(stored_t5(read_header(tmp_path / "a.safetensors"), ""), torch.float32)
    assert torch.equal(module.get_parameter("shared.weight"), words)


def test_names_of_llama_cpp_are_known():
    assert (
        t5_name("enc.blk.3.attn_rel_b.weight") == "encoder.block.3.layer.0.SelfAttention.relative_attention_bias.weight"
    )
    assert t5_name("enc.blk.3.ffn_gate.weight") == "encoder.block.3.layer.1.DenseReluDense.wi_0.weight"
    assert t5_name("token_embd.weight") == "shared.weight"
    assert t5_name("enc.output_norm.weight") == "encoder.final_layer_norm.weight"
    assert (t5_name("dec.blk.0.attn_q.weight"), t5_name("enc.blk.0.other.weight"), t5_name("logit_scale")) == (
        None,
    ) * 3

"""The peers: transformers of emogen's shape over flat tokens, a token a step.

GPT-2 in Hugging Face's transformers and, in weights of 8 bits, in ONNX Runtime and llama.cpp; x-transformers. Random
weights: speed only. Each peer gets the best of it: no dropout, nothing that ends a piece early, and for ONNX Runtime a
graph of one step with caches that are not copied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emogen.settings import ModelSettings

VOCABULARY = 400
"""The values of emogen's four families, 360, and some for all that is not a note."""
TOKENS_A_NOTE = 3.6
"""MidiTok's REMI, TSD and MIDILike take 3.55 to 3.77 on EMOPIA."""
BUCKET = 64
"""The caches given to ONNX Runtime grow by so many tokens at once."""

Draw = Callable[[int, int], None]
"""Composes a batch of so many sequences of so many tokens."""


def flat_tokens(notes: int) -> int:
    """Tokens that so many notes take."""
    return round(notes * TOKENS_A_NOTE)


def gpt2(settings: ModelSettings, positions: int) -> Any:
    """Hugging Face's GPT-2 of emogen's width, depth and heads."""
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.set_verbosity_error()
    width = settings.d_model
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=positions, n_embd=width, n_layer=settings.n_layers,
        n_head=settings.n_heads, n_inner=6 * width, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def x_transformer(settings: ModelSettings, positions: int) -> Any:
    """The same shape in x-transformers; called with ids (B, T) it returns their loss."""
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    layers = Decoder(
        dim=settings.d_model, depth=settings.n_layers, heads=settings.n_heads, ff_mult=6, attn_flash=True,
        attn_dim_head=settings.d_model // settings.n_heads,
    )  # fmt: skip
    return AutoregressiveWrapper(
        TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=positions, attn_layers=layers), pad_value=-1
    )


def hugging_face(model: Any, cache: str, top_p: float) -> Draw:
    """transformers' ``generate`` with a dynamic or a static cache."""
    model.eval()

    def draw(batch: int, tokens: int) -> None:
        start = torch.zeros(batch, 1, dtype=torch.long)
        ids = model.generate(
            start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, top_p=top_p,
            max_new_tokens=tokens, cache_implementation=cache,
        )  # fmt: skip
        assert ids.shape == (batch, 1 + tokens)

    return draw


class Step(nn.Module):
    """One token of a GPT-2: what is exported. The new keys and values come back and the caller puts them away."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.gpt2, self.heads = model.transformer, model.config.n_head
        self.width = model.config.n_embd // self.heads

    def forward(self, ids: Tensor, position: Tensor, mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, V) and each layer's key and value (B, H, 1, W).

        Takes ids (B,), their position (1,), what is added to the scores of the cache (T,), and its keys and values
        (B, H, T, W).
        """
        x = self.gpt2.wte(ids) + self.gpt2.wpe(position)
        new: list[Tensor] = []
        for layer, block in enumerate(self.gpt2.h):
            old_k, old_v = past[2 * layer : 2 * layer + 2]
            q, k, v = product(block.attn.c_attn, block.ln_1(x)).reshape(-1, 3, self.heads, 1, self.width).unbind(1)
            scores = torch.cat([q @ old_k.transpose(2, 3) + mask, (q * k).sum(-1, keepdim=True)], dim=-1)
            p = (scores * self.width**-0.5).softmax(-1)
            y = p[..., :-1] @ old_v + p[..., -1:] * v
            x = x + product(block.attn.c_proj, y.reshape(-1, self.heads * self.width))
            x = x + product(block.mlp.c_proj, block.mlp.act(product(block.mlp.c_fc, block.ln_2(x))))
            new += [k, v]
        return self.gpt2.ln_f(x) @ self.gpt2.wte.weight.T, *new


def product(layer: Any, x: Tensor) -> Tensor:
    """What transformers' Conv1D does, as the matrix product that quantize_dynamic looks for."""
    return x @ layer.weight + layer.bias


class OnnxRuntime:
    """A GPT-2 in ONNX Runtime with int8 weights, one token a step."""

    def __init__(self, model: Any, threads: int) -> None:
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic

        self.model, config = model.eval(), model.config
        self.layers, self.shape = config.n_layer, (config.n_head, config.n_embd // config.n_head)
        self.past = [f"{kind}{layer}" for layer in range(self.layers) for kind in "kv"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        with TemporaryDirectory() as folder:
            whole, small = Path(folder, "whole.onnx"), Path(folder, "int8.onnx")
            self.export(whole)
            logging.getLogger().setLevel(logging.ERROR)  # it would advise to look for shapes first: there are none
            quantize_dynamic(whole, small, weight_type=QuantType.QInt8)
            self.session = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])
        self.check()

    def export(self, path: Path) -> None:
        """Write the float32 graph."""
        past = [torch.zeros(2, self.shape[0], BUCKET, self.shape[1]) for _ in self.past]
        given = (torch.zeros(2, dtype=torch.long), torch.zeros(1, dtype=torch.long), torch.zeros(BUCKET), *past)
        names = ["ids", "position", "mask", *self.past]
        axes = {"ids": {0: "batch"}, "mask": {0: "length"}} | {name: {0: "batch", 2: "length"} for name in self.past}
        torch.onnx.export(
            Step(self.model).eval(), given, path, dynamo=False, input_names=names, dynamic_axes=axes,
            output_names=["logits", *(f"new_{name}" for name in self.past)],
        )  # fmt: skip

    def read(self, ids: Any, at: int, mask: Any, past: list[Any]) -> Tensor:
        """Logits (B, V) after token number ``at`` of each sequence, whose keys and values are put away."""
        given = {"ids": ids, "position": np.array([at]), "mask": mask, **dict(zip(self.past, past, strict=True))}
        logits, *new = self.session.run(None, given)
        for old, one in zip(past, new, strict=True):
            old[:, :, at : at + 1] = one
        mask[at] = 0
        return torch.from_numpy(logits)

    def room(self, batch: int, length: int, past: list[Any]) -> tuple[Any, list[Any]]:
        """A mask (T,) and caches (B, H, T, W) with room for one bucket more than the first ``length`` of ``past``."""
        mask = np.where(np.arange(length + BUCKET) < length, 0, -1e9).astype(np.float32)
        roomy = [np.zeros((batch, self.shape[0], len(mask), self.shape[1]), dtype=np.float32) for _ in self.past]
        for new, old in zip(roomy, past, strict=False):
            new[:, :, :length] = old
        return mask, roomy

    def check(self) -> None:
        """The graph is the model."""
        ids = torch.randint(VOCABULARY, (2, 8))
        mask, past = self.room(2, 0, [])
        for at in range(8):
            logits = self.read(ids[:, at].numpy(), at, mask, past)
        agree(self.model, ids, logits)

    def draw(self, batch: int, tokens: int, top_p: float) -> None:
        """Compose a batch of sequences of so many tokens."""
        ids: Any = np.zeros(batch, dtype=np.int64)
        past: list[Any] = []
        for at in range(tokens):
            if at % BUCKET == 0:
                mask, past = self.room(batch, at, past)
            ids = nucleus(self.read(ids, at, mask, past), top_p).numpy()


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """One id (B,) a row of logits (B, V), from the likeliest that together hold ``top_p``."""
    likeliest, order = logits.softmax(-1).sort(descending=True)
    likeliest[likeliest.cumsum(-1) - likeliest >= top_p] = 0
    return order.gather(-1, torch.multinomial(likeliest, 1))[:, 0]


class LlamaCpp:
    """A GPT-2 in llama.cpp with weights of 8 bits (q8_0), one token a step."""

    def __init__(self, model: Any, threads: int) -> None:
        import llama_cpp

        self.api, self.model, self.threads = llama_cpp, model.eval(), threads
        self.silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.silent, None)
        with TemporaryDirectory() as folder:
            path = Path(folder, "q8_0.gguf")
            write_gguf(model, path)
            self.weights = llama_cpp.llama_model_load_from_file(
                str(path).encode(), llama_cpp.llama_model_default_params()
            )
        self.check()

    def reader(self, batch: int, tokens: int) -> tuple[Any, Callable[[list[int], int], None]]:
        """A context for so many sequences of so many tokens, and what reads token number ``at`` of each."""
        api, settings = self.api, self.api.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = batch * tokens, batch, batch, batch
        settings.n_threads = settings.n_threads_batch = self.threads
        context, given = api.llama_init_from_model(self.weights, settings), api.llama_batch_init(batch, 0, 1)
        given.n_tokens = batch

        def read(ids: list[int], at: int) -> None:
            for row, one in enumerate(ids):
                given.token[row], given.pos[row], given.logits[row] = one, at, True
                given.n_seq_id[row], given.seq_id[row][0] = 1, row
            if api.llama_decode(context, given):
                raise RuntimeError("llama.cpp cannot read a token")

        return context, read

    def check(self) -> None:
        """The file is the model."""
        ids = torch.randint(VOCABULARY, (2, 8))
        context, read = self.reader(2, 8)
        for at in range(8):
            read(ids[:, at].tolist(), at)
        rows = [self.api.llama_get_logits_ith(context, row) for row in range(2)]
        agree(self.model, ids, torch.from_numpy(np.stack([np.ctypeslib.as_array(row, (VOCABULARY,)) for row in rows])))
        self.api.llama_free(context)

    def draw(self, batch: int, tokens: int, top_p: float) -> None:
        """Compose a batch of sequences of so many tokens."""
        api = self.api
        context, read = self.reader(batch, tokens)
        sampler = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        api.llama_sampler_chain_add(sampler, api.llama_sampler_init_top_p(top_p, 1))
        api.llama_sampler_chain_add(sampler, api.llama_sampler_init_dist(0))
        ids = [0] * batch
        for at in range(tokens):
            read(ids, at)
            ids = [api.llama_sampler_sample(sampler, context, row) for row in range(batch)]
        api.llama_sampler_free(sampler)
        api.llama_free(context)


def write_gguf(model: Any, path: Path) -> None:
    """A GPT-2 as llama.cpp reads it: matrices in q8_0, all else in float32."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    config, writer = model.config, GGUFWriter(path, "gpt2")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(VOCABULARY)
    gpt2 = model.transformer
    layers = {"token_embd": gpt2.wte, "position_embd": gpt2.wpe, "output_norm": gpt2.ln_f, "output": gpt2.wte}
    for number, block in enumerate(gpt2.h):
        own = {
            "attn_norm": block.ln_1, "attn_qkv": block.attn.c_attn, "attn_output": block.attn.c_proj,
            "ffn_norm": block.ln_2, "ffn_up": block.mlp.c_fc, "ffn_down": block.mlp.c_proj,
        }  # fmt: skip
        layers |= {f"blk.{number}.{name}": layer for name, layer in own.items()}
    for name, layer in layers.items():
        for part, weight in layer.named_parameters():
            array = weight.detach().numpy()
            if "embd" in name or array.ndim == 1:
                writer.add_tensor(f"{name}.{part}", array)
            else:  # transformers' Conv1D keeps its matrices the other way round
                array = array if name == "output" else np.ascontiguousarray(array.T)
                small = GGMLQuantizationType.Q8_0
                writer.add_tensor(f"{name}.{part}", quantize(array, small), raw_dtype=small)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def agree(model: Any, ids: Tensor, logits: Tensor) -> None:
    """Raises an error where logits (B, V) after ids (B, T) are not the model's but for the rounding to int8."""
    with torch.inference_mode():
        true = model(ids).logits[:, -1]
    if torch.corrcoef(torch.stack([logits.flatten(), true.flatten()]))[0, 1] < 0.98:
        raise RuntimeError("a peer does not compute what GPT-2 does")

#!/usr/bin/env python3
"""Dumps tiny HunyuanVideo transformers of diffusers with inputs, outputs and all gradients.

Usage: python hunyuan_video.py   (writes ../hunyuanvideo/; torch, diffusers, peft, safetensors on CPU)

Each case is a folder that diffusers loads (config.json, diffusion_pytorch_model.safetensors) with
  inputs.safetensors     the arguments of forward, and output_grad
  reference.safetensors  output, grad.<parameter>, grad.hidden_states in float32
  exact.safetensors      the same in float64 ("masks" only): diffusers with its internal casts to
                         float32 lifted, except the sinusoids and rotary tables, which define the model
Versions and seed are in the metadata of reference.safetensors. Weights are stored as bfloat16 and were
rounded to it before the run. `sharded` and `float16` are "no-blocks" in several files, and in float16.
"""

import json
import pathlib
import platform

import diffusers
import peft
import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.models import embeddings, normalization
from diffusers.models.transformers import transformer_hunyuan_video
from safetensors.torch import save_file

SEED = 20261121
ROOT = pathlib.Path(__file__).resolve().parent.parent / "hunyuanvideo"
METADATA = {
    "format": "pt", "seed": str(SEED), "torch": torch.__version__, "peft": peft.__version__,
    "diffusers": diffusers.__version__, "python": platform.python_version(),
}

BASE = dict(
    in_channels=4, out_channels=3, num_attention_heads=2, attention_head_dim=12, num_layers=1,
    num_single_layers=1, num_refiner_layers=1, mlp_ratio=2.0, patch_size=2, patch_size_t=1,
    guidance_embeds=True, text_embed_dim=10, pooled_projection_dim=6, rope_theta=256.0,
    rope_axes_dim=(4, 4, 4))

# name: configuration, latent (F, H, W), mask rows, times, guidance
CASES = {
    "masks": (
        dict(BASE, num_layers=2, num_single_layers=2, rope_axes_dim=(2, 4, 6)), (3, 4, 6),
        [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], [937.5, 12.25], [6016.0, 1000.0]),
    "odd-sizes": (
        dict(BASE, num_attention_heads=3, rope_axes_dim=(4, 6, 2), in_channels=7,
             guidance_embeds=False, mlp_ratio=2.7),
        (2, 5, 7), [[1] * 4], [500.0], None),
    "scattered-mask": (
        dict(BASE, attention_head_dim=10, rope_axes_dim=(2, 4, 4), patch_size_t=2,
             num_refiner_layers=2, out_channels=5), (5, 2, 4),
        [[0, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1]], [0.0, 1000.0, 333.25],
        [3500.0, 1.5, 0.0]),
    "no-blocks": (
        dict(BASE, num_layers=0, num_single_layers=0, num_refiner_layers=0, patch_size=1),
        (1, 2, 3), [[1, 0]], [250.0], [1000.0]),
}


def build(config, dtype):
    torch.manual_seed(SEED)
    model = HunyuanVideoTransformer3DModel(**config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and parameter.dim() == 1 and "linear" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3 + (0 if "bias" in name else 1))
            parameter.copy_(parameter.to(torch.bfloat16).float())
    return model.to(dtype)


def draw(config, size, mask, times, guidance):
    generator = torch.Generator().manual_seed(SEED + 1)
    batch, tokens = len(mask), len(mask[0])
    frames, height, width = size
    p, pt = config["patch_size"], config["patch_size_t"]
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    inputs = dict(
        hidden_states=normal(batch, config["in_channels"], *size),
        timestep=torch.tensor(times),
        encoder_hidden_states=normal(batch, tokens, config["text_embed_dim"]),
        encoder_attention_mask=torch.tensor(mask),
        pooled_projections=normal(batch, config["pooled_projection_dim"]))
    if guidance is not None:
        inputs["guidance"] = torch.tensor(guidance)
    inputs["output_grad"] = normal(
        batch, config["out_channels"], frames // pt * pt, height // p * p, width // p * p)
    return inputs


def differentiate(model, inputs, dtype):
    arguments = {k: v.clone() for k, v in inputs.items() if k != "output_grad"}
    for key in ("hidden_states", "encoder_hidden_states", "pooled_projections"):
        arguments[key] = arguments[key].to(dtype)
    arguments["hidden_states"].requires_grad_()
    output = model(**arguments).sample
    output.backward(inputs["output_grad"].to(dtype))
    result = {"output": output.detach(), "grad.hidden_states": arguments["hidden_states"].grad}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            result[f"grad.{name}"] = parameter.grad
    return {k: v.contiguous() for k, v in result.items()}


def differentiate_exactly(config, inputs):
    """float64 throughout: RMSNorm and the rotation no longer pass through float32."""
    norm = normalization.RMSNorm.forward
    rotate = embeddings.apply_rotary_emb

    def exact_norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight

    def exact_rotation(x, freqs, sequence_dim=1, **_):
        cos, sin = (f.double()[None, :, None, :] for f in freqs)
        real, imaginary = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        return x * cos + torch.stack([-imaginary, real], -1).flatten(3) * sin

    normalization.RMSNorm.forward, embeddings.apply_rotary_emb = exact_norm, exact_rotation
    # Angles are rounded to float32 as in the original; their sines and cosines are not.
    sinusoid, rotary = embeddings.get_timestep_embedding, embeddings.get_1d_rotary_pos_embed

    def exact_sinusoid(timesteps, embedding_dim, **_):
        half = embedding_dim // 2
        exponent = -torch.log(torch.tensor(1e4, dtype=torch.float64)).float().item()
        frequencies = torch.exp(exponent * torch.arange(half, dtype=torch.float32) / half)
        angles = (timesteps[:, None].float() * frequencies[None]).double()
        return torch.cat([angles.cos(), angles.sin()], -1)

    def exact_rotary(dim, pos, theta, **_):
        frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        angles = torch.outer(pos, frequencies).double()
        return [f.repeat_interleave(2, dim=1) for f in (angles.cos(), angles.sin())]

    embeddings.get_timestep_embedding = exact_sinusoid
    transformer_hunyuan_video.get_1d_rotary_pos_embed = exact_rotary
    try:
        return differentiate(build(config, torch.float64), inputs, torch.float64)
    finally:
        normalization.RMSNorm.forward, embeddings.apply_rotary_emb = norm, rotate
        embeddings.get_timestep_embedding = sinusoid
        transformer_hunyuan_video.get_1d_rotary_pos_embed = rotary


def write_adapter(folder, config, inputs):
    """A PEFT adapter with nonzero B: outputs and factor gradients at weights 1 and 0.25."""
    targets = []
    for block in range(config["num_layers"]):
        targets += [f"transformer_blocks.{block}.{m}" for m in (
            "attn.to_q", "attn.add_k_proj", "attn.to_out.0", "ff.net.0.proj", "ff_context.net.2")]
    for block in range(config["num_single_layers"]):
        targets += [f"single_transformer_blocks.{block}.{m}" for m in (
            "attn.to_k", "attn.to_v", "proj_mlp", "proj_out")]
    torch.manual_seed(SEED + 2)
    model = peft.get_peft_model(
        build(config, torch.float32),
        peft.LoraConfig(r=3, lora_alpha=6, target_modules=targets, lora_dropout=0.0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    result = {}
    for weight in (1.0, 0.25):
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.set_scale("default", weight)
        model.zero_grad()
        out = differentiate(model, inputs, torch.float32)
        for name, tensor in out.items():
            result[f"{weight}.{name.replace('.default', '')}"] = tensor.clone()
    save_file(result, folder / "reference.safetensors", METADATA)


def main():
    for name, (config, size, mask, times, guidance) in CASES.items():
        folder = ROOT / name
        model = build(config, torch.float32)
        build(config, torch.bfloat16).save_pretrained(folder)
        inputs = draw(config, size, mask, times, guidance)
        save_file(inputs, folder / "inputs.safetensors", METADATA)
        save_file(differentiate(model, inputs, torch.float32), folder / "reference.safetensors", METADATA)
        if name == "masks":
            save_file(differentiate_exactly(config, inputs), folder / "exact.safetensors", METADATA)
            write_adapter(folder / "adapter", config, inputs)
    # The same weights as other types and in several files with an index, to be loaded only.
    config = CASES["no-blocks"][0]
    build(config, torch.float32).save_pretrained(ROOT / "sharded", max_shard_size="25KB")
    build(config, torch.float16).save_pretrained(ROOT / "float16")


if __name__ == "__main__":
    main()

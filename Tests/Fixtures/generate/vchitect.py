#!/usr/bin/env python3
"""Dumps tiny Vchitect-2.0 transformers with inputs, outputs and all gradients in float64.

Usage: python vchitect.py   (writes ../vchitect/; torch, safetensors on CPU)

The reference below is written from the equations of the specification (sections 2 and 3), one clip, one
frame, one token and one head at a time, so that it shares neither code nor layout with what it checks.
Each case is a folder with config.json and diffusion_pytorch_model.safetensors as the released model's, and
  inputs.safetensors     the arguments of forward, and output_grad
  reference.safetensors  output, grad.<parameter>, grad.hidden_states
Rounded to float32 are, as in the released code, times and frequencies of the sinusoids, angles of the
rotary positions and the position table; nothing else. Weights are stored as bfloat16 and were rounded to
it before the run. Versions and seed are in the metadata of reference.safetensors.
"""

import json
import math
import pathlib
import platform

import torch
from safetensors.torch import save_file

SEED = 20261121
ROOT = pathlib.Path(__file__).resolve().parent.parent / "vchitect"
METADATA = {
    "format": "pt", "seed": str(SEED), "torch": torch.__version__,
    "python": platform.python_version(),
}
RATIO = 4  # MLP width over model width

BASE = dict(
    mdb="v2", sample_size=10, patch_size=2, in_channels=4, out_channels=3, num_layers=2,
    num_attention_heads=3, attention_head_dim=4, joint_attention_dim=7, caption_projection_dim=12,
    pooled_projection_dim=5, pos_embed_max_size=6, rope_scaling_factor=1.0, rope_theta=1e6,
    spatial_gain=1.0)

# name: configuration, latent (F, H, W), text tokens, times of the clips
CASES = {
    "v2": (dict(BASE, spatial_gain=1.1, rope_scaling_factor=1.5), (3, 7, 10), 5, [1000.0, 12.25]),
    "v1": (
        dict(BASE, mdb="v1", num_attention_heads=2, attention_head_dim=6), (2, 6, 6), 4,
        [333.5, 750.0]),
    "image": (
        dict(BASE, num_attention_heads=2, caption_projection_dim=8, out_channels=5), (1, 4, 6), 3,
        [500.0, 0.0, 961.0]),
}


def width(config):
    return config["num_attention_heads"] * config["attention_head_dim"]


def shapes(config):
    """Names and shapes of all linear layers, without .weight and .bias."""
    d, p = width(config), config["patch_size"]
    layers = {
        "pos_embed.proj": (d, config["in_channels"], p, p),
        "time_text_embed.timestep_embedder.linear_1": (d, 256),
        "time_text_embed.timestep_embedder.linear_2": (d, d),
        "time_text_embed.text_embedder.linear_1": (d, config["pooled_projection_dim"]),
        "time_text_embed.text_embedder.linear_2": (d, d),
        "context_embedder": (d, config["joint_attention_dim"]),
        "norm_out.linear": (2 * d, d),
        "proj_out": (p * p * config["out_channels"], d),
    }
    for block in range(config["num_layers"]):
        last = block == config["num_layers"] - 1
        attention = ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"]
        attention += [] if last else ["to_add_out"]
        if config["mdb"] == "v2":
            attention += [
                "to_q_cross", "to_q_temp", "to_k_temp", "to_v_temp", "to_out_temporal",
                "to_add_out_temporal", "to_out_context"]
        names = {"norm1.linear": (6 * d, d), "norm1_context.linear": ((2 if last else 6) * d, d)}
        names |= {f"attn.{name}": (d, d) for name in attention}
        for mlp in ["ff"] if last else ["ff", "ff_context"]:
            names |= {f"{mlp}.net.0.proj": (RATIO * d, d), f"{mlp}.net.2": (d, RATIO * d)}
        layers |= {f"transformer_blocks.{block}.{name}": shape for name, shape in names.items()}
    return layers


def draw_weights(config):
    generator = torch.Generator().manual_seed(SEED)
    weights = {}
    for name, shape in shapes(config).items():
        fan_in = math.prod(shape[1:])
        weights[f"{name}.weight"] = torch.randn(*shape, generator=generator) / math.sqrt(fan_in)
        weights[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.3
    return {name: w.to(torch.bfloat16) for name, w in weights.items()}


def draw_inputs(config, size, text_count, times):
    generator = torch.Generator().manual_seed(SEED + 1)
    clips, p = len(times), config["patch_size"]
    frames, height, columns = size
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    return dict(
        hidden_states=normal(clips, config["in_channels"], *size), timestep=torch.tensor(times),
        encoder_hidden_states=normal(clips, text_count, config["joint_attention_dim"]),
        pooled_projections=normal(clips, config["pooled_projection_dim"]),
        output_grad=normal(
            clips, config["out_channels"], frames, height // p * p, columns // p * p))


def position(config, row, column, rows, columns):
    """The vector of one token: half of it for its column, half for its row, from the table's middle."""
    size, quarter = config["pos_embed_max_size"], width(config) // 4
    scale = torch.tensor(size / (config["sample_size"] // config["patch_size"]))
    halves = []
    for index, count in ((column, columns), (row, rows)):
        place = torch.tensor(float((size - count) // 2 + index)) / scale
        angles = [place.double() * 10_000.0 ** (-k / quarter) for k in range(quarter)]
        halves += [torch.sin(a) for a in angles] + [torch.cos(a) for a in angles]
    return torch.stack(halves).float()


class Reference:
    """The network on one clip."""

    def __init__(self, config, parameters):
        self.config, self.parameters = config, parameters
        self.heads, self.head_width = config["num_attention_heads"], config["attention_head_dim"]

    def linear(self, name, x):
        weight = self.parameters[f"{name}.weight"]
        return x @ weight.reshape(weight.shape[0], -1).T + self.parameters[f"{name}.bias"]

    def attention(self, q, k, v):
        """softmax(q kᵀ / √K) v, head by head; [queries, D], [keys, D]."""
        out = []
        for head in range(self.heads):
            part = slice(head * self.head_width, (head + 1) * self.head_width)
            scores = q[:, part] @ k[:, part].T / math.sqrt(self.head_width)
            out.append(torch.softmax(scores, dim=-1) @ v[:, part])
        return torch.cat(out, dim=1)

    def rotate(self, x, frame):
        """R_f of one token: pairs (a, b) of every head turn by f / ρ · θ^(−2i/K)."""
        turned = x.clone()
        for i in range(self.head_width // 2):
            exponent = torch.tensor(2.0 * i) / self.head_width
            frequency = 1.0 / self.config["rope_theta"] ** exponent
            place = torch.tensor(float(frame)) / self.config["rope_scaling_factor"]
            angle = (place * frequency).double()
            for head in range(self.heads):
                a, b = head * self.head_width + 2 * i, head * self.head_width + 2 * i + 1
                turned[a] = x[a] * torch.cos(angle) - x[b] * torch.sin(angle)
                turned[b] = x[b] * torch.cos(angle) + x[a] * torch.sin(angle)
        return turned

    def temporal(self, q, k, v):
        """Lists over frames of [tokens, D]: every token by itself over all frames."""
        frames, tokens = len(q), q[0].shape[0]
        columns = []
        for s in range(tokens):
            columns.append(self.attention(
                torch.stack([self.rotate(q[f][s], f) for f in range(frames)]),
                torch.stack([self.rotate(k[f][s], f) for f in range(frames)]),
                torch.stack([v[f][s] for f in range(frames)])))
        return [torch.stack([columns[s][f] for s in range(tokens)]) for f in range(frames)]

    def norm(self, x):
        centered = x - x.mean(-1, keepdim=True)
        return centered / torch.sqrt((centered ** 2).mean(-1, keepdim=True) + 1e-6)

    def mlp(self, name, x):
        hidden = self.linear(f"{name}.net.0.proj", x)
        inner = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden ** 3)
        return self.linear(f"{name}.net.2", 0.5 * hidden * (1 + torch.tanh(inner)))

    def condition(self, time, pooled):
        """SiLU of e = MLP(sinusoid(time)) + MLP(pooled)."""
        silu = torch.nn.functional.silu
        exponent = -torch.log(torch.tensor(1e4, dtype=torch.float64)).float().item()
        frequencies = torch.exp(exponent * torch.arange(128, dtype=torch.float32) / 128)
        angles = (time * frequencies).double()
        e = 0
        for name, x in (
            ("timestep_embedder", torch.cat([angles.cos(), angles.sin()])), ("text_embedder", pooled)):
            layer = f"time_text_embed.{name}.linear_"
            e = e + self.linear(f"{layer}2", silu(self.linear(f"{layer}1", x)))
        return silu(e)

    def block(self, name, x, y, e, last):
        """x, y: lists over frames of [S, D] and [T, D]."""
        frames, d = range(len(x)), width(self.config)
        count = x[0].shape[0]
        lin = lambda layer, streams: [self.linear(f"{name}.attn.{layer}", s) for s in streams]
        shift, scale, gate, shift2, scale2, gate2 = self.linear(f"{name}.norm1.linear", e).split(d)
        text = self.linear(f"{name}.norm1_context.linear", e).split(d)
        text_scale, text_shift = (text[0], text[1]) if last else (text[1], text[0])
        xs = [self.norm(s) * (1 + scale) + shift for s in x]
        ys = [self.norm(s) * (1 + text_scale) + text_shift for s in y]

        uq, uk, uv = (lin(f"add_{n}_proj", ys) for n in "qkv")
        join = lambda image, text: [torch.cat([image[f], text[f]]) for f in frames]
        q, k, v = (join(lin(f"to_{n}", xs), u) for n, u in zip("qkv", (uq, uk, uv)))
        spatial = [self.attention(q[f], k[f], v[f]) for f in frames]
        iota = 0.0 if len(x) == 1 else 1.0
        if self.config["mdb"] == "v1":
            temporal = self.temporal(q, k, v)
            merged = [spatial[f] + iota * temporal[f] for f in frames]
            dx = lin("to_out.0", [m[:count] for m in merged])
            dy = None if last else lin("to_add_out", [m[count:] for m in merged])
        else:
            qt, kt, vt = (join(lin(f"to_{n}_temp", xs), u) for n, u in zip("qkv", (uq, uk, uv)))
            temporal = self.temporal(qt, kt, vt)
            qc = join(lin("to_q_cross", xs), uq)
            cross = lin("to_out_context", [self.attention(qc[f], uk[0], uv[0]) for f in frames])
            merged = [self.config["spatial_gain"] * spatial[f] + cross[f] for f in frames]

            def delta(out, part):
                own = lin(out[0], [m[part] for m in merged])
                along = lin(out[1], [t[part] for t in temporal])
                return [own[f] + iota * along[f] for f in frames]

            dx = delta(("to_out.0", "to_out_temporal"), slice(0, count))
            dy = None if last else delta(
                ("to_add_out", "to_add_out_temporal"), slice(count, None))

        x = [x[f] + gate * dx[f] for f in frames]
        x = [s + gate2 * self.mlp(f"{name}.ff", self.norm(s) * (1 + scale2) + shift2) for s in x]
        if last:
            return x, None
        y = [y[f] + text[2] * dy[f] for f in frames]
        y = [
            s + text[5] * self.mlp(f"{name}.ff_context", self.norm(s) * (1 + text[4]) + text[3])
            for s in y]
        return x, y

    def forward(self, latents, time, text, pooled):
        """[C, F, H, W], a number, [T, E], [P] → [Cout, F, H', W']."""
        p, out_channels = self.config["patch_size"], self.config["out_channels"]
        frames, rows, columns = latents.shape[1], latents.shape[2] // p, latents.shape[3] // p
        e = self.condition(time, pooled)
        x = []
        for f in range(frames):
            tokens = []
            for i in range(rows):
                for j in range(columns):
                    patch = latents[:, f, i * p:(i + 1) * p, j * p:(j + 1) * p].reshape(-1)
                    table = position(self.config, i, j, rows, columns).double()
                    tokens.append(self.linear("pos_embed.proj", patch) + table)
            x.append(torch.stack(tokens))
        y = [self.linear("context_embedder", text)] * frames
        count = self.config["num_layers"]
        for block in range(count):
            x, y = self.block(f"transformer_blocks.{block}", x, y, e, block == count - 1)
        scale, shift = self.linear("norm_out.linear", e).split(width(self.config))
        planes = []
        for f in range(frames):
            patches = self.linear("proj_out", self.norm(x[f]) * (1 + scale) + shift)
            lines = []
            for i in range(rows):
                lines.append(torch.cat([
                    patches[i * columns + j].reshape(p, p, out_channels).movedim(2, 0)
                    for j in range(columns)], dim=2))
            planes.append(torch.cat(lines, dim=1))
        return torch.stack(planes, dim=1)


def differentiate(config, weights, inputs):
    parameters = {name: w.double().requires_grad_() for name, w in weights.items()}
    latents = inputs["hidden_states"].double().requires_grad_()
    model = Reference(config, parameters)
    output = torch.stack([
        model.forward(
            latents[b], inputs["timestep"][b], inputs["encoder_hidden_states"][b].double(),
            inputs["pooled_projections"][b].double())
        for b in range(latents.shape[0])])
    output.backward(inputs["output_grad"].double())
    result = {"output": output.detach(), "grad.hidden_states": latents.grad}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            result[f"grad.{name}"] = parameter.grad
    return {name: tensor.contiguous() for name, tensor in result.items()}


def position_table(config):
    size = config["pos_embed_max_size"]
    return torch.stack([
        position(config, row, column, size, size) for row in range(size) for column in range(size)])


def main():
    torch.set_num_threads(1)
    for name, (config, size, text_count, times) in CASES.items():
        folder = ROOT / name
        folder.mkdir(parents=True, exist_ok=True)
        stored = dict(config, _class_name="VchitectXLTransformerModel", tp_size=1)
        (folder / "config.json").write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")
        weights, inputs = draw_weights(config), draw_inputs(config, size, text_count, times)
        save_file(
            dict(weights, **{"pos_embed.pos_embed": position_table(config)[None]}),
            folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        save_file(inputs, folder / "inputs.safetensors", METADATA)
        save_file(
            differentiate(config, weights, inputs), folder / "reference.safetensors", METADATA)


if __name__ == "__main__":
    main()

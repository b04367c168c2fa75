"""Writes Tests/Fixtures/safetensors/: files by the reference implementation, read by
Tests/CheckpointsTests. Run: python Tests/Fixtures/generate/safetensors_fixtures.py
Written with safetensors 0.8.0, torch 2.15.0."""

import json
import pathlib

import torch
from safetensors.torch import save_file

folder = pathlib.Path(__file__).parent.parent / "safetensors"
folder.mkdir(exist_ok=True)

# Values that each float type below holds exactly, so that tests compare with ==.
exact = torch.tensor([0.0, -0.0, 1.0, -2.5, 0.15625, 96.0, float("inf"), -(2.0**-10)])
tensors = {
    "f32": exact.reshape(2, 4),
    "f64": exact.double().reshape(4, 2),
    "f16": exact.half().reshape(2, 2, 2),
    "bf16": exact.bfloat16(),
    "i64": torch.tensor([-(2**62), 7]),
    "i32": torch.tensor([[-5], [2**31 - 1], [0]], dtype=torch.int32),
    "i16": torch.tensor([-300, 300], dtype=torch.int16),
    "i8": torch.tensor([-128, 127, 1], dtype=torch.int8),
    "u8": torch.tensor([0, 255, 3], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(3.5),
    "empty": torch.zeros(0, 4),
    'name "with" ünïcode\n': torch.tensor([1.0]),
}
save_file(tensors, folder / "all-types.safetensors", metadata={"format": "pt", "key ü": 'a "b"'})

# A diffusers-like folder in two shards.
model = folder / "sharded-model"
model.mkdir(exist_ok=True)
stem = "diffusion_pytorch_model"
parts = [
    {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([-1.0, 1.0])},
    {"b.weight": torch.arange(4.0).bfloat16().reshape(4, 1)},
]
weight_map = {}
for number, part in enumerate(parts, start=1):
    name = f"{stem}-{number:05d}-of-{len(parts):05d}.safetensors"
    save_file(part, model / name, metadata={"format": "pt"})
    weight_map |= {tensor: name for tensor in part}
total = sum(t.numel() * t.element_size() for part in parts for t in part.values())
index = {"metadata": {"total_size": total}, "weight_map": weight_map}
(model / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2))
(model / "config.json").write_text(
    json.dumps({"_class_name": "Example", "width": 24, "axes": [4, 6, 6]}, indent=2)
)

#!/usr/bin/env python3
"""Whole steps of bench-s on PyTorch, diffusers and PEFT: the twin of `w2svd bench step`.

usage: step.py [--mode forward|train|w2svd] [--dtype fp32|bf16] [--threads N] [--ranks N] [--fsdp] [--compile]
               [--checkpointing] [--optimizer fused|foreach] [--latent FxHxW] [--text-tokens N] [--repeats N]

bf16 is autocast over fp32 weights. --ranks starts that many processes of DistributedDataParallel over
gloo, one microbatch each; with --fsdp blocks are sharded instead (FSDP2). The last line is one JSON object.
"""

import argparse
import os
import socket

import measuring

ADAPTER_RANK, WEAK_WEIGHT, GUIDANCE, LEARNING_RATE = 32, 0.25, 5.0, 1e-5
CONFIGURATION = dict(
    in_channels=16, out_channels=16, num_attention_heads=6, attention_head_dim=64, num_layers=4,
    num_single_layers=8, num_refiner_layers=1, mlp_ratio=4.0, patch_size=2, patch_size_t=1,
    qk_norm="rms_norm", guidance_embeds=True, text_embed_dim=384, pooled_projection_dim=384,
    rope_theta=256.0, rope_axes_dim=(16, 24, 24))
# The linears of both block kinds, as our adapter takes them.
ADAPTED = (
    r"(transformer_blocks|single_transformer_blocks)\.\d+\.(attn\.(to_q|to_k|to_v|add_q_proj|add_k_proj"
    r"|add_v_proj|to_out\.0|to_add_out)|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mode", choices=["forward", "train", "w2svd"], default="train")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--fsdp", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--optimizer", choices=["fused", "foreach"], default="fused")
    parser.add_argument("--latent", default="5x32x32")
    parser.add_argument("--text-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


class Step:
    """The networks of a mode and one run of it."""

    def __init__(self, options, torch, rank=0):
        import copy

        from diffusers import HunyuanVideoTransformer3DModel

        self.options, self.torch = options, torch
        torch.manual_seed(0)
        base = HunyuanVideoTransformer3DModel(**CONFIGURATION)
        self.parameters = sum(parameter.numel() for parameter in base.parameters())
        if options.checkpointing:
            base.enable_gradient_checkpointing()
        torch.manual_seed(1 + rank)
        frames, height, width = (int(size) for size in options.latent.split("x"))
        self.latents = torch.randn(1, CONFIGURATION["in_channels"], frames, height, width)
        self.tokens = frames * height * width // CONFIGURATION["patch_size"] ** 2

        def text():
            return dict(
                encoder_hidden_states=torch.randn(
                    1, options.text_tokens, CONFIGURATION["text_embed_dim"]),
                encoder_attention_mask=torch.ones(1, options.text_tokens, dtype=torch.bool),
                pooled_projections=torch.randn(1, CONFIGURATION["pooled_projection_dim"]),
                guidance=torch.tensor([1000.0]))

        self.condition, self.null = text(), text()
        self.base = base
        if options.fsdp:
            self.shard(base)
        if options.mode == "train":
            self.optimizer = self.adamw(base.parameters())
        elif options.mode == "w2svd":
            from peft import LoraConfig, get_peft_model

            self.generator = copy.deepcopy(base)
            base.requires_grad_(False)
            self.base = get_peft_model(
                base, LoraConfig(
                    r=ADAPTER_RANK, lora_alpha=ADAPTER_RANK, target_modules=ADAPTED))
            self.adapted = [
                module for module in self.base.modules() if hasattr(module, "lora_A")]
            self.optimizer = self.adamw(self.generator.parameters())
            self.critic_optimizer = self.adamw(
                parameter for parameter in self.base.parameters() if parameter.requires_grad)
        self.forward_base, self.forward_generator = self.base, getattr(self, "generator", None)
        if options.ranks > 1 and not options.fsdp:
            from torch.nn.parallel import DistributedDataParallel

            # Its graph hooks need parameters that want gradients, and all of them to be used.
            if options.mode == "train":
                self.forward_base = DistributedDataParallel(self.base)
        if options.compile:
            self.forward_base = torch.compile(self.forward_base)
            if self.forward_generator is not None:
                self.forward_generator = torch.compile(self.forward_generator)

    def shard(self, network):
        """Parameters, gradients and optimizer state over all ranks, block by block (FSDP2)."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (self.options.ranks,))
        for block in [*network.transformer_blocks, *network.single_transformer_blocks]:
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)

    def adamw(self, parameters):
        return self.torch.optim.AdamW(
            parameters, lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.01,
            **{self.options.optimizer: True})

    def velocity(self, network, noisy, time, condition):
        with self.torch.autocast(
            "cpu", dtype=self.torch.bfloat16, enabled=self.options.dtype == "bf16"):
            return network(
                hidden_states=noisy, timestep=1000 * time, return_dict=False, **condition)[0]

    def set_adapter_weight(self, weight):
        for module in self.adapted:
            module.scaling["default"] = weight

    def run(self):
        return getattr(self, self.options.mode)()

    def forward(self):
        with self.torch.inference_mode():
            self.velocity(
                self.forward_base, self.latents, self.torch.tensor([0.5]), self.condition)
        return None

    def match_flow(self, network, clean):
        torch = self.torch
        noise, time = torch.randn_like(clean), torch.rand(1)
        velocity = self.velocity(network, (1 - time) * clean + time * noise, time, self.condition)
        loss = torch.nn.functional.mse_loss(velocity.float(), noise - clean)
        loss.backward()
        return loss.item()

    def train(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.match_flow(self.forward_base, self.latents)
        self.optimizer.step()
        return loss

    def w2svd(self):
        torch, one = self.torch, self.torch.ones(1)
        self.optimizer.zero_grad(set_to_none=True)
        noise = torch.randn_like(self.latents)
        x = noise - self.velocity(self.forward_generator, noise, one, self.condition).float()
        with torch.no_grad():
            fresh, time = torch.randn_like(x), torch.rand(1)
            noisy = (1 - time) * x + time * fresh

            def clean(velocity):
                return noisy - time * velocity.float()

            self.set_adapter_weight(1.0)
            fake = clean(self.velocity(self.forward_base, noisy, time, self.condition))
            self.set_adapter_weight(WEAK_WEIGHT)
            conditional = self.velocity(self.forward_base, noisy, time, self.condition)
            unconditional = self.velocity(self.forward_base, noisy, time, self.null)
            real = clean(unconditional + GUIDANCE * (conditional - unconditional))
            pull = (fake - real) / (x - real).abs().mean()
        loss = 0.5 * torch.nn.functional.mse_loss(x, (x - pull).detach())
        loss.backward()
        self.optimizer.step()

        self.set_adapter_weight(1.0)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss = self.match_flow(self.forward_base, x.detach())
        self.critic_optimizer.step()
        return loss


def measure(options, torch, rank=0):
    step = Step(options, torch, rank)
    loss, warm_up = None, 4 if options.compile else 2

    def run():
        nonlocal loss
        loss = step.run()

    for _ in range(warm_up):
        run()
    faults = measuring.page_faults()
    timing = measuring.time_runs(run, options.repeats, warm_up=0)
    return dict(
        timing, benchmark="step", implementation="pytorch" + ("-compile" if options.compile else ""),
        machine=measuring.machine(options.threads), model="bench-s", mode=options.mode,
        dtype=options.dtype, threads=options.threads, ranks=options.ranks,
        recompute=options.checkpointing, parameters=step.parameters, video_tokens=step.tokens,
        text_tokens=options.text_tokens, batch=options.ranks, loss=loss,
        tokens_per_s=options.ranks * step.tokens / timing["median_s"],
        page_faults_per_run=(measuring.page_faults() - faults) / options.repeats,
        peak_rss_bytes=measuring.peak_rss_bytes())


def rank_main(rank, options, port, results):
    torch = measuring.prepare(options.threads)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=options.ranks)
    result = measure(options, torch, rank)
    torch.distributed.destroy_process_group()
    results.put(result)


def main():
    options = arguments()
    if options.fsdp and options.ranks == 1:
        raise SystemExit("--fsdp is for several --ranks")
    if options.ranks == 1:
        measuring.report(measure(options, measuring.prepare(options.threads)))
        return
    if options.mode != "train":
        raise SystemExit("--ranks is for --mode train")
    import multiprocessing

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=rank_main, args=(rank, options, port, results))
        for rank in range(options.ranks)]
    for process in processes:
        process.start()
    ranks = [results.get() for _ in processes]
    for process in processes:
        process.join()
    slowest = max(ranks, key=lambda result: result["median_s"])
    slowest["peak_rss_bytes"] = sum(result["peak_rss_bytes"] for result in ranks)
    measuring.report(slowest)


if __name__ == "__main__":
    main()

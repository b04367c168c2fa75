// The register of all options. A new key is a decision: a test compares this list with a frozen one.

import Exchange

extension RunConfiguration {
  /// Every option, in the order in which the resolved configuration is written.
  package static let options: [ConfigurationOption] = [
    .integer("seed", \.seed, "", "Addresses every random number of the run."),

    .strings("data.paths", \.data.paths, "Video files to learn from; empty takes data.folder."),
    .string(
      "data.folder", \.data.folder,
      "Folder whose videos are taken when data.paths is empty; without any, a procedural talking "
        + "face is rendered."),
    .integer(
      "data.frameCount", \.data.frameCount, "frames", "Length of a clip; 1 + a multiple of 4."),
    .integer(
      "data.size", \.data.size, "pixels", "Width and height of a clip; a multiple of 8 from 16 on."),
    .integer(
      "data.shortSide", \.data.shortSide, "pixels",
      "Videos are scaled to this short side before a random crop of data.size."),
    .number(
      "data.holdout", \.data.holdout, "fraction",
      "Tail of each video that is kept from training and used to evaluate."),
    .number(
      "data.conditionDropout", \.data.conditionDropout, "fraction",
      "Share of training samples without first-frame conditioning."),
    .integer(
      "data.proceduralPeople", \.data.proceduralPeople, "videos",
      "How many procedural faces are rendered when there is no video."),
    .string(
      "data.text", \.data.text,
      "safetensors file of text embeddings (encoder_hidden_states, encoder_attention_mask, "
        + "pooled_projections); empty learns a null token."),

    .string(
      "model.checkpoint", \.model.checkpoint,
      "Hugging Face folder to start the real DiT from, whose sizes replace those below; empty "
        + "starts from random weights."),
    .choice(
      "model.architecture", \.model.architecture,
      "hunyuan-video: dual-stream, then single-stream blocks over all tokens of a clip; vchitect: dual-stream "
        + "blocks that attend within frames, along time and to the text."),
    .choice(
      "model.variant", \.model.variant,
      "Form of a vchitect block: v2 has projections of its own for each of three branches; v1 two branches "
        + "that share them."),
    .number(
      "model.spatialGain", \.model.spatialGain, "",
      "Factor of the spatial branch of a vchitect block of form v2; the released sampler has 1.1 "
        + "(w2svd sample --spatial-gain)."),
    .integer("model.heads", \.model.heads, "heads", "Attention heads."),
    .integer(
      "model.headWidth", \.model.headWidth, "elements", "Width of a head; a multiple of 16."),
    .integer(
      "model.doubleBlocks", \.model.doubleBlocks, "blocks",
      "Dual-stream blocks; of vchitect all blocks."),
    .integer("model.singleBlocks", \.model.singleBlocks, "blocks", "Single-stream blocks."),
    .integer("model.refinerBlocks", \.model.refinerBlocks, "blocks", "Token refiner blocks."),
    .number("model.mlpRatio", \.model.mlpRatio, "", "Hidden width of an MLP over the model width."),
    .integer(
      "model.textTokens", \.model.textTokens, "tokens",
      "Learned null text tokens. Vchitect has no text mask: there texts of data.text are padded with zeros to "
        + "as many."),
    .integer("model.textWidth", \.model.textWidth, "elements", "Width of a text embedding."),
    .integer(
      "model.pooledWidth", \.model.pooledWidth, "elements", "Width of a pooled text vector."),
    .flag(
      "model.guidanceEmbedding", \.model.guidanceEmbedding,
      "Gives the model an embedded guidance input."),
    .flag(
      "model.recompute", \.model.recompute,
      "Recomputes blocks in the backward pass instead of storing their activations."),
    .number(
      "model.recomputedShare", \.model.recomputedShare, "fraction",
      "Share of the blocks that model.recompute recomputes, evenly spread; 1: all."),
    .flag(
      "model.offload", \.model.offload,
      "Keeps the inputs of recomputed blocks in a file until the way back, at most three of them in "
        + "memory, however many microbatches mesh.schedule has in flight; needs model.recompute. The same bits."
    ),
    .string(
      "model.offloadFolder", \.model.offloadFolder,
      "Folder of that file, which has no name there; best on a disk of the node. Empty: the run folder."
    ),

    .choice(
      "compute.precision", \.compute.precision,
      "Operands of the networks' matrix products: bf16 (sums, parameters and all else stay fp32), "
        + "fp32, or auto (what a resumed run began with, else bf16 where every rank's CPU multiplies "
        + "it itself)."),
    .integer(
      "compute.threads", \.compute.threads, "threads",
      "Threads that the kernels of a rank share, each wanting a core of its own (mpirun --bind-to none "
        + "or --map-by slot:PE=<threads>); on CPUs with AVX-512 no bit depends on it."),
    .choice(
      "compute.packedWeights", \.compute.packedWeights,
      "Whether W and the generator are kept in the words that bf16 products read as well: up to a tenth "
        + "faster, half of their memory more, the same bits. auto: where a rank's microbatch has at most "
        + "4096 tokens, parameters are not sharded and mesh.memoryPerRank sets no limit."),

    .integer(
      "batch.microbatches", \.batch.microbatches, "microbatches",
      "Units of work of a step; at most this many ranks can take part."),
    .integer("batch.samples", \.batch.samples, "samples", "Samples of a microbatch."),

    .integer("teach.steps", \.teach.steps, "steps", "Flow-matching updates of the real DiT."),
    .number(
      "teach.learningRate", \.teach.learningRate, "", "Peak learning rate; falls by a cosine."),
    .integer("teach.warmupSteps", \.teach.warmupSteps, "steps", "Linear warm-up."),
    .number("teach.beta1", \.teach.beta1, "", "AdamW's decay of the first moment."),
    .number("teach.beta2", \.teach.beta2, "", "AdamW's decay of the second moment."),
    .number("teach.weightDecay", \.teach.weightDecay, "", "AdamW's decoupled weight decay."),
    .number("teach.clip", \.teach.clip, "", "Largest gradient norm; longer ones are scaled down."),
    .number(
      "teach.ema", \.teach.ema, "", "Decay of the parameter average that becomes the teacher."),
    .number("teach.shift", \.teach.shift, "", "Shift of the logit-normal training times."),

    .choice(
      "distill.method", \.distill.method,
      "w2s: weak-to-strong distribution matching; dmd2: the same with alphaWeak 0; lcm: latent "
        + "consistency; euler: no training, the teacher with few steps."),
    .integer(
      "distill.steps", \.distill.steps, "steps",
      "Critic updates; every criticRatio-th step also updates the generator (lcm: each step)."),
    .integer(
      "distill.generatorSteps", \.distill.generatorSteps, "steps",
      "Network evaluations of the student, 1 to 4 in practice."),
    .integer(
      "distill.criticRatio", \.distill.criticRatio, "",
      "Critic updates per generator update; the paper's code base uses 5."),
    .number(
      "distill.alphaWeak", \.distill.alphaWeak, "",
      "Weight of the fake LoRA on the real DiT, 0 to 1; 0 is plain DMD2."),
    .number(
      "distill.alphaStrong", \.distill.alphaStrong, "", "Weight of the fake LoRA on the fake DiT."),
    .number(
      "distill.guidance", \.distill.guidance, "",
      "Classifier-free guidance of the real DiT in the score; 1 is none, one pass less."),
    .choice(
      "distill.rollout", \.distill.rollout,
      "Input of the generator in training: simulate (its own earlier steps) or data (noised truth)."
    ),
    .choice(
      "distill.depths", \.distill.depths,
      "Which of the student's steps a training step trains: shared draws one for all microbatches, "
        + "spread gives them to the microbatches in turn (less noise, uneven work per rank)."),
    .number("distill.flowShift", \.distill.flowShift, "", "Time shift of every sampling schedule."),
    .number("distill.scoreShift", \.distill.scoreShift, "", "Time shift of the score terms."),
    .number(
      "distill.scoreMinimum", \.distill.scoreMinimum, "", "Smallest time of the score terms."),
    .number("distill.scoreMaximum", \.distill.scoreMaximum, "", "Largest time of the score terms."),
    .number(
      "distill.lambdaGroundTruth", \.distill.lambdaGroundTruth, "",
      "Weight of the ground-truth term; needs rollout data."),
    .choice(
      "distill.groundTruthTerm", \.distill.groundTruthTerm,
      "Ground-truth term: matched pulls from the fake DiT's estimate to the truth, normalized as the "
        + "matching is; plain is the mean squared error of the sample."),
    .number(
      "distill.lambdaAdversarial", \.distill.lambdaAdversarial, "",
      "Weight of the adversarial term in the generator's loss; 0 leaves the discriminator out."),
    .number(
      "distill.lambdaDiscriminator", \.distill.lambdaDiscriminator, "",
      "Weight of the discriminator's loss."),
    .integer(
      "distill.discriminatorWidth", \.distill.discriminatorWidth, "elements",
      "Hidden width of the discriminator head."),
    .integer("distill.loraRank", \.distill.loraRank, "", "Rank of the fake DiT's LoRA."),
    .number("distill.loraAlpha", \.distill.loraAlpha, "", "LoRA alpha; its scale is alpha / rank."),
    .number(
      "distill.generatorLearningRate", \.distill.generatorLearningRate, "",
      "Peak learning rate of the generator."),
    .choice(
      "distill.schedule", \.distill.schedule,
      "Course of the generator's learning rate: cosine falls to zero at the last step, so that the "
        + "critic, whose rate stays, catches up; constant stays at the peak."),
    .number(
      "distill.criticLearningRate", \.distill.criticLearningRate, "",
      "Learning rate of the LoRA and the discriminator head."),
    .number("distill.beta1", \.distill.beta1, "", "AdamW's decay of the first moment."),
    .number("distill.beta2", \.distill.beta2, "", "AdamW's decay of the second moment."),
    .number("distill.weightDecay", \.distill.weightDecay, "", "AdamW's decoupled weight decay."),
    .number("distill.clip", \.distill.clip, "", "Largest gradient norm of each network."),
    .number("distill.ema", \.distill.ema, "", "Decay of the generator's average; 0 turns it off."),
    .number(
      "distill.consistencyEMA", \.distill.consistencyEMA, "", "Decay of lcm's target network."),

    .integer("sample.clips", \.sample.clips, "clips", "Videos in each sample sheet."),
    .integer("sample.teacherSteps", \.sample.teacherSteps, "steps", "Steps of the full teacher."),
    .choice("sample.rule", \.sample.rule, "How the student goes from step to step."),

    .integer(
      "evaluate.samples", \.evaluate.samples, "clips",
      "Clips per sampler in the table; the Fréchet distance falls with their number."),
    .integer(
      "evaluate.batch", \.evaluate.batch, "clips",
      "Clips sampled at once by a rank, or by those that train together."),

    .integer(
      "checkpoint.everySteps", \.checkpoint.everySteps, "steps", "Steps between checkpoints."),
    .integer("checkpoint.keep", \.checkpoint.keep, "checkpoints", "Newest checkpoints that stay."),

    .degree(
      "mesh.dp", \.mesh.dp,
      "Replicas of the sharded state; dp × zero is the data-parallel degree. With zero 1 every rank holds "
        + "all. auto: 1."),
    .degree(
      "mesh.zero", \.mesh.zero, "Ranks that share microbatches and shard what zeroStage says."),
    .number(
      "mesh.zeroStage", \.mesh.zeroStage,
      "What all ranks shard: 1 optimizer state and averages; 2 gradients too, summed block by block; 3 "
        + "parameters too, of which a rank has a block only while it runs. auto: the lowest stage that "
        + "keeps within memoryPerRank."),
    .degree(
      "mesh.sp", \.mesh.sp,
      "Ranks that share the tokens of a microbatch, in attention its heads (Ulysses); it divides the "
        + "heads. auto: 1 while the microbatches suffice for all ranks."),
    .choice(
      "mesh.sequencePlan", \.mesh.sequencePlan,
      "What vchitect exchanges over sp ranks: spatial, the tokens of that branch and the text of first "
        + "frames; all, the tokens of every branch. Other architectures have one attention a block."
    ),
    .choice(
      "mesh.sums", \.mesh.sums,
      "How sums over the tokens of a microbatch, and over heads and hidden units, are made: fast, each rank's at once, "
        + "so that mesh.sp and mesh.tp change the last bits; canonical, in 8 fixed blocks and slices and one tree, so "
        + "that mesh.sp × mesh.tp of 1, 2, 4 and 8 give the same bits (CPUs with AVX-512; without ring; vchitect's form "
        + "v2 with sp by sequencePlan all). Canonical runs have other last bits than fast ones, and are slower: "
        + "by a few percent where tokens are many, by half where they are a hundred."),
    .degree(
      "mesh.ring", \.mesh.ring,
      "Ranks that share the tokens of a microbatch, each attending with its queries to the keys and "
        + "values of all, which go round (ring attention); any degree, also times sp. auto: 1."),
    .degree(
      "mesh.tp", \.mesh.tp,
      "Ranks that cut the weights of blocks among them, and share the tokens between blocks (tensor "
        + "parallelism); with zeroStage 3; tp × sp divides the heads, tp the MLP's hidden units, with canonical sums "
        + "the largest power of two up to 8 that divides both. auto: 1."
    ),
    .degree(
      "mesh.stages", \.mesh.stages,
      "Stages of a pipeline, each with a stretch of the blocks and what belongs to them; with zeroStage 3; "
        + "the ranks of a stage may share tokens (ring, sp) and cut weights (tp). auto: 1."),
    .choice(
      "mesh.schedule", \.mesh.schedule,
      "How a stage orders microbatches: gpipe, all forward, then all back; 1f1b, of at most as many as there are "
        + "stages at once, so that no more activations are held."),
    .word(
      "mesh.stageKind", \.mesh.stageKind, among: ["pipeline"], "What a stage is."),
    .choice(
      "mesh.placement", \.mesh.placement,
      "Which ranks hold which role while the student is distilled: colocated, all ranks a part of each; split, "
        + "the last generatorRanks ranks the generator and all others W, the fake DiT and what scores samples, "
        + "each set a mesh of its own, with the same bits. auto: colocated, unless only split keeps within "
        + "memoryPerRank."),
    .degree(
      "mesh.generatorRanks", \.mesh.generatorRanks,
      "Ranks of a split placement that hold the generator. auto: as many as make the shortest steps."
    ),
    .number(
      "mesh.generatorZeroStage", \.mesh.generatorZeroStage,
      "What the generator ranks of a split placement shard among them, as zeroStage, which then says it of "
        + "the score ranks and of the phases that run on all ranks. auto: as zeroStage, or 3 where these ranks "
        + "alone cut weights or blocks."),
    .degree(
      "mesh.generatorDp", \.mesh.generatorDp,
      "Replicas among the generator ranks of a split placement, as dp, which then says it of the score ranks and "
        + "of the phases that run on all ranks. auto: as dp."),
    .degree(
      "mesh.generatorRing", \.mesh.generatorRing,
      "The same of ring: generator ranks that keys and values go round. auto: as ring."),
    .degree(
      "mesh.generatorSp", \.mesh.generatorSp,
      "The same of sp: generator ranks that share the tokens of a microbatch. auto: as sp, 1 where that is auto."
    ),
    .degree(
      "mesh.generatorTp", \.mesh.generatorTp,
      "The same of tp: generator ranks that cut the weights of blocks. auto: as tp."),
    .degree(
      "mesh.generatorStages", \.mesh.generatorStages,
      "The same of stages: of a pipeline of the generator's blocks. auto: as stages."),
    .integer(
      "mesh.memoryPerRank", \.mesh.memoryPerRank, "bytes",
      "Memory that the process of a rank may take; of the legal layouts that keep within it the fastest by "
        + "prediction is taken, and without one the run is refused. Memory of tensors that are gone is given back where it "
        + "would not be kept otherwise. 0: no limit."),

    .choice(
      "exchange.codec", \.exchange.codec,
      "Lossless coding of gradients and parameters on the wire: off, planes, or auto (off inside "
        + "one node, else where it pays)."),
    .integer(
      "exchange.bucketByteCount", \.exchange.bucketByteCount, "bytes",
      "Size of one unit of exchange."),
    .choice(
      "exchange.overlap", \.exchange.overlap,
      "Whether messages travel while something is computed: at stages 2 and 3 of mesh.zeroStage the "
        + "next block's parameters and the last one's gradients, with mesh.sp queries, keys and values: "
        + "on, or off, which takes memory for a block of either less."),

    .number(
      "log.everySeconds", \.log.everySeconds, "seconds",
      "Time between progress lines where the output is not a terminal."),
  ]
}

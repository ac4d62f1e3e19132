"""The vocabulary of what may be wrong: a slug, and what to do about it. `docs/causes.md` lists the same."""

CAUSES: dict[str, str] = {
    # the loss
    "softmax-before-cross-entropy": "Hand the logits to the cross-entropy: it takes the softmax itself.",
    "softmax-in-model": "Take the softmax out of the model, and apply it in `predict` only.",
    "softmax-over-batch": "Take the softmax over the classes, `dim=1` or `dim=-1`, not over the batch.",
    "sigmoid-before-loss": (
        "Hand the logits to `binary_cross_entropy_with_logits`: it takes the sigmoid itself."
    ),
    "activation-on-logits": "Leave the last layer without an activation: logits must be free to be negative.",
    "nll-on-raw-logits": "Use `cross_entropy`, or `log_softmax` before `nll_loss`.",
    "loss-sign-flipped": "Return the loss itself, to be minimised, not its negative.",
    "sum-reduction": "Use `reduction='mean'`: with a sum the learning rate depends on the batch size.",
    "mse-for-classification": "Use the cross-entropy on logits; the squared error learns more slowly.",
    "label-smoothing-too-strong": "Set `label_smoothing` to 0.1 or less.",
    "wrong-loss": (
        "Look at what the loss is given: logits (B, K), targets (B,), in this order, for this sample."
    ),
    "loss-detached": (
        "Return a loss that depends on the weights: no `.item()`, `.detach()` or `no_grad` before it."
    ),
    "label-leak": "Look at the forward pass: it is given the labels, or something made of them.",
    # the data
    "raw-pixels": "Scale the pixels: `normalize='channel_mean_std'`, or divide by 255 and standardise.",
    "double-normalization": "Normalise once: in the datamodule or in the module, not in both.",
    "input-scale": "Standardise the inputs to mean 0 and standard deviation 1 (a pretrained net: its own).",
    "constant-input": "Look at what reaches the first layer: it is the same for all samples.",
    "input-ignored": "Look at the forward pass: its output does not depend on the input.",
    "non-finite-input": "Clean the data: some samples hold NaN or infinity.",
    "constant-labels": "Look at how labels are read: all samples have the same one.",
    "labels-misaligned": "Look at how images and labels are paired: one of them is in another order.",
    "wrong-number-of-classes": "Set `num_classes` to the number of classes in the data.",
    "class-imbalance": "Weigh or sample the classes (`balanced=True`), and look at metrics by class.",
    "unshuffled-data": "Shuffle the training data: `DataLoader(..., shuffle=True)`.",
    "validation-in-training": "Split anew: samples of the validation set are in the training set.",
    "augmentation-on-validation": "Give the validation set transforms without randomness.",
    "train-validation-mismatch": "Preprocess training and validation alike; only augmentation may differ.",
    "shape-mismatch": "Look at the shapes: what one layer gives is not what the next one takes.",
    # the model
    "batch-mixing": "Keep samples apart: `flatten(1)` or `permute`, not a `view` that crosses the batch.",
    "zero-initialization": "Initialise at random: with zeros all units stay alike.",
    "constant-initialization": "Initialise at random: with one constant all units stay alike.",
    "initialization-too-large": "Initialise with the variance 2 / fan-in (Kaiming).",
    "initialization-too-small": "Initialise with the variance 2 / fan-in (Kaiming).",
    "dead-relu": "Look at biases and learning rate; LeakyReLU or GELU do not die.",
    "saturating-activation": "Use ReLU or GELU instead of sigmoid or tanh, or normalise between the layers.",
    "vanishing-gradients": "Add normalisation or residual branches, and initialise with variance 2 / fan-in.",
    "exploding-gradients": (
        "Lower the learning rate, initialise with variance 2 / fan-in, clip the gradients."
    ),
    "detached-backbone": "Take `.detach()` or `no_grad` out of the forward pass, or freeze on purpose.",
    "frozen-backbone": "Set `requires_grad` again: layers with random weights are frozen.",
    "dropout-too-strong": "Set the dropout to 0.5 or less: torch's `p` is the probability to drop.",
    "eval-mode-in-training": "Call `self.train()`: dropout is off and batch statistics are frozen.",
    "train-mode-in-validation": "Validate in eval mode: dropout is on or batch statistics are used.",
    "batch-norm-statistics": "Look at BatchNorm's `momentum` and at tiny batches: its averages do not fit.",
    # the optimization
    "learning-rate-too-high": "Divide the learning rate by 10, or warm up.",
    "learning-rate-too-low": "Multiply the learning rate by 10.",
    "weight-decay-too-high": "Lower `weight_decay`: 1e-4 with SGD, 1e-2 to 5e-2 with AdamW are usual.",
    "optimizer-misses-parameters": (
        "Give the optimizer all parameters: `self.parameters()`; freeze by `requires_grad`."
    ),
    "head-replaced-after-optimizer": (
        "Replace layers before `configure_optimizers`, or build the optimizer again."
    ),
    "missing-zero-grad": "Call `optimizer.zero_grad()` before each `manual_backward`.",
    "missing-step": "Call `optimizer.step()`: the weights do not change.",
    "gradient-clipping-too-strong": "Raise `gradient_clip_val`: 1.0 is usual.",
    "momentum-too-high": "Use momentum 0.9 and Adam's betas (0.9, 0.999).",
    "schedule-too-short": "Stretch the schedule over the run: `trainer.estimated_stepping_batches`.",
    "warmup-too-long": "Shorten the warmup to a few per cent of the run.",
    "schedule-too-early": "Decay the learning rate later.",
    "schedule-missing": "Decay the learning rate when the loss stays on a plateau.",
    "optimizer-settings": "Try Adam at 1e-3 with its defaults, with which this run does learn.",
    "mixed-precision-overflow": "Use `precision='bf16-mixed'`, or look at what overflows float16.",
    # the run
    "overfitting": "More data or augmentation, more regularisation, or a smaller model.",
    "underfitting": "Train longer, or with a larger model.",
    "train-longer": "Train longer: the curve is still improving.",
}

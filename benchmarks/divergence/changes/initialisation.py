"""Changes of the parameters and of their first values."""

from __future__ import annotations

from benchmarks.detection.fault import line
from benchmarks.divergence.change import change
from harness.baselines.trajectory import Phase

LM_MODEL = "    model = LanguageModel()\n"
HF_MODEL = "    model = build_model()\n"
IC_HEAD = "        self.head = nn.Linear(2 * width * 9, num_classes)\n"
AE_MODEL = "    model = Autoencoder()\n"
GAN_MODELS = "    generator, discriminator = Generator(), Discriminator()\n"
LI_HEAD = "        self.head = nn.Linear(width * LENGTH // 2, NUM_CLASSES)\n"
PHASES = (Phase.INITIALISATION,)

INITIALISATION_CHANGES = (
    change(
        "initialised-a-little-wider",
        "Weights start a fifth wider.",
        PHASES,
        {
            "language_model": line(
                "nn.init.normal_(module.weight, std=0.05)", "nn.init.normal_(module.weight, std=0.06)"
            ),
            "hf_trainer": line("initializer_range=0.05", "initializer_range=0.06"),
            "image_classifier": line(IC_HEAD, f"{IC_HEAD}        self.head.weight.data.mul_(1.2)\n"),
            "gan": line(GAN_MODELS, f"{GAN_MODELS}    generator.layers[0].weight.data.mul_(1.2)\n"),
        },
    ),
    change(
        "another-initialisation",
        "Weights are drawn from another distribution.",
        PHASES,
        {
            "language_model": line(
                "nn.init.normal_(module.weight, std=0.05)", "nn.init.xavier_uniform_(module.weight)"
            ),
            "image_classifier": line(
                IC_HEAD, f"{IC_HEAD}        nn.init.kaiming_normal_(self.head.weight)\n"
            ),
            "autoencoder": line(AE_MODEL, f"{AE_MODEL}    nn.init.orthogonal_(model.mean.weight)\n"),
            "lightning_trainer": line(
                LI_HEAD, f"{LI_HEAD}        nn.init.xavier_normal_(self.head.weight)\n"
            ),
        },
        reason="Other draws move the generator too, which is a consequence.",
    ),
    change(
        "biases-start-elsewhere",
        "Biases start at another constant.",
        PHASES,
        {
            "language_model": line("nn.init.zeros_(module.bias)", "nn.init.constant_(module.bias, 0.01)"),
            "image_classifier": line(IC_HEAD, f"{IC_HEAD}        nn.init.zeros_(self.head.bias)\n"),
            "autoencoder": line(AE_MODEL, f"{AE_MODEL}    nn.init.zeros_(model.decoder[-1].bias)\n"),
            "gan": line(GAN_MODELS, f"{GAN_MODELS}    nn.init.zeros_(discriminator.layers[-1].bias)\n"),
        },
    ),
    change(
        "one-layer-starts-smaller",
        "One layer's first weights are halved.",
        PHASES,
        {
            "language_model": line(LM_MODEL, f"{LM_MODEL}    model.blocks[1].out.weight.data.mul_(0.5)\n"),
            "hf_trainer": line(HF_MODEL, f"{HF_MODEL}    model.lm_head.weight.data.mul_(0.5)\n"),
            "autoencoder": line(AE_MODEL, f"{AE_MODEL}    model.log_variance.weight.data.mul_(0.5)\n"),
            "lightning_trainer": line(LI_HEAD, f"{LI_HEAD}        self.head.weight.data.mul_(0.5)\n"),
        },
    ),
    change(
        "narrower-layers",
        "Layers are narrower.",
        PHASES,
        {
            "language_model": line("def __init__(self, width=48,", "def __init__(self, width=40,"),
            "image_classifier": line("def __init__(self, width=12,", "def __init__(self, width=10,"),
            "autoencoder": line("def __init__(self, width=96,", "def __init__(self, width=80,"),
            "gan": line("latent=8, width=48", "latent=8, width=40"),
            "hf_trainer": line("intermediate_size=96", "intermediate_size=80"),
            "lightning_trainer": line("lr, steps, width=16)", "lr, steps, width=12)"),
        },
        reason="The model has other parameters; other draws move the generator, which is a consequence.",
    ),
    change(
        "layer-added",
        "The model is one layer deeper.",
        PHASES,
        {
            "language_model": line("num_blocks=2", "num_blocks=3"),
            "hf_trainer": line("num_hidden_layers=2", "num_hidden_layers=3"),
            "gan": line(
                "            nn.Linear(width, 2),\n",
                "            nn.Linear(width, width),\n            nn.ReLU(),\n            nn.Linear(width, 2),\n",
            ),
            "autoencoder": line(
                "            nn.Linear(latent, width),\n",
                "            nn.Linear(latent, latent),\n            nn.Linear(latent, width),\n",
            ),
        },
        reason="The model has other parameters; other draws move the generator, which is a consequence.",
    ),
    change(
        "weights-tied",
        "The output layer shares the weights of the embedding.",
        PHASES,
        {
            "language_model": line(
                "        self.head = nn.Linear(width, VOCABULARY, bias=False)\n",
                "        self.head = nn.Linear(width, VOCABULARY, bias=False)\n"
                "        self.head.weight = self.tokens.weight\n",
            ),
            "hf_trainer": line("tie_word_embeddings=False", "tie_word_embeddings=True"),
        },
        reason="A parameter is gone, and the other one is used twice.",
    ),
    change(
        "bias-left-out",
        "A layer has no bias.",
        PHASES,
        {
            "image_classifier": line(
                "2 * width * 9, num_classes)", "2 * width * 9, num_classes, bias=False)"
            ),
            "autoencoder": line(
                "self.mean = nn.Linear(width, latent)", "self.mean = nn.Linear(width, latent, bias=False)"
            ),
            "gan": line(
                "            nn.Linear(width, 1),\n", "            nn.Linear(width, 1, bias=False),\n"
            ),
            "lightning_trainer": line("// 2, NUM_CLASSES)", "// 2, NUM_CLASSES, bias=False)"),
        },
        reason="The model has other parameters; other draws move the generator, which is a consequence.",
    ),
)

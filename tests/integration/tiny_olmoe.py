"""The smallest network that has everything: layers, heads, and experts of which two are taken."""

from sweeps.model import Model

MODEL = Model(
    family="olmoe",
    layers=2,
    hidden=16,
    heads=2,
    kv_heads=2,
    head_dim=8,
    experts=4,
    top_k=2,
    expert_hidden=16,
    vocabulary=300,
    positions=64,
)

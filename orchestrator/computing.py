"""How a phase is computed: circumstance, which enters no stage."""

from dataclasses import dataclass

from orchestrator.memory import MICRO_BATCH_TOKENS


@dataclass(frozen=True, kw_only=True)
class Computing:
    """On which device and by how many threads of it, and so many tokens at once."""

    device: str = "cpu"
    threads: int = 1
    micro_batch_tokens: int = MICRO_BATCH_TOKENS


PLAIN = Computing()

"""Where a sweep runs: circumstance, never hashed."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sweeps.schema import Description


class Local(Description):
    """This machine: so many jobs at once, GPUs shared out."""

    kind: Literal["local"] = "local"
    workers: PositiveInt | None = None
    threads: PositiveInt = 1
    gpus: Annotated[int, Field(ge=0)] | None = None
    flops_per_second: PositiveFloat = 2e10
    save_seconds: PositiveFloat = 60.0
    micro_batch_tokens: PositiveInt | None = None
    activation_checkpointing: bool = False
    compile: bool = False
    liger: bool = False


class TopUp(Description):
    """The job that fills the queue up while nobody is logged in; see conf/cluster/slurm.yaml."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    every_minutes: PositiveFloat = 15.0
    minutes: PositiveInt = 10
    memory_gb: PositiveFloat = 2.0
    python: str | None = None
    additional: dict[str, str | int | bool] = Field(default_factory=dict)


class Slurm(Description):
    """SLURM, through submitit; every field is explained in conf/cluster/slurm.yaml."""

    kind: Literal["slurm"] = "slurm"
    partition: str
    account: str | None = None
    qos: str | None = None
    gpus: Annotated[int, Field(ge=0)] = 1
    gpu_type: str | None = None
    nodes: PositiveInt = 1
    tasks: PositiveInt = 1
    cpus: PositiveInt = 8
    memory_gb: PositiveFloat | None = None
    minutes: PositiveInt | None = None
    least_minutes: PositiveInt = 20
    safety: Annotated[float, Field(ge=1)] = 2.0
    constraint: str | None = None
    exclude: str | None = None
    reservation: str | None = None
    nice: int | None = None
    wckey: str | None = None
    max_parallel: PositiveInt = 256
    max_queued: PositiveInt | None = None
    top_up: TopUp = TopUp()
    signal_seconds: PositiveInt = 120
    evaluate_apart: bool = False
    python: str | None = None
    snapshot: bool = True
    setup: tuple[str, ...] = ()
    srun_args: tuple[str, ...] = ()
    additional: dict[str, str | int | bool] = Field(default_factory=dict)
    threads: PositiveInt = 1
    flops_per_second: PositiveFloat = 4e14
    save_seconds: PositiveFloat = 300.0
    micro_batch_tokens: PositiveInt | None = None
    activation_checkpointing: bool = False
    compile: bool = False
    liger: bool = False

    @property
    def ranks(self) -> int:
        """Processes of one job, which train together."""
        return self.nodes * self.tasks

    @model_validator(mode="after")
    def _a_gpu_each(self) -> "Slurm":
        if 0 < self.gpus < self.tasks:
            raise ValueError(f"{self.tasks} tasks on a node need as many GPUs, not {self.gpus}")
        return self


Cluster = Annotated[Local | Slurm, Field(discriminator="kind")]

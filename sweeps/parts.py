"""Parts of a family file that describe more than one thing each."""

from typing import Annotated

from pydantic import Field

from sweeps.expressions import Shape, Shapes
from sweeps.schema import Description


class Attention(Description):
    """Widths of one head, as sums of products of sizes: what its FLOPs follow from.

    `products` are multiplications per token and layer that go with no weight and do not depend
    on how long the sequence is: those of a recurrent state.
    """

    query_key: str = "head_dim"
    value: str = "head_dim"
    products: str = "0"

    @property
    def is_none(self) -> bool:
        """Whether no token looks at another: a layer with a state instead, or a convolution."""
        return self.query_key == "0"


class Mixer(Description):
    """One way in which a layer mixes tokens, where layers of a family differ in it."""

    tensors: Shapes
    attention: Attention = Attention(query_key="0", value="0")


class Periodic(Description):
    """One value at every so-manyth layer, another one at the others.

    `keys` name the period and the offset in config.json, or are numbers. Without an offset it is
    the last layer of each period.
    """

    keys: Annotated[Shape, Field(min_length=1, max_length=2)]
    at: str | int
    otherwise: str | int


class Stacked(Description):
    """Names of the layout that keeps all experts of a layer in one tensor."""

    router: Shapes = Field(default_factory=dict)
    expert: Shapes = Field(default_factory=dict)
